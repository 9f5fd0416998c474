"""An application for several workers: clients join rooms, and have their worker send to rooms and tell the outcome."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.applications import Starlette

from velocity_ws import BackplaneUnavailable, Broker, Client

broker = Broker(presence=lambda room: room.startswith("seen"))
app = Starlette()
broker.attach(app)


@broker.authenticate
def authenticate(request: Any) -> str | None:
    name: str | None = request.query_params.get("user")
    return name


@broker.on("join")
async def join(client: Client, data: str) -> list[str]:
    await broker.join_room(client.id, data)
    return [client.id, broker.node_id]


@broker.on("relay")
async def relay(data: list[Any]) -> str:
    room, what = data
    try:
        await broker.to_room(room).send("n", what)
    except BackplaneUnavailable as error:
        return error.outcome
    return "published"


@broker.on("flood")
async def flood(data: list[Any]) -> int:
    """Publish so many messages of so many bytes to a room; how many were taken."""
    room, count, size = data
    target = broker.to_room(room)
    taken = 0
    for at in range(0, count, 500):
        sends = [target.send("flood", "x" * size) for _ in range(min(500, count - at))]
        taken += sum(isinstance(sent, int) for sent in await asyncio.gather(*sends, return_exceptions=True))
    return taken


@broker.on("stats")
async def stats() -> dict[str, Any]:
    return {**broker.get_stats().to_dict(), "healthy": broker.healthy}


@broker.on("members")
async def members(data: str) -> list[str]:
    return [member.client_id for member in await broker.members(data)]
