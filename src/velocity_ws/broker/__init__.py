"""Broker: what an application holds, and the wiring behind it: broker, emitter, node. Knows no ASGI and no server."""
