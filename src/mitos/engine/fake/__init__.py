"""An engine without isolation: guests in this process's memory. For tests and trying things out.

It runs no program of the host: files are entries of a dictionary, commands a handful of shell
words, cells Python code in a namespace. It says the same things over the guest link as a real
agent.
"""

from mitos.engine.fake.engine import FakeEngine

__all__ = ["FakeEngine"]
