"""What one machine runs: templates, sandboxes, forks, deadlines, capacity, recovery.

Knows no HTTP and no Kubernetes: `server` parses requests and calls `Node`; `engine` runs the
machines.
"""
