"""Several worker processes behind one port: every client gets exactly its own, also while one of them is killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.cluster.workers import Member, person, workers
from tests.engines import engine
from tests.support import eventually
from velocity_ws import Emitter

KINDS = ("embedded", "nats", "valkey")


@asynccontextmanager
async def an_engine(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A URL of that kind; the files of an embedded one are in a place of the test's own."""
    if kind == "embedded":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield "embedded://test"
        return
    async with engine(kind) as server:
        yield server.url


async def relayed(member: Member, messages: list[tuple[str, int]]) -> list[str]:
    """Have a member's worker send messages, one after the other; what became of each."""
    answers = [await member.ask("relay", [room, [member.id, number]]) for room, number in messages]
    return [await answer for answer in answers]


async def emitted(emitter: Emitter, messages: list[tuple[str, int]]) -> None:
    await asyncio.gather(*[emitter.to_room(room).send("n", ["emitter", number]) for room, number in messages])


async def everyone_gets_its_own(url: str, clients: int, rooms: int, messages: int) -> None:
    chance = random.Random(1)
    names = [f"room {number}" for number in range(rooms)]
    async with workers(4, url) as port, AsyncExitStack() as stack, Emitter(url) as emitter:
        people = [await stack.enter_async_context(person(port, names[n % rooms])) for n in range(clients)]
        assert len({member.node for member in people}) == 4
        senders = chance.sample(people, 8)
        plan: dict[str, list[tuple[str, int]]] = {name: [] for name in ["emitter", *[sender.id for sender in senders]]}
        for number in range(messages):
            plan[chance.choice(list(plan))].append((chance.choice(names), number))
        work = [relayed(sender, plan[sender.id]) for sender in senders]
        emitting = asyncio.create_task(emitted(emitter, plan["emitter"]))
        outcomes = await asyncio.gather(*work)
        await emitting
        assert {outcome for told in outcomes for outcome in told} == {"published"}
        for name in names:
            expected = {sender: [n for room, n in planned if room == name] for sender, planned in plan.items()}
            total = sum(map(len, expected.values()))
            for member in people:
                if member.room == name:
                    await eventually(lambda member=member, total=total: len(member.got) >= total, within=60)  # type: ignore[misc]
                    got: dict[str, list[int]] = {sender: [] for sender in plan}
                    for sender, number in member.got:
                        got[sender].append(number)
                    assert got == expected
                    assert member.events == []


