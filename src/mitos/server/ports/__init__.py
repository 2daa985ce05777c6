"""Ports inside sandboxes, reached from outside: the expose route, preview hosts, forwarded ports.

What is in which module:

    target     which port and path a request is for
    proxy      carries a request or WebSocket to a port, and its answer back
    websocket  the same for the frames of a WebSocket
    expose     the route below `/v1/sandboxes`
    preview    the hosts under the preview domain, and the URLs that lead there
    forward    listeners on this machine's loopback
"""
