"""Many who come back to one room at once, and one who reads slowly: what it costs the engine and the others."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import DEADLINE, eventually
from tests.support.remembering import EVERY, kinds
from tests.support.returning import Ledger, Page
from tests.support.say import Say
from tests.support.stages import Stage, Staging

ROOM = "chat:1"
WHILE = 2.0
"""Seconds within which all try again."""
MANY = 9_500
"""Of them and of their connections in this process there may be 20,000 sockets; `make bench-history` has 10,000."""
AT_ONCE = 200
"""Handshakes at a time: what a listener takes before it answers is bounded."""


# --- case 10: everybody comes back at once


async def come_back(stage: Stage, ledger: Ledger, at: str, count: int, seed: int) -> list[Page]:
    """So many connect to one node within two seconds, and join from one position."""
    chance = random.Random(seed)
    door = asyncio.Semaphore(AT_ONCE)
    pages = [ledger.page(f"page {number}") for number in range(count)]

    async def comes(page: Page) -> None:
        await asyncio.sleep(chance.uniform(0, WHILE if count > 1000 else WHILE / 10))
        async with door:
            await page.open(stage.places[-1], within=60)
            await page.join(ROOM, since=at)

    await asyncio.gather(*[comes(page) for page in pages])
    return pages


async def all_are_back(kind: str, count: int, staging: Staging, say: Say) -> None:
    async with staging(kind, max_connections=0, handshake_timeout=60) as stage:
        ledger = Ledger()
        one = await ledger.page("one").open(stage.places[0])
        at = (await one.join(ROOM))["at"]
        await ledger.say_all(stage.brokers[0], ROOM, 10)
        await ledger.reaches(ROOM, 9)
        one.cut()
        before, began = stage.reads(), time.monotonic()
        pages = await come_back(stage, ledger, at, count, 1)
        await ledger.reaches(ROOM, 9, within=60)
        took, reads = time.monotonic() - began, stage.reads() - before
        assert all(page.trails[ROOM].answers[-1]["recovered"] for page in pages)
        assert (await ledger.settles(stage.brokers[0], ROOM, within=60)) == (11 * count + 10, 0)
        assert reads <= len(stage.nodes) + 1
        say(f"{kind}: {count} came back to one room and got 10 messages each in {took:.1f} s, by {reads} reads")
        for page in pages:
            page.cut()


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *[pytest.param(kind, 300, marks=each.marks) for each in kinds() for kind in each.values],
        *[pytest.param(kind, MANY, marks=[pytest.mark.soak, pytest.mark.timeout(600)]) for kind in EVERY],
    ],
)
async def test_all_who_lost_their_node_come_back_at_once(kind: str, count: int, staging: Staging, say: Say) -> None:
    await all_are_back(kind, count, staging, say)


# --- case 11: a slow client


class Slow:
    """A client that reads nothing until it is told to."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.messages: list[dict[str, Any]] = []

    async def read(self) -> None:
        """From now on, until the end."""
        try:
            async for text in self.ws:
                self.messages.append(json.loads(text))
        except ConnectionClosed:
            return


