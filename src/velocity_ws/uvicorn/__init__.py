"""The uvicorn protocol classes: ``uvicorn app:app --ws velocity_ws.uvicorn:WebSocketProtocol``. Only their names.

`velocity_ws.Server` uses them too. An application that any ASGI server serves needs none of them.
"""

from velocity_ws.uvicorn.http import HTTPProtocol
from velocity_ws.uvicorn.loop import new_event_loop
from velocity_ws.uvicorn.websocket import WebSocketProtocol

__all__ = ["HTTPProtocol", "WebSocketProtocol", "new_event_loop"]
