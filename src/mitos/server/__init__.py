"""HTTP, Connect and WebSockets in front of the node: parse, authorise, call, encode."""
