"""Four worker processes behind one port: every client gets exactly its own, once, in the order of each sender."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.ledger import Ledger, Voice
from tests.support.say import Say
from tests.support.workers import Member, an_engine, crowd, everything_has_come, one_of_each_node, workers
from velocity_ws import Emitter

KINDS = ("embedded", "nats", "valkey")
AT_ONCE = 40
"""Messages on their way at once: what is more than a busy machine can carry in a second would be refused, rightly."""
EMITTED = 0.2
"""The part of the messages that comes from outside of the workers."""


async def said_by_a_client(member: Member, voice: Voice, rooms: list[str], turns: asyncio.Semaphore) -> None:
    """Have a client's worker send to rooms, one message after the other."""
    for number, room in enumerate(rooms):
        async with turns:
            voice.said.append((room, await member.request("relay", [room, [member.id, number]])))


async def said_from_outside(emitter: Emitter, voice: Voice, rooms: list[str]) -> None:
    """The same without a worker."""
    for number, room in enumerate(rooms):
        await emitter.to_room(room).send("n", ["emitter", number])
        voice.said.append((room, "published"))


async def everyone_gets_its_own(url: str, clients: int, rooms: int, messages: int, say: Say) -> None:
    chance = random.Random(1)
    names = [f"room {number}" for number in range(rooms)]
    async with workers(4, url) as port, AsyncExitStack() as stack, Emitter(url, timeout=5) as emitter:
        people = await crowd(stack, port, clients, names, 4)
        plan: dict[str, list[str]] = {member.id: [] for member in people}
        plan["emitter"] = []
        for _ in range(messages):
            sender = "emitter" if chance.random() < EMITTED else chance.choice(people).id
            plan[sender].append(chance.choice(names))
        ledger = Ledger()
        ledger.voices = {member.id: Voice(member.node) for member in people} | {"emitter": Voice("")}
        turns = asyncio.Semaphore(AT_ONCE)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for member in people:
                group.create_task(said_by_a_client(member, ledger.voices[member.id], plan[member.id], turns))
            group.create_task(said_from_outside(emitter, ledger.voices["emitter"], plan["emitter"]))
        await emitter.broadcast("end", "emitter")
        await everything_has_come(people, "emitter")
        took = time.monotonic() - began
        assert ledger.outcomes() == {"published": messages}
        ledger.is_complete(people)
        stats = [await member.request("stats") for member in one_of_each_node(people)]
        wrong = ("backplane_missed", "backplane_gaps", "backplane_refused", "backplane_unknown", "backplane_invalid")
        assert [found[name] for found in stats for name in wrong] == [0] * 4 * len(wrong)
        got = sum(len(numbers) for member in people for numbers in member.got.values())
        shares = sorted(sum(member.node == voice.node for member in people) for voice in one_of_each_node(people))
        say(
            f"{url.partition(':')[0]}: {messages} messages ({len(plan['emitter'])} of them from outside), {got} "
            f"deliveries to {len(people)} clients ({shares} on each node) in {took:.1f} s, each once and in order"
        )


@pytest.mark.parametrize("kind", ["embedded", pytest.param("nats", marks=pytest.mark.soak), "valkey"])
async def test_every_client_gets_its_own_once_and_in_order(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await everyone_gets_its_own(url, 40, 4, 500, say)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_400_clients_in_20_rooms_get_10_000_messages(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await everyone_gets_its_own(url, 400, 20, 10_000, say)
