"""A server that is to be stopped: counts what it handles of each client, and writes that down at its end.

`app` is for uvicorn; run as a program it is served by `Server`. SHUTDOWN_REPORT is the directory of the reports: one
file for each process that has begun, one for each whose lifespan has ended, and one for each handshake half done.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from tests.programs.shutdown_sizes import ANSWER_EVERY, PUBLISH_EVERY, STUFFING, STUFFING_SIZE
from velocity_ws import Broker, Client, Server, Settings, WebSocketMiddleware

REPORT = Path(os.environ["SHUTDOWN_REPORT"])

broker = Broker(Settings(_env_file=None, rate_limit=0, send_queue_size=64 * 1024 * 1024, enable_compression=False))
handled: dict[str, int] = {}
gaps: list[list[Any]] = []
answered: dict[str, int] = {}
never = asyncio.Event()


@broker.authenticate
async def authenticate(request: Any) -> None:
    """Take for ever for who asks for it: a handshake that is half done."""
    if "never" in request.query_params:
        (REPORT / f"half-{os.getpid()}-{id(request)}").touch()
        await never.wait()


@broker.on("n")
async def count(client: Client, data: tuple[str, int]) -> None:
    """A client's next message."""
    name, number = data
    if number != handled.get(name, 0):
        gaps.append([name, handled.get(name, 0), number])
    handled[name] = number + 1
    if number % ANSWER_EVERY == 0 and await client.send("a", number):
        answered[name] = answered.get(name, 0) + 1


@broker.on("stuff")
async def stuff(client: Client) -> None:
    """More than fits into the sockets of one that does not read."""
    for number in range(STUFFING):
        await client.send("s", [number, "x" * STUFFING_SIZE])


@broker.on("hang")
async def hang() -> None:
    """Handle for ever."""
    await never.wait()


@broker.on("cling")
async def cling() -> None:
    """Handle for ever, and not be cancelled."""
    while True:
        try:
            await never.wait()
        except asyncio.CancelledError:
            continue


@broker.on("block")
def block(data: float) -> None:
    """Handle in a thread that cannot be stopped, for so many seconds."""
    time.sleep(data)


@broker.on("fail")
async def fail() -> None:
    """What ``on_error`` is told of."""
    raise ValueError


def hangs(kind: str) -> Any:
    """A plain hook of a kind, that never returns for who asked for it in the handshake."""

    def hook(client: Client) -> None:
        if client.request.query_params.get("hang") == kind:
            threading.Event().wait()

    return hook


if "SHUTDOWN_HANGS" in os.environ:

    @broker.authenticate
    def hang_at_the_door(request: Any) -> None:
        """The same for a handshake."""
        if request.query_params.get("hang") == "authenticate":
            threading.Event().wait()

    @broker.on_connect
    async def enter(client: Client) -> None:
        """Be in a room, so that there is something to leave."""
        if client.request.query_params.get("hang") in ("join", "leave"):
            await broker.join_room(client.id, "room")

    broker.on_connect(hangs("connect"))
    broker.on_join(hangs("join"))
    broker.on_leave(hangs("leave"))
    broker.on_disconnect(hangs("disconnect"))
    broker.on_error(hangs("error"))


async def publish() -> None:
    """Tell everyone a number, again and again."""
    number = 0
    while True:
        await broker.broadcast("b", number)
        number += 1
        await asyncio.sleep(PUBLISH_EVERY)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Publish meanwhile, and report at the end."""
    publishing = asyncio.create_task(publish())
    (REPORT / f"begun-{os.getpid()}").touch()
    yield
    publishing.cancel()
    report = {"handled": handled, "gaps": gaps, "answered": answered, "stats": broker.get_stats().to_dict()}
    (REPORT / f"ended-{os.getpid()}").write_text(json.dumps(report))


inner = Starlette(lifespan=lifespan)
app = WebSocketMiddleware(inner, broker)

if __name__ == "__main__":
    Server(broker, inner, port=int(os.environ["SHUTDOWN_PORT"])).run()
