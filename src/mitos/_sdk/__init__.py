"""Inside the SDK. `_async/` is the source of both forms; `_sync/` is generated from it; the rest is
pure.
"""
