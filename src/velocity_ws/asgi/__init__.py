"""The way in, on any ASGI server: admission, transports, middleware, pages. Knows no server by name."""
