"""What the synchronous form needs of threads, written by hand; `_loop/` says why."""
