"""One client from accept to its last hook, and the hub of all that are here. Knows no ASGI, no socket and no engine."""
