"""RFC 6455 on an asyncio transport. Knows no uvicorn and no ASGI application."""
