"""The boundaries of `spec/` in Python: messages, framing, names, errors. No I/O, no clock."""
