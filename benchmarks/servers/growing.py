"""`benchmarks.servers.entering` with commands that move its clients, and that say how long its loop was held up.

``--ping SECONDS`` has it send keepalive pings so often.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.servers.control import option, run, serve_asgi
from benchmarks.servers.entering import Entering
from benchmarks.servers.velocity import CLASSES

TICK = 0.001
"""Seconds of the timer whose delay is looked at."""
AT_ONCE = 100
"""Rooms that are filled in one turn of the loop."""


class Watch:
    """How late a timer is at most, and how much of that this thread was at work: the rest is the machine's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._worked = self._late = self._held = 0.0

    def start(self) -> None:
        """Look, from now on."""
        self.stop()
        self._late = self._held = 0.0
        self._arm()

    def stop(self) -> dict[str, float]:
        """Look no more; the most that there was, in milliseconds."""
        if self._timer is not None:
            self._look()
            self._timer.cancel()
            self._timer = None
        return {"late": self._late * 1e3, "held": self._held * 1e3}

    def _arm(self) -> None:
        self._due = time.monotonic() + TICK  # the loop's own time stands still for a turn
        self._worked = time.thread_time()
        self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._look()
        self._arm()

    def _look(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        self._late = max(self._late, late)
        self._held = max(self._held, min(late, time.thread_time() - self._worked))


class Growing(Entering):
    """The same application. A client's user is its number."""

    def __init__(self) -> None:
        super().__init__(float(option("--ping") or 0))
        self._to_users = False
        self._watch: Watch | None = None
        self._first: list[str] = []

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        target = self.broker.to_user(room) if self._to_users else self.broker.to_room(room)
        await target.send("news", data)

    async def address(self, users: bool) -> dict[str, Any]:
        """What is sent to rooms goes to the users of these names from now on, or to rooms again."""
        self._to_users = users
        return {}

    async def fill(self, rooms: int) -> dict[str, Any]:
        """Have so many more rooms, with one client in each, spread over all clients."""
        for number in range(rooms):
            clients = self._clients()
            await self.broker.join_room(clients[number % len(clients)], f"more-{number}")
            if not number % AT_ONCE:
                await asyncio.sleep(0)
        return {}

    async def move(self, count: int, among: int) -> dict[str, Any]:
        """Have one client after the other, of so many, join a room of its own and leave it; how often it was not so."""
        clients = self._clients()[:among]
        wrong = 0
        for number in range(count):
            client = clients[number % len(clients)]
            joined = await self.broker.join_room(client, "for a moment")
            await self.broker.leave_room(client, "for a moment")
            wrong += joined.room != "for a moment"
            await asyncio.sleep(0)
        return {"wrong": wrong + await self.broker.count("for a moment")}

    def _clients(self) -> list[str]:
        """The clients that came first, and stay; looked up once, as that takes longer the more there are."""
        if not self._first:
            self._first = [client.id for client in self.broker.get_clients()]
        return self._first

    async def watch(self) -> dict[str, Any]:
        """Begin to look how long the loop is held up."""
        self._clients()  # now, as it holds the loop up
        self._watch = Watch(asyncio.get_running_loop())
        self._watch.start()
        return {}

    async def watched(self) -> dict[str, Any]:
        """End that; see `Watch.stop`."""
        return {} if self._watch is None else self._watch.stop()


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Growing()
    commands = {name: getattr(contestant, name) for name in ("address", "fill", "move", "watch", "watched")}
    await serve_asgi(contestant.app, contestant, lifespan="on", commands=commands, **CLASSES)


if __name__ == "__main__":
    run(main)