async def slow_among_others(kind: str, kilobytes: int, rounds: int, staging: Staging, say: Say) -> None:
    options = {"slow_client": "drop", "send_queue_size": "128KiB", "socket_send_buffer": "32KiB"}
    async with staging(kind, **options) as stage:
        ledger, other = Ledger(), "chat:2"
        one = await ledger.page("one").open(stage.places[0])
        at = (await one.join(ROOM))["at"]
        await ledger.say_all(stage.brokers[0], ROOM, kilobytes, size=1000)
        await ledger.reaches(ROOM, kilobytes - 1)
        one.cut()
        fast = await ledger.page("fast").open(stage.places[-1])
        await fast.join(other)
        calm = await pace(stage, ledger, other, rounds)
        url = f"ws://127.0.0.1:{stage.places[-1].port}/ws"
        sock = socket.socket()
        # A replay of 300 KiB fits, and is over then; all that is said does not, whatever this machine's defaults are.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 400 * 1024)
        sock.connect(("127.0.0.1", stage.places[-1].port))
        async with connect(url, sock=sock, proxy=None, max_queue=1, compression=None, ping_interval=None) as ws:
            slow = Slow(ws)
            await ws.send(json.dumps({"event": "join", "id": 1, "data": {"room": ROOM, "since": at}}))
            meanwhile = await pace(stage, ledger, other, rounds)
            await ledger.say_all(stage.brokers[0], ROOM, 2 * kilobytes, size=1000)
            said = 3 * kilobytes
            # Whatever is said before a replay is over is read from the log. One of 300 KiB fits, and ends soon.
            while kilobytes <= 300 and not sum(broker.get_stats().dropped for broker in stage.brokers):
                await ledger.say_all(stage.brokers[0], ROOM, 100, size=1000)
                said += 100
            reading = asyncio.create_task(slow.read())
            await eventually(lambda: whole(slow.messages, at, said))
            dropped = [message["data"] for message in slow.messages if message["event"] == "gap"]
            assert {gap["reason"] for gap in dropped} <= {"dropped"}
            assert dropped or kilobytes > 300, "a longer replay is not over when more is said, and goes on from the log"
            for gap in dropped:  # which can be had, as it is with the engine still
                await ws.send(json.dumps({"event": "join", "id": 2, "data": {"room": ROOM, "since": gap["from"]}}))
        await asyncio.wait([reading])
        assert await ledger.settles(stage.brokers[0], other) == (2 * rounds + 1, 0)
        say(
            f"{kind}: p99 of live messages on a node {calm:.1f} ms, and {meanwhile:.1f} ms while {kilobytes} KiB are "
            f"replayed to a client that does not read; {sum(gap['missed'] for gap in dropped)} of "
            f"{said} were dropped and told"
        )
        fast.cut()


async def pace(stage: Stage, ledger: Ledger, room: str, rounds: int) -> float:
    """Say numbers, one after the other; what the slowest of a hundred took, in milliseconds."""
    took: list[float] = []
    for _ in range(rounds):
        began = time.monotonic()
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, ledger.log(room).begun - 1)
        took.append(time.monotonic() - began)
    return 1000 * sorted(took)[int(len(took) * 0.99)]


def whole(messages: list[dict[str, Any]], at: str, count: int) -> bool:
    """Whether what came and what was told as dropped is everything, in order; it must never be more."""
    number, stand = 0, at
    for message in messages:
        if message["event"] == "n":
            assert message["data"][0] == number, (message["data"][0], number)
            number, stand = number + 1, message["at"]
        elif message["event"] == "gap":
            gap = message["data"]
            assert (gap["room"], gap["from"]) == (ROOM, stand)
            number, stand = number + gap["missed"], gap["at"]
    assert number <= count
    return number == count


@pytest.mark.parametrize(
    ("kind", "kilobytes", "rounds"),
    [
        *[pytest.param(kind, 300, 20, marks=each.marks) for each in kinds() for kind in each.values],
        *[pytest.param(kind, 1000, 1000, marks=pytest.mark.soak) for kind in EVERY],
    ],
)
async def test_somebody_who_does_not_read_holds_nobody_up(
    kind: str, kilobytes: int, rounds: int, staging: Staging, say: Say
) -> None:
    await slow_among_others(kind, kilobytes, rounds, staging, say)


async def test_a_replay_larger_than_the_queue_reaches_who_reads(staging: Staging) -> None:
    async with staging("memory", send_queue_size="64KiB", socket_send_buffer="32KiB") as stage:
        ledger = Ledger()
        one = await ledger.page("one").open(stage.places[0])
        await one.join(ROOM)
        one.cut()
        await ledger.say_all(stage.brokers[0], ROOM, 600, size=1000)
        await one.open(stage.places[-1])
        await one.join(ROOM)
        await ledger.reaches(ROOM, 599, within=DEADLINE)
        assert await ledger.settles(stage.brokers[0], ROOM) == (601, 0)
        one.cut()
