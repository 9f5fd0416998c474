"""What is measured. Each measurement has a server process of its own; the clients' process serves them all.

To measure something else, add a scenario here and name it in `scenarios`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.process import Child

__all__ = ["WARM_UP", "Broadcast", "Figures", "Idle", "Scenario", "scenarios"]

WARM_UP = 5
"""Messages before the measured ones: buffers, compressors and caches exist then."""


@dataclass(frozen=True)
class Figures:
    """One measurement.

    Attributes:
        values: by name, in the scenario's unit; the first is the one that is compared.
        deliveries: messages that reached a client, all of them checked.
        faults: lost, duplicated or disordered ones.
        busy: how busy the clients' process was, 0 to 1.
        late: broadcasts that began more than one interval late, because the server could not keep the pace.
    """

    values: dict[str, float]
    deliveries: int
    faults: int
    busy: float
    late: int


class Scenario(Protocol):
    """Something that can be measured."""

    @property
    def title(self) -> str:
        """A heading."""

    @property
    def unit(self) -> str:
        """Of all values but those that say otherwise in their name."""

    async def measure(self, server: str, load: Child) -> Figures:
        """Start that server, measure, and end it."""


@dataclass(frozen=True)
class Broadcast:
    """Server CPU for each delivered message, connecting not included."""

    clients: int
    messages: int
    per_second: float
    size: int
    deflate: bool

    @property
    def title(self) -> str:
        """What, to how many, how large."""
        what = "with permessage-deflate" if self.deflate else "plain"
        return f"Broadcast to {self.clients:,} clients, {self.size} bytes, {what}"

    unit = "µs"

    async def measure(self, server: str, load: Child) -> Figures:
        """Server CPU from before the first broadcast until every client has the last."""
        async with _start(server, deflate=self.deflate) as child:
            await _connect(child, load, self.clients, deflate=self.deflate)
            warm_up = await _send(child, load, WARM_UP, self.per_second, self.size)
            burst = await _send(child, load, self.messages, self.per_second, self.size)
        due = self.clients * self.messages
        user, system = burst["user"] / due * 1e6, burst["system"] / due * 1e6
        return Figures(
            {
                "total": user + system,
                "user": user,
                "system": system,
                "bytes on the wire": burst["wire"] / max(burst["deliveries"], 1),
            },
            warm_up["deliveries"] + burst["deliveries"],
            warm_up["faults"] + burst["faults"],
            burst["busy"],
            burst["late"],
        )


@dataclass(frozen=True)
class Idle:
    """Server memory for each connection that does nothing."""

    clients: int
    deflate: bool

    @property
    def title(self) -> str:
        """What, and how many."""
        return f"{self.clients:,} idle connections, {'with permessage-deflate' if self.deflate else 'plain'}"

    unit = "KiB"

    async def measure(self, server: str, load: Child) -> Figures:
        """Resident memory over that of the server without connections; again once each has had a few messages."""
        async with _start(server, deflate=self.deflate) as child:
            await _connect(child, load, 1, deflate=self.deflate)  # what the first connection imports is not its own
            await load.ask("connect", port=0, clients=0, deflate=False)
            await _until_connected(child, 0)
            empty = (await child.ask("memory"))["rss"]
            await _connect(child, load, self.clients, deflate=self.deflate)
            connected = (await child.ask("memory"))["rss"]
            messages = await _send(child, load, WARM_UP, 10, 400)
            used = (await child.ask("memory"))["rss"]
        each = 1024 * self.clients
        values = {"just connected": (connected - empty) / each, f"after {WARM_UP} messages": (used - empty) / each}
        return Figures(values, messages["deliveries"], messages["faults"], messages["busy"], 0)


def scenarios(*, quick: bool) -> list[Scenario]:
    """All of them; ``quick`` ones only show that everything works."""
    if quick:
        return [
            Broadcast(20, messages=10, per_second=100, size=130, deflate=False),
            Broadcast(20, messages=10, per_second=100, size=400, deflate=True),
            Idle(50, deflate=True),
        ]
    return [
        Broadcast(500, messages=50, per_second=20, size=130, deflate=False),
        Broadcast(500, messages=50, per_second=20, size=400, deflate=True),
        Idle(1000, deflate=False),
        Idle(1000, deflate=True),
    ]


def _start(server: str, *, deflate: bool) -> Child:
    return Child("serve", server, *(["--deflate"] if deflate else []))


async def _connect(child: Child, load: Child, clients: int, *, deflate: bool) -> None:
    status = await child.ask("status")
    await load.ask("connect", port=status["port"], clients=clients, deflate=deflate)
    await _until_connected(child, clients)


async def _until_connected(child: Child, clients: int) -> None:
    async with asyncio.timeout(10):
        while (await child.ask("status"))["connected"] != clients:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.01)


async def _send(child: Child, load: Child, messages: int, per_second: float, size: int) -> dict[str, Any]:
    """Broadcast, wait for the last delivery, check them all; what it cost the server."""
    await load.ask("expect", messages=messages)
    before = await child.ask("broadcast", count=messages, per_second=per_second, size=size)
    busy = (await load.ask("wait"))["busy"]
    after = await child.ask("status")
    checked = await load.ask("check")
    return {
        "user": after["user"] - before["user"],
        "system": after["system"] - before["system"],
        "late": before["late"],
        "busy": busy,
        "wire": checked["wire"],
        "deliveries": checked["deliveries"],
        "faults": checked["lost"] + checked["duplicated"] + checked["disordered"],
    }
