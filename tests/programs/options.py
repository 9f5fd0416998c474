"""An application that tells how it is served: for tests that start it with uvicorn's own command."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from velocity_ws import Broker, Client, Settings
from velocity_ws.asgi.transport import EXTENSION

HTTP_MODULES = {"h11_impl": "h11", "httptools_impl": "httptools", "zttp_impl": "zttp", "auto_zttp_impl": "zttp"}


def describe(connection: HTTPConnection) -> dict[str, Any]:
    """What an application can know of the server and of the connection."""
    scope = connection.scope
    gc.unfreeze()  # what was there at the first WebSocket is not listed else
    (config,) = [thing for thing in gc.get_objects() if isinstance(thing, uvicorn.Config)]
    module = config.http_protocol_class.__module__.rpartition(".")[2]
    return {
        "pid": os.getpid(),
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "http": HTTP_MODULES.get(module, module),
        "is ours": EXTENSION in scope.get("extensions", {}),
        "subprotocols": scope.get("subprotocols"),
        "url": str(connection.url),
        **{key: scope[key] for key in ("scheme", "path", "root_path", "client", "server")},
        **{key: scope[key].decode() for key in ("raw_path", "query_string")},
    }


async def tell(request: Request) -> JSONResponse:
    """The same of an HTTP request."""
    return JSONResponse(describe(request))


async def echo(ws: WebSocket) -> None:
    """Tell how it is served, then echo; takes the last of the subprotocols it is offered."""
    await ws.accept(subprotocol=(ws.scope["subprotocols"] or [None])[-1])
    await ws.send_json(describe(ws))
    try:
        while True:
            event = await ws.receive()
            if event["type"] == "websocket.disconnect":
                return
            await ws.send({**event, "type": "websocket.send"})
    except WebSocketDisconnect:
        return


broker = Broker(Settings(_env_file=None))


@broker.on("who")
async def who(client: Client) -> dict[str, Any]:
    """How the client is connected to the broker."""
    return {**describe(client.request), "remote_addr": client.remote_addr}


@broker.on("echo")
async def echo_data(data: Any) -> Any:
    """What comes."""
    return data


app = Starlette(
    routes=[Route("/tell", tell), WebSocketRoute("/echo", echo), WebSocketRoute("/echo/{rest:path}", echo)],
)
broker.attach(app)
