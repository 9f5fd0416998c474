"""A worker is killed, be it the one that runs the engine or another: what the rest of them, and their clients, see."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import DEADLINE, eventually
from tests.support.ledger import Ledger, Voice
from tests.support.say import Say
from tests.support.workers import (
    START,
    Member,
    an_engine,
    crowd,
    everything_has_come,
    one_of_each_node,
    owner,
    person,
    process_status,
    workers,
)
from velocity_ws import BackplaneUnavailable, Emitter

LEASE = 3.0
"""WS_NODE_LEASE, in seconds; what is done within it is done sooner than by default."""
PAUSE = 0.01
"""Seconds between two messages of a voice."""


class TalkingWorkers:
    """People on four workers; some of them, on each worker, talk to all rooms, and so does an emitter."""

    def __init__(self, port: int, people: list[Member], rooms: list[str], emitter: Emitter) -> None:
        self.port = port
        self.people = people
        self.rooms = rooms
        self.ledger = Ledger()
        self._emitter = emitter
        self._chance = random.Random(2)
        self._talking: list[asyncio.Task[None]] = []
        self._stopped = False

    @property
    def nodes(self) -> set[str]:
        """Those that people are on."""
        return {member.node for member in self.people}

    async def begin(self, voices: int) -> None:
        """Let so many talk on each worker; returns when everyone has heard from every worker."""
        for node in self.nodes:
            for member in [member for member in self.people if member.node == node][:voices]:
                voice = self.ledger.voices[member.id] = Voice(node)
                self._talking.append(asyncio.create_task(self._talk(voice, member)))
        voice = self.ledger.voices["emitter"] = Voice("")
        self._talking.append(asyncio.create_task(self._emit(voice)))
        every = {*self.nodes, ""}
        await eventually(lambda: all(self._nodes_heard(member) == every for member in self.people), within=60)

    def _nodes_heard(self, member: Member) -> set[str]:
        return {self.ledger.voices[name].node for name in member.got}

    async def _talk(self, voice: Voice, member: Member) -> None:
        while not self._stopped:
            room = self._chance.choice(self.rooms)
            voice.said.append((room, "unknown"))
            try:
                outcome = await member.request("relay", [room, [member.id, len(voice.said) - 1]])
            except (asyncio.CancelledError, ConnectionClosed):
                if not member.is_open and not self._stopped:
                    return  # it was on the worker that was killed
                raise
            voice.said[-1] = room, outcome
            await asyncio.sleep(PAUSE)

    async def _emit(self, voice: Voice) -> None:
        while not self._stopped:
            room = self._chance.choice(self.rooms)
            voice.said.append((room, "published"))
            try:
                await self._emitter.to_room(room).send("n", ["emitter", len(voice.said) - 1])
            except BackplaneUnavailable as error:
                voice.said[-1] = room, error.outcome
            await asyncio.sleep(PAUSE)

    def kill(self, pid: int) -> None:
        """Kill a worker. Its people are no longer among those here."""
        self.people = [member for member in self.people if member.pid != pid]
        os.kill(pid, signal.SIGKILL)

    async def flows(self) -> None:
        """Wait until every worker hears of every other one, and of the emitter, something said from now on."""
        marks = {name: len(voice.said) for name, voice in self.ledger.voices.items()}

        def nodes_heard(node: str) -> set[str]:
            return {node} | {
                self.ledger.voices[name].node
                for member in self.people
                if member.node == node
                for name, numbers in member.got.items()
                if numbers[-1] >= marks[name]
            }

        every = {*self.nodes, ""}
        await eventually(lambda: all(nodes_heard(node) == every for node in self.nodes), within=30)

    async def hush(self, *, were_deaf: bool) -> int:
        """End the talk, and hold what was said against what was heard; how many messages were lost."""
        self._stopped = True
        await asyncio.gather(*self._talking)
        await self._emitter.broadcast("end", "emitter")
        await everything_has_come(self.people, "emitter")
        assert all(member.is_open for member in self.people)
        stats = {member.node: await member.request("stats") for member in one_of_each_node(self.people)}
        assert all(found["healthy"] for found in stats.values())
        lost = await self.ledger.adds_up(self.people, were_deaf=were_deaf)
        for node, found in stats.items():
            told = self.ledger.of(node)
            assert told == {"published": found["backplane_sent"] - 1} | {  # its last word is not in the ledger
                outcome: count for outcome in ("refused", "unknown") if (count := found[f"backplane_{outcome}"])
            }
        return lost


@asynccontextmanager
async def scene(
    url: str, clients: int, rooms: list[str], voices: int, lease: float = LEASE
) -> AsyncIterator[TalkingWorkers]:
    async with (
        workers(4, url, WS_NODE_LEASE=f"{lease}s") as port,
        AsyncExitStack() as stack,
        Emitter(url, timeout=DEADLINE) as emitter,
    ):
        found = TalkingWorkers(port, await crowd(stack, port, clients, rooms, 4), rooms, emitter)
        await found.begin(voices)
        yield found


async def the_engines_worker_is_killed(
    path: Path, clients: int, rooms: int, voices: int, seconds: float, say: Say
) -> float:
    """Returns how many seconds it took until messages flowed everywhere again."""
    names = [f"room {number}" for number in range(rooms)]
    async with scene("embedded://test", clients, names, voices) as found:
        pid, server = owner(path)
        assert pid in {member.pid for member in found.people}
        began = time.monotonic()
        found.kill(pid)
        await eventually(lambda: process_status(server)[0] in "ZX")
        await found.flows()
        took = time.monotonic() - began
        again, other = owner(path)
        assert other != server
        assert again != pid
        await asyncio.sleep(seconds)
        await _a_newcomer_is_reached(found)
        lost = await found.hush(were_deaf=True)
        outcomes = dict(found.ledger.outcomes())
        say(
            f"the owner killed: flows again after {took:.2f} s; {outcomes}, {lost} lost on the way and counted; "
            f"{len(found.people)} of {clients} clients undisturbed"
        )
        everyone = {member.id for member in found.people if member.room == names[0]}
        async with asyncio.timeout(LEASE + DEADLINE):
            while await found.people[0].request("members", names[0]) != [sorted(everyone), []]:
                await asyncio.sleep(0.05)
        return took


async def _a_newcomer_is_reached(found: TalkingWorkers) -> None:
    """The worker that is started in place of the killed one takes part."""
    async with asyncio.timeout(START):
        while True:
            async with person(found.port, "new") as newcomer:
                if newcomer.node not in found.nodes and (await newcomer.request("stats"))["healthy"]:
                    voice = found.ledger.voices["somebody"] = Voice(found.people[0].node)
                    voice.said.append(("new", await found.people[0].request("relay", ["new", ["somebody", 0]])))
                    await eventually(lambda: newcomer.got == {"somebody": [0]})
                    return
            await asyncio.sleep(0.02)


async def test_the_worker_that_runs_the_engine_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with an_engine("embedded", tmp_path, monkeypatch):
        await the_engines_worker_is_killed(tmp_path, 24, 2, 2, 0, say)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(10))
async def test_the_worker_that_runs_the_engine_is_killed_under_load(
    turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with an_engine("embedded", tmp_path, monkeypatch):
        assert await the_engines_worker_is_killed(tmp_path, 400, 20, 4, 5, say) < 2, turn


async def a_node_is_killed(url: str, path: Path, clients: int, rooms: int, lease: float, say: Say) -> None:
    names = [f"seen {number}" for number in range(rooms)]
    async with scene(url, clients, names, 1, lease) as found:

        def presence_is_right() -> bool:
            here = [(member.room, member.user) for member in found.people]
            return all(
                member.users == {user: 1 for room, user in here if room == member.room} for member in found.people
            )

        await eventually(presence_is_right, within=30)
        runs_engine = owner(path)[0] if url.startswith("embedded") else 0
        pid = next(member.pid for member in found.people if member.pid != runs_engine)
        all_of_them = len(found.people)
        began = time.monotonic()
        found.kill(pid)
        told = asyncio.create_task(_moment(presence_is_right, lease + 5))
        for member in one_of_each_node(found.people):
            ids = sorted(other.id for other in found.people if other.room == member.room)
            while await member.request("members", member.room) != [ids, []]:
                await asyncio.sleep(0.02)
        gone = time.monotonic() - began
        left = await told - began
        assert await found.hush(were_deaf=False) == 0
        assert all(member.gaps == [] for member in found.people)
        assert all(set(found.ledger.of(node)) == {"published"} for node in found.nodes)
        say(
            f"{url.partition(':')[0]}, a node killed: its {all_of_them - len(found.people)} members gone everywhere "
            f"after {gone:.2f} s, their leave told after {left:.2f} s, with a lease of {lease:g} s; "
            f"{len(found.people)} others undisturbed, {dict(found.ledger.outcomes())}"
        )
        slack = 0 if lease > LEASE else 2.7  # a seventh of a short lease is little; twice the lease would be more
        assert gone < lease + slack
        assert left < lease + slack


async def _moment(condition: Callable[[], bool], within: float) -> float:
    """Wait for something; when it was."""
    await eventually(condition, within=within)
    return time.monotonic()


@pytest.mark.parametrize("kind", ["embedded", pytest.param("nats", marks=pytest.mark.soak), "valkey"])
async def test_a_node_is_killed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await a_node_is_killed(url, tmp_path, 16, 1, LEASE, say)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["embedded", "nats", "valkey"])
async def test_a_node_with_a_hundred_members_is_killed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await a_node_is_killed(url, tmp_path, 400, 20, 10, say)
