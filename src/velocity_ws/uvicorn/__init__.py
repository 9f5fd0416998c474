"""The uvicorn protocol classes: ``uvicorn app:app --ws velocity_ws.uvicorn:WebSocketProtocol``. Only their names.

Not imported by the package itself: the classes know uvicorn, and the package works on any ASGI server.
"""

from velocity_ws.uvicorn.http import HTTPProtocol
from velocity_ws.uvicorn.loop import new_event_loop
from velocity_ws.uvicorn.websocket import WebSocketProtocol

__all__ = ["HTTPProtocol", "WebSocketProtocol", "new_event_loop"]
