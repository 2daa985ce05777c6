"""Trees of sandboxes: as tar streams out and in, and what differs between two of them.

Every file goes through the agent's ordinary operations (`agent/client.py`), so no name in an
archive ever reaches the host's file system.

tar.py        the format and its bounds: members in, names and sizes out; no sandbox
download.py   a tree as a tar
upload.py     a tar unpacked into a tree
diff.py       which files differ between two relatives
"""
