"""What the asynchronous form needs of an event loop, written by hand.

`_thread/` has modules, classes and methods of the same names for threads. The code of `_async/`
uses these, and `scripts/unasync` puts those in their place: what differs by more than `await`
between the two forms is here and in `_async/pty.py`, and nowhere else.
"""
