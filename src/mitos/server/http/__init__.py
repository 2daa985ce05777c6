"""The listening port: HTTP/1.1, cleartext HTTP/2 and WebSockets, each connection with its bounds.

What is in which module:

    server      binds the port, takes connections, stops
    connection  tells HTTP/2 from HTTP/1.1 by the first bytes
    http1       HTTP/1.1 by uvicorn and h11, with deadlines
    websocket   WebSockets by uvicorn and wsproto, with deadlines
    http2       cleartext HTTP/2 by h2
    stream      one request of HTTP/2
    traffic     what all connections share: the application, who is connected, how many may be
    deadline    a timer that ends a connection

No connection waits without a bound for its client, and none holds more than a few buffers of it: a
client, and whatever answers it, costs its own connection and nothing else.
"""
