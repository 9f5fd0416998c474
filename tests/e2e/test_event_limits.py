"""Limits of an event: `@broker.on("typing", rate=5, burst=10)`."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.support import Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, EventRouter


class App:
    """A broker that is told what time it is, and counts what it handles."""

    def __init__(self, **values: Any) -> None:
        self.now = 1000.0
        self.broker = Broker(settings(**values), clock=lambda: self.now)
        self.handled: list[str] = []

    def handle(self, event: str, **options: Any) -> None:
        """Register a handler that notes its event."""

        @self.broker.on(event, **options)
        async def handler() -> str:
            self.handled.append(event)
            return event


async def accepted(peer: Peer, event: str, count: int, **more: Any) -> int:
    """How many of so many messages in a row are handled."""
    outcomes = []
    for number in range(count):
        await peer.send(event, id=number, **more)
        outcomes.append((await peer.receive())["event"])
    assert set(outcomes) <= {"reply", "rate_limit_exceeded"}
    return outcomes.count("reply")


async def test_it_is_a_limit_in_place_of_the_clients(kind: ServerKind) -> None:
    app = App(rate_limit=10, rate_burst=20)
    app.handle("typing", rate=5, burst=10)
    app.handle("draw", rate=100, burst=50)
    app.handle("said")
    async with running(app.broker, kind) as address, address.connect() as peer, address.connect() as other:
        assert await accepted(peer, "typing", 15) == 10
        assert await accepted(peer, "draw", 60) == 50  # which is more than the client's limit allows
        assert await accepted(peer, "said", 25) == 20
        assert await accepted(other, "typing", 15) == 10  # each client has its own
        app.now += 1
        assert await accepted(peer, "typing", 15) == 5
        assert await accepted(peer, "said", 15) == 10
        await peer.send("typing", id="one more")
        refusal = await peer.receive()
        assert refusal["event"] == "rate_limit_exceeded"
        assert refusal["id"] == "one more"
        assert refusal["data"] == {"message": "too many messages of event 'typing'", "retry_after": 0.2}
    assert app.broker.get_stats().rate_limited == 5 + 10 + 5 + 5 + 10 + 5 + 1


async def test_it_holds_where_there_is_no_limit_of_the_client(kind: ServerKind) -> None:
    app = App(rate_limit=0)
    app.handle("typing", rate=1)
    app.handle("said")
    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "typing", 5) == 2  # twice the rate at once
        assert await accepted(peer, "said", 300) == 300


@pytest.mark.parametrize(
    "spelling",
    [
        '{"event": "typing", "id": 1}',
        '{"id": 1, "data": {"event": "said"}, "event": "typing"}',
        '{"event": "said", "event": "typing", "id": 1}',
        r'{"event": "t\u0079ping", "id": 1}',
        '  {"id":1,"event":"typing","data":"' + "x" * 100_000 + '"}',
    ],
)
async def test_no_spelling_is_another_events(kind: ServerKind, spelling: str) -> None:
    app = App()
    app.handle("typing", rate=1, burst=2)
    app.handle("said")
    async with running(app.broker, kind) as address, address.connect(compression=None) as peer:
        events = []
        for _ in range(4):
            await peer.ws.send(spelling)
            events.append((await peer.receive())["event"])
        assert events == ["reply"] * 2 + ["rate_limit_exceeded"] * 2
        assert (await peer.request("said"))["event"] == "reply"


async def test_what_is_no_message_counts_in_the_clients(kind: ServerKind) -> None:
    app = App(rate_limit=1, rate_burst=6)
    app.handle("typing", rate=1, burst=1)
    app.broker.on_binary(lambda data: None)
    wrong: list[Any] = ["", "{}", "nonsense", '{"event": "typing"', '{"event": ["typing"]}', b"binary"]
    async with running(app.broker, kind) as address, address.connect() as peer:
        for text in wrong[:5]:
            await peer.ws.send(text)
            assert (await peer.receive())["event"] == "error"
        await peer.ws.send(wrong[5])
        for text in wrong:
            await peer.ws.send(text)
            assert (await peer.expect("rate_limit_exceeded"))["message"] == "too many messages"
        assert await accepted(peer, "typing", 2) == 1


async def test_who_goes_on_is_closed_all_the_same(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 100)
    caplog.set_level(logging.WARNING, "velocity_ws")
    app = App()
    app.handle("typing", rate=5, burst=10)
    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "typing", 110) == 10
        await peer.send("typing")
        assert await peer.closed() == (1008, "too many messages")
    said = [record.getMessage() for record in caplog.records if "typing" in record.getMessage()]
    assert len(said) == 2
    assert all("rate=5, burst=10" in line for line in said)
    assert "was closed (1008)" in said[1]
    assert len(app.handled) == 10


async def test_bytes_are_limited_as_ever(kind: ServerKind) -> None:
    app = App(rate_limit=0, rate_bytes=100_000)
    app.handle("typing", rate=1000, burst=1000)
    async with running(app.broker, kind) as address, address.connect(compression=None) as peer:
        for _ in range(400):
            await peer.send("typing", "x" * 2000, id=0)
        events = [await peer.receive() for _ in range(400)]
        refused = [each for each in events if each["event"] == "rate_limit_exceeded"]
        assert 50 < len(refused) < 200
        assert {each["data"]["message"] for each in refused} == {"too many bytes"}


async def test_handlers_of_a_kind_of_rooms_have_limits_too(kind: ServerKind) -> None:
    app = App(rate_limit=10, rate_burst=20)
    rooms = app.broker.rooms("chat:{name}")

    @rooms.on("typing", rate=1, burst=3)
    async def typing(client: Client) -> str:
        app.handled.append("typing")
        return "typing"

    @rooms.on("said")
    async def said(client: Client) -> str:
        return "said"

    app.handle("typing", rate=1, burst=5)

    @app.broker.on_connect
    async def came(client: Client) -> None:
        await app.broker.join_room(client.id, "chat:a")
        await app.broker.join_room(client.id, "chat:b")
        await app.broker.join_room(client.id, "elsewhere")

    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "typing", 2, room="chat:a") == 2
        assert await accepted(peer, "typing", 3, room="chat:b") == 1  # of all rooms of the kind
        assert await accepted(peer, "typing", 3) == 3
        assert await accepted(peer, "typing", 3, room="elsewhere") == 2
        assert await accepted(peer, "said", 22, room="chat:a") == 20
        await peer.ws.send(json.dumps({"event": "said", "room": "x" * 100_000}))
        await peer.expect("rate_limit_exceeded")


async def test_a_router_brings_its_limits(kind: ServerKind) -> None:
    app = App()
    router = EventRouter()

    @router.on("typing", rate=1, burst=2)
    async def typing() -> str:
        return "typing"

    app.broker.include(router, prefix="chat.")
    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "chat.typing", 4) == 2


async def test_a_limit_that_comes_later_holds_for_those_who_are_there(kind: ServerKind) -> None:
    app = App(rate_limit=0)
    app.handle("said")
    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "said", 1) == 1
        app.handle("typing", rate=1, burst=1)
        await peer.send("said", "x" * 4096, id=0)
        await peer.receive()
        assert await accepted(peer, "typing", 3) == 1


async def test_a_concurrent_handler_may_have_one(kind: ServerKind) -> None:
    app = App()
    app.handle("ask", concurrent=True, rate=1, burst=2)
    async with running(app.broker, kind) as address, address.connect() as peer:
        assert await accepted(peer, "ask", 4) == 2
        await eventually(lambda: app.handled == ["ask", "ask"])
