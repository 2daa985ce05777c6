"""What programs in a sandbox can ask of the node, and what they may use.

self_service.py    who am I, and fork me, over a socket
budget.py          how many forks that may be
egress.py          the proxy that lets traffic out, where the posture allows it
"""
