"""An application for several workers: clients join rooms, and have their worker send to rooms and tell the outcome."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from velocity_ws import BackplaneUnavailable, Broker, Client, VelocityError

PAUSE = 0.01
"""Seconds between two messages of a talk."""
WORTH_COUNTING = 0.02
"""Seconds that a process has to be late at once, to be called so."""

broker = Broker(presence=lambda room: room.startswith("seen"))
app = Starlette()
broker.attach(app)


class Talk:
    """Messages to a room at a steady pace, none of which waits for the one before it to be published.

    Attributes:
        outcomes: of each, in order.
        took: seconds until that was known, of each.
        late: seconds that this process was late meanwhile, of each, whatever for, but for what is not worth counting.
    """

    def __init__(self, room: str) -> None:
        self.outcomes: list[str] = []
        self.took: list[float] = []
        self.late: list[float] = []
        self._room = room
        self._lag = 0.0
        self._due = time.monotonic() + PAUSE
        self._task = asyncio.create_task(self._talk())

    async def end(self) -> None:
        """Say no more, and wait for what was said."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _talk(self) -> None:
        async with asyncio.TaskGroup() as group:
            sends: list[asyncio.Task[None]] = []
            try:
                while True:
                    self.outcomes.append("")
                    self.took.append(0.0)
                    self.late.append(0.0)
                    sends.append(group.create_task(self._send(len(self.outcomes) - 1)))
                    self._due = time.monotonic() + PAUSE
                    await asyncio.sleep(PAUSE)
                    self._lag = self._late()
            except asyncio.CancelledError:
                self._lag, self._due = self._late(), float("inf")
                await asyncio.wait(sends)

    def _late(self) -> float:
        """In all."""
        now = time.monotonic() - self._due
        return self._lag + (now if now > WORTH_COUNTING else 0.0)

    async def _send(self, number: int) -> None:
        began, late = time.monotonic(), self._late()
        try:
            await broker.to_room(self._room).send("n", [broker.node_id, number, began])
            self.outcomes[number] = "published"
        except BackplaneUnavailable as error:
            self.outcomes[number] = error.outcome
        self.took[number], self.late[number] = time.monotonic() - began, self._late() - late


talks: list[Talk] = []


@broker.rooms("chat:{name}").authorize
def may_enter(client: Client) -> bool:
    """Whether a user may be in these rooms: there is a file of its name then."""
    return (Path(os.environ["RIGHTS"]) / str(client.user_id)).exists()


@broker.authenticate
def authenticate(request: Any) -> str | None:
    name: str | None = request.query_params.get("user")
    return name


@broker.on("join")
async def join(client: Client, data: str) -> list[Any]:
    await broker.join_room(client.id, data)
    return [client.id, broker.node_id, os.getpid()]


@broker.on("relay")
async def relay(data: list[Any]) -> str:
    """Send to a room; what became of it."""
    room, what = data
    try:
        await broker.to_room(room).send("n", what)
    except BackplaneUnavailable as error:
        return error.outcome
    return "published"


@broker.on("tell")
async def tell(data: list[Any]) -> str:
    """Send to clients by their ids; what became of it."""
    ids, what = data
    try:
        await (broker.to_client(ids) if isinstance(ids, str) else broker.to_clients(ids)).send("n", what)
    except BackplaneUnavailable as error:
        return error.outcome
    return "published"


@broker.on("do")
async def do(data: list[Any]) -> Any:
    """Call a method of the broker; what it returns, or raises."""
    method, *args = data
    try:
        return await getattr(broker, method)(*args)
    except BackplaneUnavailable as error:
        return f"BackplaneUnavailable {error.outcome}"
    except VelocityError as error:
        return type(error).__name__


@broker.on("revoke")
async def revoke(data: str) -> list[str]:
    """Ask about the members of a room again; the nodes that did not confirm."""
    try:
        await broker.reauthorize(data)
    except BackplaneUnavailable as error:
        return list(error.nodes)
    return []


@broker.on("end")
async def end() -> None:
    """Tell everyone that this node has nothing more to say: it comes after all that it has said."""
    await broker.broadcast("end", broker.node_id)


@broker.on("talk")
async def talk(data: str) -> None:
    """Begin to send to a room."""
    talks.append(Talk(data))


@broker.on("hush")
async def hush() -> list[Any]:
    """End that, and tell the outcomes, what each took, and how late this process was meanwhile."""
    found = talks.pop()
    await found.end()
    return [found.outcomes, found.took, found.late]


@broker.on("flood")
async def flood(data: list[Any]) -> int:
    """Publish so many messages of so many bytes to a room; how many were taken."""
    room, count, size = data
    target, taken = broker.to_room(room), 0
    for _ in range(count):
        try:
            await target.send("flood", "x" * size)
            taken += 1
        except BackplaneUnavailable:
            continue
    return taken


@broker.on("stats")
async def stats() -> dict[str, Any]:
    return {**broker.get_stats().to_dict(), "healthy": broker.healthy}


@broker.on("members")
async def members(data: str) -> list[Any]:
    """Who is in a room, and which nodes did not say."""
    found = await broker.members(data)
    return [sorted(member.client_id for member in found), found.missing]
