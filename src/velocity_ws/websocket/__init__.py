"""RFC 6455 on an asyncio transport: frames in, frames out, pings, the two handshakes. Knows no uvicorn and no ASGI.

Everything here runs on the event loop of its connection.
"""
