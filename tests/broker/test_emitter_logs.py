"""EmitterLogs: what nodes have said of their rooms: learned in time, again after a while, or not said at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.holding import HeldHistory
from velocity_ws import Emitter
from velocity_ws.broker import emitter_logs
from velocity_ws.broker.emitter_logs import EmitterLogs
from velocity_ws.broker.room_logs import describe
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable, SettingsError
from velocity_ws.history import memory
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.retention import History

TOPICS = Topics("v")


class Store(HeldHistory):
    """An engine whose answers about kinds can be held, and that may keep no logs."""

    keeps = True

    async def connect(self, lost: object) -> None:
        if not self.keeps:
            raise SettingsError({"WS_BACKPLANE_URL": "it keeps no logs"})
        await super().connect(lost)  # type: ignore[arg-type]

    async def kept(self, name: str) -> bytes | None:
        await self._pass("kept")
        return await super().kept(name)


@asynccontextmanager
async def emitting(monkeypatch: pytest.MonkeyPatch, store: Store) -> AsyncIterator[EmitterLogs]:
    monkeypatch.setattr(emitter_logs, "create_history", lambda _url, is_node: store)
    logs = EmitterLogs("memory://x", TOPICS, "a" * 11, timeout=5.0, queue_size=10**6, engine="memory://x")
    try:
        yield logs
    finally:
        await logs.stop()


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def described(*names: str) -> bytes:
    kinds = Kinds()
    for name in names:
        kinds.register(f"{name}:{{x}}", history=History())
    return describe(kinds)


async def test_what_nodes_say_is_learned_once_for_all_and_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    async with emitting(monkeypatch, store) as logs:
        await logs.learn(soon())
        assert logs("chat:7") is None
        await store.keep(TOPICS.kinds, described("chat"))
        await logs.learn(soon())
        assert (logs("chat:7"), store.calls["kept"]) == (None, 1)
        monkeypatch.setattr(emitter_logs, "FRESH", 0.0)
        await logs.learn(soon())
        assert logs("chat:7") is not None
        monkeypatch.setattr(emitter_logs, "FRESH", 10.0)
        logs._asked_at = None
        await asyncio.gather(*[logs.learn(soon()) for _ in range(50)])
        assert store.calls["kept"] == 3
        await store.keep(TOPICS.kinds, b"\xc1")
        logs._asked_at = None
        await logs.learn(soon())
        assert logs("chat:7") is None


async def test_who_sends_together_waits_together_for_an_engine_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    async with emitting(monkeypatch, store) as logs:
        await logs.learn(soon())
        logs._asked_at = None
        store.hold("kept")
        begin = asyncio.get_running_loop().time()
        results = await asyncio.gather(*[logs.learn(soon(0.1)) for _ in range(20)], return_exceptions=True)
        assert [type(result) for result in results] == [BackplaneUnavailable] * 20
        assert asyncio.get_running_loop().time() - begin < 1.5  # and not 20 times 0.1 s
        store.let_go("kept")
        await logs.learn(soon())


async def test_where_the_engine_keeps_no_logs_no_room_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.keeps = False
    async with emitting(monkeypatch, store) as logs:
        await logs.learn(soon())
        await logs.learn(soon())
        assert logs("chat:7") is None


async def test_an_engine_that_is_not_there_is_not_waited_for_any_longer_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    store.hold("connect")
    async with emitting(monkeypatch, store) as logs:
        begin = asyncio.get_running_loop().time()
        with pytest.raises(BackplaneUnavailable, match="in time"):
            await logs.learn(soon(0.05))
        assert asyncio.get_running_loop().time() - begin < 2.0
        store.let_go("connect")


def test_an_emitter_whose_loops_were_closed_under_it_gives_its_engine_back() -> None:
    emitter = Emitter("memory://closed-loops")

    async def send() -> None:
        await emitter.to_room("chat:7").send("said", 1)

    for _ in range(3):
        asyncio.run(send())  # which ends its loop, with the emitter's tasks
    assert memory._engines["closed-loops"].users == 1

    async def stop() -> None:
        await emitter.start()
        await emitter.stop()

    asyncio.run(stop())
    assert "closed-loops" not in memory._engines
