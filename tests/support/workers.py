"""Workers of the command ``velocity-ws run``, and clients of theirs that check what they get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support import eventually
from tests.support.command import kept_port
from tests.support.engines import engine

ROOT = Path(__file__).parents[2]
START = 60.0
"""Seconds that workers may take to start, on a machine that does other things."""


@asynccontextmanager
async def an_engine(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A URL of that kind; the files of an embedded one are in a place of the test's own."""
    if kind == "embedded":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield "embedded://test"
        return
    async with engine(kind) as server:
        yield server.url


@asynccontextmanager
async def workers(count: int, url: str, **environment: str) -> AsyncIterator[int]:
    """So many workers behind one port, which this is; each of them hears the others."""
    port = kept_port()
    command = ["-m", "velocity_ws", "run", "tests.programs.cluster_app:app", "--workers", str(count)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--port", str(port), "--log-level", "warning",
        cwd=ROOT,
        env={
            **os.environ, "WS_BACKPLANE_URL": url, "WS_RATE_LIMIT": "0",
            "WS_BACKPLANE_TIMEOUT": "5s",  # of a busy machine
            **environment,
        },
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START):
            healthy: set[str] = set()
            while len(healthy) < count:
                try:
                    async with AsyncExitStack() as stack:
                        for _ in range(4 * count):
                            member = await stack.enter_async_context(person(port, "anyone"))
                            if (await member.request("stats"))["healthy"]:
                                healthy.add(member.node)
                except (OSError, ConnectionClosed, InvalidHandshake):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)  # it does not listen yet
        yield port
        if process.returncode == -signal.SIGKILL:  # by the test
            return
        assert process.returncode is None
        process.terminate()
        async with asyncio.timeout(START):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Member:
    """A client in a room. Keeps what it gets, but for answers, which go to who asked.

    Attributes:
        id: the client's.
        user: the id of its user, empty for none.
        node: the node it is on.
        pid: that node's process.
        got: numbers by sender, in the order they came.
        late: seconds each took that carries the time it was sent.
        gaps: what it was told it may have missed.
        ends: the nodes that have nothing more to say.
        users: who is in its room, as presence tells.
        floods: how many long messages came.
        left: the rooms that it was put out of, with the reasons.
    """

    def __init__(self, ws: ClientConnection, room: str, user: str) -> None:
        self.ws = ws
        self.room = room
        self.user = user
        self.id = self.node = ""
        self.pid = 0
        self.got: dict[str, list[int]] = {}
        self.late: dict[str, list[float]] = {}
        self.gaps: list[dict[str, Any]] = []
        self.ends: set[str] = set()
        self.users: dict[str, int] = {}
        self.floods = 0
        self.left: list[dict[str, Any]] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self.ws.state.name == "OPEN"

    async def read(self) -> None:
        """Until the connection is over."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self.ws:
                message = json.loads(text)
                if "id" in message:
                    answer = self._answers.pop(message["id"])
                    if answer.done():
                        continue  # the caller has stopped waiting
                    if message["event"] == "reply":
                        answer.set_result(message["data"])
                    else:
                        answer.set_exception(AssertionError(message))
                else:
                    self._take(message["event"], message["data"])
        for future in self._answers.values():
            future.cancel()

    def _take(self, event: str, data: Any) -> None:
        if event == "n":
            sender, number, *sent = data
            self.got.setdefault(sender, []).append(number)
            if sent:
                self.late.setdefault(sender, []).append(time.monotonic() - sent[0])
        elif event == "gap":
            self.gaps.append(data)
        elif event == "end":
            self.ends.add(data)
        elif event == "left":
            self.left.append(data)
        elif event == "presence":
            users = data["users"] if data["full"] else {**self.users, **data["users"]}
            self.users = {user: count for user, count in users.items() if count}
        else:
            assert event == "flood", event
            self.floods += 1

    async def request(self, event: str, data: Any = None, within: float = 30.0) -> Any:
        """Send a request, and wait for its answer. Cancelled where the connection ends before."""
        self._asked += 1
        future = self._answers[self._asked] = asyncio.get_running_loop().create_future()
        await self.ws.send(json.dumps({"event": event, "data": data, "id": self._asked}))
        async with asyncio.timeout(within):
            return await future


@asynccontextmanager
async def person(port: int, room: str, user: str = "") -> AsyncIterator[Member]:
    """Somebody in a room, on whichever worker took the connection."""
    path = f"/ws?user={user}" if user else "/ws"
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=20, max_queue=None) as ws:
        member = Member(ws, room, user)
        reading = asyncio.create_task(member.read())
        try:
            member.id, member.node, member.pid = await member.request("join", room)
            yield member
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def crowd(stack: AsyncExitStack, port: int, count: int, rooms: Sequence[str], nodes: int) -> list[Member]:
    """So many people, spread over rooms; more where a node has none of them yet. Each is its own user."""
    people: list[Member] = []
    async with asyncio.timeout(START + count / 10):
        while len(people) < count or len({member.node for member in people}) < nodes:
            room, user = rooms[len(people) % len(rooms)], f"user{len(people)}"
            people.append(await stack.enter_async_context(person(port, room, user)))
    return people


def one_of_each_node(people: Sequence[Member]) -> list[Member]:
    """Somebody on each node that people are on."""
    return list({member.node: member for member in people}.values())


async def everything_has_come(people: Sequence[Member], *others: str) -> None:
    """Have every node that they are on say its last word, and wait until all of them have heard all of these."""
    voices = one_of_each_node(people)
    for voice in voices:
        await voice.request("end")
    last = {*others, *[voice.node for voice in voices]}
    await eventually(lambda: all(member.ends >= last for member in people), within=60)


def owner(path: Path) -> tuple[int, int]:
    """Who runs the embedded server, and that server's process."""
    server = int(json.loads((path / "velocity-ws" / "test.json").read_text())["pid"])
    return int(process_status(server)[1]), server


def process_status(pid: int) -> list[str]:
    """State and parent of a process, which is dead where nothing is known of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["Z", "0"]
