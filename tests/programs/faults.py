"""An application in which things go wrong: for tests of what a console shows. ``python -m`` serves it from code.

``FAULTS_LOGGING``: what configures logging, once the application has started: ``basic``, ``dict`` or ``null``.
"""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket

from velocity_ws import Broker, Client, Server, Settings


async def plain(ws: WebSocket) -> None:
    """An endpoint that is no broker's."""
    await ws.accept()
    raise ValueError(await ws.receive_text())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    match os.environ.get("FAULTS_LOGGING"):
        case "basic":
            logging.basicConfig(format="MINE %(message)s")
        case "dict":  # as most applications write it: it disables each logger that exists and that it does not name
            mine = {"class": "logging.StreamHandler", "formatter": "mine"}
            formatters = {"mine": {"format": "MINE %(message)s"}}
            handlers = {"mine": mine}
            root = {"handlers": ["mine"]}
            config = {"version": 1, "formatters": formatters, "handlers": handlers, "root": root}
            logging.config.dictConfig(config)
        case "null":
            logging.getLogger("velocity_ws").addHandler(logging.NullHandler())
    yield


PORT = int(os.environ.get("FAULTS_PORT", "0"))
app = FastAPI(lifespan=lifespan)
broker = Broker(Settings(_env_file=None, drain_timeout=2))
broker.attach(app)
app.add_api_websocket_route("/plain", plain)


@broker.authenticate
async def who(request: Any) -> Any:
    name = request.query_params.get("user")
    return None if name is None else {"id": name, "password": "s3cret"}


@broker.on_connect
async def enter(client: Client) -> None:
    if client.request.query_params.get("enter") == "fail":
        raise LookupError("nobody may enter")


@broker.on("boom")
async def boom(data: Any) -> float:
    return 1 / 0


@broker.on("boom\nERROR:    forged")
async def echoed(data: str) -> None:
    raise ValueError(data) from KeyError("cause")


async def embedded() -> None:
    """A server inside an application's loop."""
    async with Server(broker, app, port=PORT):
        await asyncio.Event().wait()


if __name__ == "__main__":
    if os.environ.get("FAULTS_SERVER") == "loop":
        asyncio.run(embedded())
    else:
        Server(broker, app, port=PORT).run()
