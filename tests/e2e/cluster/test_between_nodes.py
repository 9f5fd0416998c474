"""What nodes tell each other: handlers on every node, the same data, in order, bounded and contained; and the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio
from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from tests.support import DEADLINE, eventually, settings
from tests.support.engines import engine
from tests.support.nodes import application, engine_url, nodes, person
from tests.support.workers import an_engine
from velocity_ws import (
    BackplaneUnavailable,
    Broker,
    Client,
    Emitter,
    EncodeError,
    EventRouter,
    HookError,
    InvalidNameError,
)
from velocity_ws.broker import node_messages

Heard = list[tuple[Any, str]]


@pytest_asyncio.fixture(params=["memory", "nats", "valkey", "embedded"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """An engine of each kind."""
    kind: str = request.param
    async with engine_url(kind) if kind == "memory" else an_engine(kind, tmp_path, monkeypatch) as found:
        yield found


def listening(*places: Heard) -> Callable[[Broker], None]:
    """Prepares nodes, one after the other, each of which notes what it hears of ``tell`` in its own place."""
    left = list(places)

    def prepare(broker: Broker) -> None:
        application(broker)
        heard = left.pop(0)

        @broker.on_node("tell")
        async def tell(data: Any, node: str) -> None:
            heard.append((data, node))

    return prepare


@dataclass
class Point:
    x: int
    y: tuple[int, int]


async def test_every_node_hears_the_same_and_the_sender_too(url: str) -> None:
    here: Heard = []
    there: Heard = []
    async with nodes(url, prepare=listening(here, there)) as (a, b):
        said = {"tuple": (1, 2), "point": Point(1, (2, 3)), 4: None, "text": "ä🎈"}
        assert await a.broker.to_nodes().send("tell", said) is None  # type: ignore[func-returns-value]
        became = {"tuple": [1, 2], "point": {"x": 1, "y": [2, 3]}, "4": None, "text": "ä🎈"}
        await eventually(lambda: len(here) == len(there) == 1)
        assert here == there == [(became, a.broker.node_id)]
        assert here[0][0] is not there[0][0]
        await b.broker.to_nodes().send("tell")
        await eventually(lambda: len(here) == len(there) == 2)
        assert here[1] == there[1] == (None, b.broker.node_id)


async def test_what_one_node_sends_is_heard_in_its_order(url: str) -> None:
    here: Heard = []
    there: Heard = []
    async with nodes(url, prepare=listening(here, there), backplane_timeout=10) as (a, b):

        async def talk(broker: Broker) -> None:
            for number in range(200):
                await broker.to_nodes().send("tell", number)

        await asyncio.gather(talk(a.broker), talk(b.broker))
        await eventually(lambda: len(here) == len(there) == 400)
        for heard in (here, there):
            for broker in (a.broker, b.broker):
                assert [data for data, node in heard if node == broker.node_id] == list(range(200))


async def test_a_script_and_threads_tell_nodes_too(url: str) -> None:
    here: Heard = []
    there: Heard = []
    async with nodes(url, prepare=listening(here, there)) as (a, _), Emitter(url, timeout=DEADLINE) as emitter:
        await emitter.to_nodes().send("tell", "script")
        await asyncio.to_thread(a.broker.sync.to_nodes().send, "tell", "thread")
        await asyncio.to_thread(lambda: asyncio.run(a.broker.to_nodes().send("tell", "loop")))

        def work() -> None:
            with Emitter(url, timeout=DEADLINE) as blocking:
                blocking.to_nodes().send("tell", "blocking script")

        await asyncio.to_thread(work)
        await eventually(lambda: len(here) == len(there) == 4)
        for heard in (here, there):
            assert {data for data, _ in heard} == {"script", "thread", "loop", "blocking script"}
            assert {node for data, node in heard if data in ("thread", "loop")} == {a.broker.node_id}
        assert await a.peers() == 1


async def test_one_process_without_an_engine_hears_what_a_cluster_would() -> None:
    heard: Heard = []
    async with nodes("memory://", 1, prepare=listening(heard)) as (a,):
        data = [1, (2,)]
        await a.broker.to_nodes().send("tell", data)
        assert heard == []  # it is called by itself, as on other nodes
        await eventually(lambda: heard == [([1, [2]], a.broker.node_id)])
        assert heard[0][0] is not data
    with pytest.raises(BackplaneUnavailable, match="nobody was told") as caught:
        await a.broker.to_nodes().send("tell", data)
    assert caught.value.outcome == "refused"
    assert len(heard) == 1


async def test_data_is_validated_and_what_a_handler_raises_is_reported_for_no_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Any] = []
    errors: list[tuple[Client | None, Exception]] = []

    class Job(BaseModel):
        number: int

    broker = Broker(settings())

    @broker.on_node("job")
    def job(data: Job) -> None:
        if data.number < 0:
            raise ValueError("below zero")
        heard.append(data)

    @broker.on_error
    async def failed(client: Client | None, error: Exception) -> None:
        errors.append((client, error))

    async with broker:
        for data in ({"number": "7"}, {"number": -1}, {"number": "x"}, {"number": 8}):
            await broker.to_nodes().send("job", data)
        await eventually(lambda: len(heard) == len(errors) == 2)
        assert sorted(each.number for each in heard) == [7, 8]
        assert {client for client, _ in errors} == {None}
        assert {type(error).__name__ for _, error in errors} == {"ValueError", "InvalidDataError"}
        assert broker.get_stats().errors == 2
    assert caplog.text.count("while handling 'job' (for no client)") == 2


async def test_a_handler_has_dependencies_but_no_handshake() -> None:
    heard: list[Any] = []
    broker = Broker(settings())

    async def open_session() -> AsyncIterator[str]:
        heard.append("opened")
        yield "session"
        heard.append("closed")

    async def current_user(request: HTTPConnection) -> str:
        return request.url.path

    @broker.on_node("tell")
    async def tell(data: int, session: Annotated[str, Depends(open_session)]) -> None:
        heard.append((data, session))

    with pytest.raises(HookError, match="no node hook has"):

        @broker.on_node("other")
        async def other(data: int, user: Annotated[str, Depends(current_user)]) -> None: ...

    async with broker:
        await broker.to_nodes().send("tell", 7)
        await eventually(lambda: heard == ["opened", (7, "session"), "closed"])


async def test_a_handler_does_not_see_what_the_sender_has_set() -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
    heard: list[str] = []
    broker = Broker(settings())

    @broker.on_node("tell")
    async def tell() -> None:
        heard.append(place.get())
        place.set("a handler")

    place.set("the start")
    async with broker:
        place.set("a request")
        for _ in range(2):
            await broker.to_nodes().send("tell")
        await eventually(lambda: heard == ["the start", "the start"])


async def test_names_and_data_that_cannot_be() -> None:
    heard: Heard = []
    async with nodes("memory://", 1, prepare=listening(heard)) as (a,):
        broker = a.broker
        for name in ("", "x" * 257, None):
            with pytest.raises(InvalidNameError):
                await broker.to_nodes().send(name)  # type: ignore[arg-type]
            with pytest.raises(HookError, match="on_node"):
                broker.on_node(name)  # type: ignore[arg-type]
        with pytest.raises(HookError, match="reserved"):
            broker.on_node("$tell")
        with pytest.raises(HookError, match="handled by"):
            broker.on_node("tell")(lambda data: None)
        with pytest.raises(HookError, match="client"):

            @broker.on_node("other")
            async def other(client: Client) -> None: ...

        nested: Any = []
        for _ in range(600):
            nested = [nested]
        for data in (object, "\ud83d", nested):
            with pytest.raises(EncodeError):
                await broker.to_nodes().send("tell", data)
        await broker.to_nodes().send("a name that nobody knows", 1)
        await broker.to_nodes().send("tell", "end")
        await eventually(lambda: [data for data, _ in heard] == ["end"])
        assert broker.get_stats().errors == 0


async def test_a_router_brings_its_handlers_under_their_own_names() -> None:
    broker, router, other = Broker(settings()), EventRouter(), EventRouter()
    heard: list[int] = []

    @router.on_node("tell")
    def tell(data: int) -> None:
        heard.append(data)

    other.on_node("tell")(lambda data: None)
    broker.include(router, prefix="chat.")
    with pytest.raises(HookError, match=r"'tell' of nodes is handled by .*tell already, and .*lambda"):
        broker.include(other)
    with pytest.raises(HookError, match=r"before include\(\)"):
        router.on_node("late")(lambda data: None)
    async with broker:
        await broker.to_nodes().send("tell", 7)
        await eventually(lambda: heard == [7])


async def test_a_node_that_knows_nothing_of_it_hears_nothing_and_is_well() -> None:
    here: Heard = []
    there: Heard = []
    async with nodes("memory://older", prepare=listening(here, there)) as (a, b):
        cluster = b.broker.node.cluster
        assert cluster is not None
        del cluster._rpc._notified["told"]  # as in a version before
        await a.broker.to_nodes().send("tell", 1)
        async with person(b) as (peer, _):
            await a.broker.broadcast("end")
            await peer.expect("end")
        assert (here, there) == ([(1, a.broker.node_id)], [])
        assert b.broker.get_stats().backplane_invalid == b.broker.get_stats().errors == 0


async def test_without_the_engine_this_node_is_told_and_the_sender_hears_that_others_were_not() -> None:
    here: Heard = []
    there: Heard = []
    async with engine("nats") as server:
        async with nodes(server.url, prepare=listening(here, there), backplane_timeout=1) as (a, _):
            with pytest.raises(BackplaneUnavailable, match="the engine takes") as caught:
                await a.broker.to_nodes().send("tell", "x" * 2_000_000)
            assert caught.value.outcome == "refused"
            await eventually(lambda: len(here) == 1)
            server.freeze()

            async def talk() -> None:
                while True:  # the system may take a moment to stop it
                    await a.broker.to_nodes().send("tell")

            with pytest.raises(BackplaneUnavailable) as caught:
                await talk()
            assert caught.value.outcome in ("refused", "unknown")
            await server.kill()
            await eventually(lambda: not a.broker.healthy)
            with pytest.raises(BackplaneUnavailable) as caught:
                await a.broker.to_nodes().send("tell", 3)
            assert caught.value.outcome == "refused"
            await eventually(lambda: here[-1] == (3, a.broker.node_id))
            assert len(here) - len(there) >= 3


async def test_handlers_that_never_return_hold_up_no_other_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_messages, "MAX_RUNNING", 4)
    monkeypatch.setattr(node_messages, "MAX_WAITING", 10 * (node_messages.OVERHEAD + 100))
    go, blocked = asyncio.Event(), threading.Event()
    began: list[Any] = []
    heard: Heard = []

    def prepare(broker: Broker) -> None:
        listening(heard)(broker)

        @broker.on_node("hang")
        async def hang(data: int) -> None:
            began.append(data)
            await go.wait()

        @broker.on_node("block")
        def block() -> None:
            blocked.wait()

    try:
        async with nodes("memory://", 1, prepare=prepare) as (a,):
            for number in range(20):
                await a.broker.to_nodes().send("hang", number)
                await a.broker.to_nodes().send("block")
            await a.broker.to_nodes().send("tell", 1)
            await eventually(lambda: heard == [(1, a.broker.node_id)])
            async with person(a) as (peer, client_id):
                assert (await peer.request("whoami"))["data"] == client_id
            assert began == [0, 1, 2, 3]
            assert "was dropped: 4 calls of its on_node handler" in caplog.text
            dropped = a.broker.get_stats().errors
            assert 2 <= dropped < 20
            go.set()
            blocked.set()
            await eventually(lambda: len(began) >= 14)
            assert began == sorted(began)
            await a.broker.to_nodes().send("hang", 100)
            await eventually(lambda: began[-1] == 100)
            assert a.broker.get_stats().errors == dropped
    finally:
        blocked.set()


async def test_a_stop_waits_for_handlers_and_cancels_those_that_take_too_long() -> None:
    ended: list[str] = []
    began = asyncio.Event()
    broker = Broker(settings(drain_timeout=0.5))

    @broker.on_node("short")
    async def short(data: float) -> None:
        began.set()
        await asyncio.sleep(data)
        ended.append("short")

    @broker.on_node("long")
    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("long")

    await broker.start()
    await broker.to_nodes().send("short", 0.1)
    await began.wait()
    await broker.stop()
    assert ended == ["short"]
    await broker.start()
    await broker.to_nodes().send("long")
    before = time.monotonic()
    await broker.stop()
    assert time.monotonic() - before > 0.4
    assert ended == ["short", "long"]


async def test_a_handler_that_ignores_its_cancellation_keeps_no_broker(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()
    ended: list[bool] = []
    broker = Broker(settings(drain_timeout=0.1))

    @broker.on_node("stubborn")
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.append(True)

    await broker.start()
    await broker.to_nodes().send("stubborn")
    await broker.stop()
    assert "1 handlers that ignored their cancellation" in caplog.text
    assert not broker.is_running
    release.set()
    await eventually(lambda: ended == [True])


async def test_a_handler_may_tell_nodes_and_stop_its_broker() -> None:
    stopped = asyncio.Event()
    broker = Broker(settings(drain_timeout=60))

    @broker.on_node("first")
    async def first(data: int) -> None:
        await broker.to_nodes().send("second", data + 1)

    @broker.on_node("second")
    async def second(data: int) -> None:
        assert data == 2
        await broker.stop()
        stopped.set()

    await broker.start()
    before = time.monotonic()
    await broker.to_nodes().send("first", 1)
    async with asyncio.timeout(10):
        await stopped.wait()
    await broker.stop()
    assert time.monotonic() - before < 30
    assert broker.get_stats().errors == 0


async def test_what_clients_hooks_tell_in_the_end_is_heard(url: str) -> None:
    here: Heard = []
    there: Heard = []

    def prepare(broker: Broker) -> None:
        prepare_listening(broker)

        @broker.on_disconnect
        async def gone(client: Client) -> None:
            await broker.to_nodes().send("tell", client.id)

    prepare_listening = listening(here, there)
    async with nodes(url, prepare=prepare) as (a, b):
        async with person(a) as (peer, client_id):
            await a.broker.stop()
            await peer.closed()
        await eventually(lambda: bool(here) and bool(there))
        assert here == there
        assert [data for data, _ in here] == [client_id]
        assert b.broker.is_running
