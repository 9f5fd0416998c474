"""ASGI: the way in, on any server: admission, transports, middleware, pages. Knows no server's code."""
