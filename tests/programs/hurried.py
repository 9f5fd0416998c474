"""A server from code that has reasons to stop slowly: a test says which, by ``HURRIED``, and tells it twice to stop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from velocity_ws import Broker, Server, Settings
from velocity_ws.uvicorn import server


class WithoutSignals(asyncio.SelectorEventLoop):
    """As the loops of Windows are."""

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    if os.environ["HURRIED"] == "startup":
        print("starts", flush=True)
        await asyncio.Event().wait()
    yield
    if os.environ["HURRIED"] == "shutdown":
        print("shuts down", flush=True)
        await asyncio.Event().wait()


broker = Broker(Settings(_env_file=None, drain_timeout=30))


@broker.on("hang")
async def hang() -> None:
    print("hangs", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("clings", flush=True)


@broker.on("block")
def block() -> None:
    print("hangs", flush=True)
    time.sleep(3600)


@broker.on_disconnect
async def gone() -> None:
    print("gone", flush=True)


def without_signals() -> asyncio.AbstractEventLoop:
    return WithoutSignals()


if __name__ == "__main__":
    if os.environ["HURRIED"] in ("handler", "block", "loop"):
        server.HURRIED_GRACE = 20.0  # it ends by itself, in however much of a second it has no processor
    options = {"loop": "tests.programs.hurried:without_signals"} if os.environ["HURRIED"] == "loop" else {}
    Server(broker, Starlette(lifespan=lifespan), port=int(os.environ["HURRIED_PORT"]), **options).run()
    print("ended", flush=True)
