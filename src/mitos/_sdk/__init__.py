"""Inside the SDK: `_async/` is the source, `_sync/` is generated from it, the rest is pure."""
