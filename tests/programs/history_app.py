"""An application for several processes with rooms that have a history, and rooms that have none."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette

from velocity_ws import BackplaneUnavailable, Broker, ClientError, History

broker: Broker[str] = Broker()
app = Starlette()
broker.attach(app)
chats = broker.rooms("chat:{name}", history=History(size=100_000, ttl="2h", max_bytes="1GiB"))
plains = broker.rooms("plain:{name}")


@chats.authorize
@plains.authorize
async def may_enter() -> bool:
    return True


@broker.on("publish", concurrent=True)
async def publish(data: list[Any]) -> str | None:
    """Say a number to a room; where it is. An error where this is unknown, or where it is refused."""
    room, number = data
    try:
        return (await broker.to_room(room).send("n", number, dedupe=f"{room} {number}")).at
    except BackplaneUnavailable as error:
        raise ClientError("UNAVAILABLE", str(error), outcome=error.outcome) from None


@broker.on("say", concurrent=True)
async def say(data: list[Any]) -> str:
    """Say something to a room without history, once; what became of it."""
    room, what = data
    try:
        await broker.to_room(room).send("n", what)
    except BackplaneUnavailable as error:
        return error.outcome
    return "published"


@broker.on("history")
async def history(data: list[Any]) -> list[Any]:
    """What a room remembers after a position: the numbers, and where they are."""
    room, since = data
    return [[entry.data, entry.at] for entry in await broker.history(room, since=since, limit=1000)]


@broker.on("stats")
def stats() -> dict[str, Any]:
    return {**broker.get_stats().to_dict(), "healthy": broker.healthy, "pid": os.getpid()}
