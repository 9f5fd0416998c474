"""Link: a connection is healthy while messages to the node itself come back, and is opened again when they do not."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws.backplane.base import Leaving, Lost, Receive
from velocity_ws.backplane.memory import MemoryBackplane
from velocity_ws.cluster.envelopes import Probe, decode_body, encode_body
from velocity_ws.cluster.link import Link
from velocity_ws.cluster.publisher import Publisher
from velocity_ws.cluster.subscriptions import Subscriptions
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stats import Counters

CONNECTION = ["connecting", "connected"]
NODE, OWN = "elevenchars", "velocity.node.elevenchars"
_names = itertools.count()


class Engine(MemoryBackplane):
    """One within this process, that loses connections or messages when it is told to."""

    def __init__(self) -> None:
        super().__init__(f"memory://link-{next(_names)}")
        self.on_missed: Callable[[Collection[str]], None] = lambda _: None
        self.lost: Lost | None = None
        self.refuses: Exception | None = None
        self.swallows = False
        self.swallowed = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def connect(self, receive: Receive, lost: Lost) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.lost = lost
        await super().connect(receive, lost)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self.goes_on.wait()
        if self.swallows:
            self.swallowed += len(messages)
        else:
            await super().publish(messages)


class User:
    """What a link tells."""

    def __init__(self, engine: Engine, timeout: float) -> None:
        self.told: list[str] = []
        publisher = Publisher(engine, NODE, timeout, 10_000, Counters())
        subscriptions = Subscriptions(engine, lambda *_: None)
        subscriptions.add(OWN)
        self.link = Link(engine, publisher, subscriptions, OWN, "memory")

    def received(self, topic: str, data: bytes) -> None:
        probe = decode_body(data)
        assert topic == OWN
        assert isinstance(probe, Probe)
        self.link.probe_returned(probe.nonce)

    def connecting(self) -> None:
        self.told.append("connecting")

    async def connected(self) -> None:
        self.told.append("connected")

    def disconnected(self) -> None:
        self.told.append("disconnected")


@asynccontextmanager
async def linked(engine: Engine, patience: float = 5.0, timeout: float = DEADLINE) -> AsyncIterator[User]:
    """A link to an engine, for as long as the block; what is published has an outcome within the timeout."""
    user = User(engine, timeout)
    await user.link.start(user, user.received, patience)
    try:
        yield user
    finally:
        await user.link.stop()


async def test_a_lost_connection_is_told_and_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velocity_ws.cluster")
    engine = Engine()
    async with linked(engine) as user:
        assert user.link.is_healthy
        await eventually(lambda: user.told == CONNECTION)
        assert engine.lost is not None
        engine.lost(ConnectionError("somebody pulled the plug"))
        await eventually(lambda: user.told == [*CONNECTION, "disconnected", *CONNECTION])
        assert user.link.is_healthy
    assert user.told[-1] == "disconnected"
    assert not user.link.is_healthy
    assert [record.getMessage() for record in caplog.records] == [
        "there is no connection to the engine memory (somebody pulled the plug); trying again until it is there",
        "the engine is reached again",
    ]


async def test_an_engine_that_is_not_there_is_waited_for_and_complained_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    engine.refuses = ConnectionRefusedError("nothing listens there")
    async with linked(engine, patience=0.2) as user:
        assert not user.link.is_healthy
        engine.refuses = None
        await eventually(lambda: user.link.is_healthy)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "there is no connection to the engine memory (nothing listens there); trying again until it is there",
        "the engine is reached again",
    ]


async def test_a_connection_that_carries_nothing_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_INTERVAL", 0.02)
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_TIMEOUT", 0.2)
    engine = Engine()
    async with linked(engine) as user:
        engine.swallows = True
        await eventually(lambda: user.told[:3] == [*CONNECTION, "disconnected"])
        assert not user.link.is_healthy
        engine.swallows = False
        await eventually(lambda: user.link.is_healthy)


async def test_a_proof_that_is_lost_while_topics_move_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_INTERVAL", 0.02)
    monkeypatch.setattr("velocity_ws.cluster.link.SLICES", 100)  # of 0.1 s: one that is lost is soon sent again
    monkeypatch.setattr("velocity_ws.cluster.link.PROBE_TIMEOUT", 10.0)
    engine = Engine()
    async with linked(engine) as user:
        await eventually(lambda: user.told == CONNECTION)
        for _ in range(3):
            engine.swallowed, engine.swallows = 0, True
            await eventually(lambda: engine.swallowed)  # a proof, which does not come back
            engine.swallows = False
            await eventually(user.link._proof.is_set)
        assert user.told == CONNECTION


async def test_a_connection_that_is_lost_when_it_will_be_stopped_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    async with linked(engine) as user:
        user.link.stop_soon()
        assert engine.lost is not None
        engine.lost(ConnectionError("it ends, too"))
        await eventually(lambda: "disconnected" in user.told)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == []


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_connection_is_left_when_nothing_is_in_doubt_and_what_waits_is_for_the_next(
    caplog: pytest.LogCaptureFixture, is_there: bool
) -> None:
    engine = Engine()
    async with linked(engine) as user:
        await eventually(lambda: user.told == CONNECTION)
        engine.goes_on.clear()
        handed_over = user.link.publisher.put(OWN, encode_body(Probe(1001)))
        await eventually(lambda: handed_over.is_handed_over)
        assert engine.lost is not None
        if not is_there:
            engine.refuses = ConnectionRefusedError("nothing listens there")
        engine.lost(Leaving("its server goes"))
        waits = user.link.publisher.put(OWN, encode_body(Probe(1002)))
        assert user.link.is_healthy
        engine.goes_on.set()
        await user.link.publisher.outcome(handed_over)
        if is_there:
            await user.link.publisher.outcome(waits)
            await eventually(lambda: user.told == [*CONNECTION, "disconnected", *CONNECTION])
        else:
            with pytest.raises(BackplaneUnavailable, match="nothing listens there"):
                await user.link.publisher.outcome(waits)
            engine.refuses = None
            await eventually(lambda: user.link.is_healthy)
    assert any(record.levelno == logging.WARNING for record in caplog.records) is not is_there


async def test_a_connection_that_confirms_nothing_any_more_is_left_all_the_same() -> None:
    engine = Engine()
    async with linked(engine, timeout=1.0) as user:
        await eventually(lambda: user.told == CONNECTION)
        engine.goes_on.clear()
        handed_over = user.link.publisher.put(OWN, encode_body(Probe(1001)))
        await eventually(lambda: handed_over.is_handed_over)
        assert engine.lost is not None
        engine.lost(Leaving("its server goes"))
        with pytest.raises(BackplaneUnavailable) as caught:
            await user.link.publisher.outcome(handed_over)
        assert caught.value.outcome == "unknown"
        engine.goes_on.set()
        await eventually(lambda: user.told == [*CONNECTION, "disconnected", *CONNECTION])
