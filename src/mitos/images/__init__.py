"""Images: names that templates start from, and the root filesystems made of them on disk."""
