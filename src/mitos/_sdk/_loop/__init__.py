"""What the asynchronous form needs of an event loop, written by hand.

`_thread/` has modules, classes and methods of the same names for threads. The code of `_async/`
uses these, and `scripts/unasync` puts those in their place. Only the handles of terminals and the
shared HTTP clients also differ by more than `await`: see `_async/pty.py` and `pool.py`.
"""
