"""Outgoing traffic of sandboxes: what a posture lets pass, and the proxy that enforces it.

`policy` decides, `proxy` speaks HTTP and SOCKS5 with the program inside. `node/inside/egress.py`
brings the connections.
"""
