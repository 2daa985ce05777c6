"""One form of the SDK: `scripts/unasync` writes the synchronous one from the asynchronous one."""
