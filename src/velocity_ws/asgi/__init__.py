"""The way in, on any ASGI server: handshake, read loop, middleware, pages. Knows no server by name."""
