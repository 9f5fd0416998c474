"""Sessions: one client from accept to its last hook, and the hub of all clients. Knows no ASGI, socket or engine."""