@pytest.mark.parametrize("kind", KINDS)
async def test_every_client_gets_its_own_once_and_in_order(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await everyone_gets_its_own(url, 40, 4, 500)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_400_clients_in_20_rooms_get_10_000_messages(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        await everyone_gets_its_own(url, 400, 20, 10_000)


def owner(path: Path) -> tuple[int, int]:
    """Who runs the embedded server, and that server's process."""
    server = int(json.loads((path / "velocity-ws" / "test.json").read_text())["pid"])
    return int(Path(f"/proc/{server}/stat").read_text().split()[3]), server


async def test_the_worker_that_runs_the_engine_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_engine("embedded", tmp_path, monkeypatch) as url:
        async with workers(4, url, WS_NODE_LEASE="3s") as port, AsyncExitStack() as stack:
            people = [await stack.enter_async_context(person(port, "x")) for _ in range(24)]
            outcomes: dict[str, list[str]] = {member.id: [] for member in people}
            stopped = asyncio.Event()

            async def talk(member: Member) -> None:
                told = outcomes[member.id]
                while not stopped.is_set():
                    try:
                        told.append(await member.request("relay", ["x", [member.id, len(told)]]))
                    except (asyncio.CancelledError, ConnectionClosed):
                        return  # it was on the worker that was killed
                    await asyncio.sleep(0.01)

            talking = [asyncio.create_task(talk(member)) for member in people]
            await eventually(lambda: all(len(told) > 10 for told in outcomes.values()))
            process, server = owner(tmp_path)
            os.kill(process, signal.SIGKILL)
            await eventually(lambda: any(member.ws.state.name != "OPEN" for member in people))
            await eventually(lambda: not Path(f"/proc/{server}").exists() or _is_dead(server), within=2)
            await eventually(lambda: owner(tmp_path)[1] != server, within=3)
            survivors = [member for member in people if member.ws.state.name == "OPEN"]
            nodes = {member.node for member in people}
            assert len({member.node for member in survivors}) == len(nodes) - 1 > 1
            marks = {member.id: len(outcomes[member.id]) for member in survivors}
            # Each hears each again, from a message on that was sent after this moment.
            await eventually(lambda: all(_heard_all_since(member, marks) for member in survivors), within=5)
            stopped.set()
            await asyncio.gather(*talking)
            await asyncio.sleep(0)
            for member in survivors:
                assert member.ws.state.name == "OPEN"
                for other in survivors:
                    await eventually(lambda m=member, o=other: _last(m, o.id) == _last_published(outcomes[o.id]))  # type: ignore[misc]
                    numbers = [number for sender, number in member.got if sender == other.id]
                    assert numbers == sorted(set(numbers))
                    for number in set(range(len(outcomes[other.id]))) - set(numbers):
                        told = outcomes[other.id][number]
                        assert told in ("refused", "unknown") or any(event == "gap" for event, _ in member.events)
            stats = [await member.request("stats") for member in _one_of_each_node(survivors)]
            assert all(found["healthy"] for found in stats)
            async with asyncio.timeout(6):
                while set(await survivors[0].request("members", "x")) != {member.id for member in survivors}:
                    await asyncio.sleep(0.05)


def _is_dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def _one_of_each_node(members: list[Member]) -> list[Member]:
    return list({member.node: member for member in members}.values())


def _last(member: Member, sender: str) -> int:
    return max((number for who, number in member.got if who == sender), default=-1)


def _last_published(outcomes: list[str]) -> int:
    return max(number for number, outcome in enumerate(outcomes) if outcome == "published")


def _heard_all_since(member: Member, marks: dict[str, int]) -> bool:
    newest = dict(member.got)  # pairs; the last of each sender counts
    return all(newest.get(sender, -1) > mark for sender, mark in marks.items())


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_a_node_is_killed(kind: str) -> None:
    async with engine(kind) as server, AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(workers(1, server.url, WS_NODE_LEASE="3s")) for _ in range(2)]
        ann = await stack.enter_async_context(person(ports[0], "seen", "ann"))
        bob = await stack.enter_async_context(person(ports[1], "seen", "bob"))
        await eventually(lambda: _users(ann) == {"ann": 1, "bob": 1})
        pid = await _pid(ports[1])
        began = asyncio.get_running_loop().time()
        os.kill(pid, signal.SIGKILL)
        await bob.ws.wait_closed()
        assert (await ann.request("relay", ["seen", ["ann", 1]])) == "published"
        await eventually(lambda: _users(ann) == {"ann": 1}, within=5)
        assert asyncio.get_running_loop().time() - began < 3.5
        assert await ann.request("members", "seen") == [ann.id]
        assert ann.got == [["ann", 1]]


def _users(member: Member) -> dict[str, int]:
    users: dict[str, int] = {}
    for event, data in member.events:
        if event == "presence":
            users = dict(data["users"]) if data["full"] else {**users, **data["users"]}
    return {user: count for user, count in users.items() if count}


async def freeze(pid: int, sender: Member, count: int, seconds: float) -> None:
    """Freeze a node while so many KB are published to a room that it has a member in."""
    os.kill(pid, signal.SIGSTOP)
    try:
        began = asyncio.get_running_loop().time()
        taken = await sender.request("flood", ["x", count, 1000])
        await asyncio.sleep(max(0.0, began + seconds - asyncio.get_running_loop().time()))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert taken == count


async def _pid(port: int) -> int:
    process = await asyncio.create_subprocess_exec(
        "pgrep", "-f", f"cluster_app:app --workers 1 --port {port}", stdout=asyncio.subprocess.PIPE
    )
    return int((await process.communicate())[0].split()[0])


async def frozen_subscriber(kind: str, trials: int, count: int, seconds: float) -> None:
    async with engine(kind) as server, AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(workers(1, server.url, WS_SEND_QUEUE_SIZE="100MiB")) for _ in range(2)]
        sender = await stack.enter_async_context(person(ports[0], "elsewhere"))
        listener = await stack.enter_async_context(person(ports[1], "x"))
        pid = await _pid(ports[1])
        for _ in range(trials):
            listener.events.clear()
            await freeze(pid, sender, count, seconds)
            await sender.request("relay", ["elsewhere", 0])

            def is_told() -> bool:
                gaps = [data for event, data in listener.events if event == "gap" and data["room"] == "x"]
                floods = sum(event == "flood" for event, _ in listener.events)
                return floods == count or (bool(gaps) and floods + gaps[0]["missed"] == count)

            await eventually(is_told, within=20)
            if kind != "nats":
                assert any(event == "gap" for event, _ in listener.events)


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_a_subscriber_that_is_frozen_learns_what_it_missed(kind: str) -> None:
    await frozen_subscriber(kind, 1, 40_000, 0)


@pytest.mark.soak
async def test_a_gap_is_seen_each_of_100_times() -> None:
    await frozen_subscriber("valkey", 100, 60_000, 5)
