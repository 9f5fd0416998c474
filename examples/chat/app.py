"""The web application around the chat: the page, the login, the statistics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.chat import tokens
from examples.chat.chat import STATS, Name, broker

__all__ = ["app", "broker"]

HERE = Path(__file__).parent


class Login(BaseModel):
    """What POST /login takes."""

    name: Name


async def page(_: Request) -> Response:
    return FileResponse(HERE / "page.html", headers={"content-security-policy": "default-src 'self'"})


async def login(request: Request) -> Response:
    try:
        name = Login.model_validate_json(await request.body()).name
    except ValidationError:
        return JSONResponse({"message": "A name has 1 to 24 characters."}, status_code=422)
    return JSONResponse({"name": name, "token": tokens.issue(name)})


async def stats(_: Request) -> Response:
    return JSONResponse(broker.get_stats().to_dict())


async def healthz(_: Request) -> Response:
    return JSONResponse({"ok": broker.is_running}, status_code=200 if broker.is_running else 503)


async def show_stats() -> None:
    """Push this process's statistics each second to those of its clients who look."""
    while True:
        await asyncio.sleep(1)
        watchers = [client.id for client in broker.get_room_clients(STATS)]
        await broker.to_clients(watchers).send("stats", broker.get_stats().to_dict())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(show_stats())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


app = Starlette(
    routes=[
        Route("/", page),
        Route("/login", login, methods=["POST"]),
        Route("/stats", stats),
        Route("/healthz", healthz),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ],
    lifespan=lifespan,
)
