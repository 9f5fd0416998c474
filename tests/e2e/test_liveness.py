"""`$ping`, by which a page finds out whether its connection lives: answered beside everything else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from tests.support import ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, Message
from velocity_ws.messages.events import PROTOCOL
from velocity_ws.sessions.inbound_limits import PINGS_AT_ONCE

SPELLINGS = [
    '{"event":"$ping"}',
    ' {\n "event" : "$ping" }\t',
    '{"event": "$ping", "data": null, "id": null}',
    '{"data": {"event": "x", "at": [1, 2]}, "event": "$ping"}',
    r'{"event": "\u0024ping"}',
    r'{"event": "$p\u0069ng"}',
    r'{"\u0065vent": "$ping"}',
    '{"event": "$ping", "at": 1}',
    '{"event": "x", "event": "$ping"}',
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_any_spelling_is_answered_while_a_handler_runs(kind: ServerKind, spelling: str) -> None:
    broker = Broker(settings())
    go = asyncio.Event()
    seen: list[Message] = []

    @broker.on_message
    async def message(client: Client, message: Message) -> None:
        seen.append(message)

    @broker.on("wait")
    async def wait() -> None:
        await go.wait()

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("wait", id=1)
        await eventually(lambda: seen)
        before = broker.get_stats()
        for _ in range(PINGS_AT_ONCE):
            await peer.ws.send(spelling)
            assert await peer.ws.recv() == '{"event":"$pong"}'
        after = broker.get_stats()
        assert (after.messages_received, after.bytes_received) == (before.messages_received, before.bytes_received)
        go.set()
        assert (await peer.receive())["id"] == 1
        await peer.ws.send('{"event": "$ping", "id": "mine"}')
        answer = await peer.receive()
        assert (answer["event"], answer["id"]) == ("$pong", "mine")
    assert [each.event for each in seen] == ["wait"]


@pytest.mark.parametrize("padding", ["", "x" * 1000])
async def test_one_with_the_number_of_a_protocol_is_told_that_of_the_server(kind: ServerKind, padding: str) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, address.connect() as peer:
        await peer.ws.send(json.dumps({"event": "$ping", "data": {"v": 1, "x": padding}}))
        assert await peer.receive() == {"event": "$pong", "data": PROTOCOL}
        await peer.send("$ping", {"v": None, "x": padding}, id=7)
        assert await peer.receive() == {"event": "$pong", "data": PROTOCOL, "id": 7}
        for data in (1, {"x": padding}, ["v"]):
            await peer.send("$ping", data)
            assert await peer.receive() == {"event": "$pong"}


async def test_it_passes_no_limit_and_takes_nothing_of_it(kind: ServerKind) -> None:
    broker = Broker(settings(rate_limit=1, rate_burst=1), clock=lambda: 1000.0)
    broker.on("x")(lambda: "x")
    async with running(broker, kind) as address, address.connect() as peer:
        for _ in range(PINGS_AT_ONCE - 1):
            await peer.ws.send('{"event":"$ping"}')
            assert await peer.receive() == {"event": "$pong"}
        assert (await peer.request("x"))["data"] == "x"
        assert (await peer.request("x"))["event"] == "rate_limit_exceeded"
        await peer.ws.send('{"event":"$ping"}')
        assert await peer.receive() == {"event": "$pong"}


async def test_more_of_them_are_messages_like_others_and_a_flood_is_closed(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 100)
    broker = Broker(settings(rate_limit=10, rate_burst=20), clock=lambda: 1000.0)
    async with running(broker, kind) as address, address.connect() as peer:
        events: Counter[Any] = Counter()
        for _ in range(PINGS_AT_ONCE + 20 + 100):
            await peer.ws.send('{"event":"$ping"}')
            events[(await peer.receive())["event"]] += 1
        assert events == {"$pong": PINGS_AT_ONCE + 20, "rate_limit_exceeded": 100}
        assert broker.get_stats().messages_received == 120
        await peer.ws.send('{"event":"$ping"}')
        assert await peer.closed() == (1008, "too many messages")
    assert broker.get_stats().invalid == 0


async def test_a_long_one_is_answered_in_its_turn(kind: ServerKind) -> None:
    broker = Broker(settings())
    seen: list[Message] = []

    @broker.on_message
    async def message(client: Client, message: Message) -> None:
        seen.append(message)

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("$ping", "x" * 1000)
        assert await peer.receive() == {"event": "$pong"}
        await peer.send("$ping", "x" * 1000, id=1)
        assert (await peer.receive())["id"] == 1
        assert broker.get_stats().messages_received == 2
    assert seen == []


@pytest.mark.parametrize("has_hook", [True, False])
async def test_other_reserved_events_are_unknown(kind: ServerKind, has_hook: bool) -> None:
    broker = Broker(settings())
    seen: list[Message] = []
    if has_hook:
        broker.on_message(lambda client, message: seen.append(message))
    async with running(broker, kind) as address, address.connect() as peer:
        for event in ("$pong", "$", "$join", "$PING", "$ping "):
            answer = await peer.request(event, id=event)
            assert answer["event"] == "error", answer
            assert answer["data"]["code"] == "UNKNOWN_EVENT"
        for text in ('{"event": "$ping"', '["$ping"]', '{"event": ["$ping"]}', '{"event": "$ping", "id": [1]}'):
            await peer.ws.send(text)
            assert (await peer.receive())["event"] == "error"
        await peer.ws.send(b'{"event": "$ping"}')
        assert (await peer.receive())["event"] == "error"
    assert seen == []


async def test_it_is_answered_while_on_connect_runs(kind: ServerKind) -> None:
    broker = Broker(settings())
    go = asyncio.Event()

    @broker.on_connect
    async def came() -> None:
        await go.wait()

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.ws.send(json.dumps({"event": "$ping"}))
        assert await peer.receive() == {"event": "$pong"}
        go.set()
