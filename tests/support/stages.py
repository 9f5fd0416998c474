"""Nodes whose rooms have history, on an engine that can be disturbed, each with ways to the engine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import running, settings
from tests.support.dead_network import Network, network
from tests.support.nodes import Node
from tests.support.remembering import Remembering, remembering
from velocity_ws import Broker, Client, Emitter, History
from velocity_ws.backplane import Backplane, Lost, Receive, create_backplane

__all__ = ["HISTORIES", "Leak", "Stage", "Staging", "application", "staged"]

HISTORIES = {
    "chat": History(size=100_000, ttl="1h", max_bytes="1GiB"),
    "small": History(size=10),
    "tiny": History(max_bytes=1000),
    "brief": History(ttl=0.4),
    "latest": History(mode="latest"),
    "open": History(size=1000),
}
"""What rooms remember, by the first part of their names."""


class Leak:
    """A backplane that carries, but for what somebody says; the way of one node to the engine is real.

    Attributes:
        swallows: whether something that came to a topic is lost at the last step; ``None`` where nothing is.
        swallowed: how much was.
    """

    def __init__(self, inner: Backplane) -> None:
        self.swallows: Callable[[str, bytes], bool] | None = None
        self.swallowed = 0
        self._inner = inner

    @property
    def max_payload(self) -> int:
        return self._inner.max_payload

    async def connect(self, receive: Receive, lost: Lost) -> None:
        def leaking(topic: str, payload: bytes) -> None:
            if self.swallows is not None and self.swallows(topic, payload):
                self.swallowed += 1
            else:
                receive(topic, payload)

        await self._inner.connect(leaking, lost)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Stage:
    """The engine, and the nodes on it.

    Attributes:
        engine: the engine.
        nodes: the nodes.
        ways: the network between each node and the engine, where there is one.
        leaks: what each node's backplane loses.
        denied: users and rooms that ``authorize`` refuses, on every node.
        speakers: the brokers, and an emitter where the engine lets programs of others in.
    """

    def __init__(self, engine: Remembering) -> None:
        self.engine = engine
        self.nodes: list[Node] = []
        self.ways: list[Network] = []
        self.leaks: list[Leak] = []
        self.denied: set[tuple[str | None, str]] = set()
        self.speakers: list[Broker | Emitter] = []

    @property
    def places(self) -> list[Any]:
        """Where clients connect."""
        return [node.address for node in self.nodes]

    @property
    def brokers(self) -> list[Broker]:
        """What applications hold."""
        return [node.broker for node in self.nodes]

    def reads(self) -> int:
        """How often the nodes have read ranges of logs."""
        return sum(broker.get_stats().history_reads for broker in self.brokers)

    async def listens(self) -> None:
        """Wait until every node hears its engine."""
        async with asyncio.timeout(20):
            while not all(broker.healthy for broker in self.brokers):
                await asyncio.sleep(0.01)


Staging = Callable[..., AbstractAsyncContextManager[Stage]]
"""`staged` of an engine's kind, without what a test has anyway."""


def application(broker: Broker, denied: set[tuple[str | None, str]]) -> None:
    """What every node serves: rooms with history that everyone may enter but who is denied."""

    @broker.authenticate
    def authenticate(request: Any) -> str | None:
        name: str | None = request.query_params.get("user")
        return name

    for name, history in HISTORIES.items():
        rooms = broker.rooms(f"{name}:{{which}}", history=history, rewind=name == "open")

        @rooms.authorize
        def may_enter(client: Client, room: str) -> bool:
            return (client.user_id, room) not in denied

    broker.rooms("live:{which}").authorize(lambda: True)

    @broker.on_connect
    async def put_in(client: Client) -> None:
        for room in client.request.query_params.getlist("in"):
            await broker.join_room(client.id, room)

    @broker.on("whoami")
    def whoami(client: Client) -> str:
        return client.id


@asynccontextmanager
async def staged(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, *, count: int = 2, ways: bool = False, **values: Any
) -> AsyncIterator[Stage]:
    """So many nodes on an engine, or one where it is for one alone.

    Args:
        kind: of the engine.
        directory: where it may write.
        monkeypatch: of the test.
        count: of the nodes.
        ways: whether each reaches the engine by a network that can die.
        values: settings.
    """
    async with AsyncExitStack() as stack:
        stage = Stage(await stack.enter_async_context(remembering(kind, directory, monkeypatch)))

        def leaking(url: str, **options: Any) -> Leak:
            stage.leaks.append(Leak(create_backplane(url, **options)))
            return stage.leaks[-1]

        monkeypatch.setattr("velocity_ws.broker.wiring.create_backplane", leaking)
        values = {"rate_limit": 0, "backplane_timeout": 5, **values}  # of a busy machine
        for _ in range(min(count, stage.engine.nodes)):
            url = stage.engine.url
            if ways:
                assert stage.engine.port is not None
                stage.ways.append(await stack.enter_async_context(network(stage.engine.port)))
                url = f"{kind}://127.0.0.1:{stage.ways[-1].port}"
            broker = Broker(settings(backplane_url=url, **values), twin=True)
            application(broker, stage.denied)
            stage.nodes.append(Node(broker, await stack.enter_async_context(running(broker, "ours"))))
        stage.speakers.extend(stage.brokers)
        if not stage.engine.url.startswith("memory"):
            stage.speakers.append(await stack.enter_async_context(Emitter(stage.engine.url)))
        async with asyncio.timeout(20):
            for node in stage.nodes:
                while await node.peers() < len(stage.nodes) - 1:
                    await asyncio.sleep(0.01)  # no event tells
        yield stage
