"""Inside the SDK: `_async/` is the source of `_sync/`, which is generated from it.

`_loop/` and `_thread/` are what the two forms stand on, `value/` has what calls return and take.
The other files are shared by both forms: nearly all are pure, and `pool` has the connections.
"""
