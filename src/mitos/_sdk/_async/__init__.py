"""The asynchronous form of the SDK, and the source of the synchronous one."""
