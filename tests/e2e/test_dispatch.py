"""Messages from clients: validated, limited, handled one at a time, answered."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from tests.support import DEADLINE, Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, ClientError, Message


class Chat(BaseModel):
    room: str = Field(max_length=10)
    text: str = "…"


@dataclass
class Move:
    x: int
    y: int


class Filter(TypedDict):
    topic: str


async def error(peer: Peer) -> dict[str, Any]:
    """The next message, which is an error; all of it."""
    message: dict[str, Any] = await peer.receive()
    assert message["event"] == "error", message
    assert message["data"]["code"].isupper()
    assert message["data"]["message"]
    return message


# --- the envelope


@pytest.mark.parametrize(
    ("text", "code", "request_id"),
    [
        ("", "INVALID_JSON", None),
        ("hello", "INVALID_JSON", None),
        ('{"event": "x", "data": NaN}', "INVALID_JSON", None),
        ('{"event": "x"', "INVALID_JSON", None),
        ("[1, 2", "INVALID_JSON", None),
        ("[" * 100_000, "INVALID_JSON", None),
        ('{"event": "ok", "data": "\\ud83d", "id": 7}', "INVALID_JSON", 7),
        ('{"id": "seven", "event": "ok", "data": NaN}', "INVALID_JSON", "seven"),
        ('{"event": "ok", "data": ' + "[" * 600 + "]" * 600 + ', "id": 7}', "INVALID_JSON", 7),
        ('{"event": "ok", "data": {"id": 7, "x": "\\ud83d"}}', "INVALID_JSON", None),
        ("[1, 2]", "INVALID_EVENT", None),
        ("null", "INVALID_EVENT", None),
        ("{}", "INVALID_EVENT", None),
        ('{"event": "", "id": 7}', "INVALID_EVENT", 7),
        ('{"event": 5, "id": "seven"}', "INVALID_EVENT", "seven"),
        (json.dumps({"event": "x" * 257}), "INVALID_EVENT", None),
        ('{"event": "x", "id": [1]}', "INVALID_EVENT", None),
        ('{"event": "nobody handles it"}', "UNKNOWN_EVENT", None),
        ('{"event": "nobody handles it", "id": 3}', "UNKNOWN_EVENT", 3),
    ],
)
async def test_bad_messages_are_the_clients_error(
    text: str, code: str, request_id: int | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings())
    errors: list[BaseException] = []
    broker.on_error(lambda client, error: errors.append(error))

    @broker.on("ok")
    async def ok() -> str:
        return "still here"

    async with running(broker) as address, address.connect() as peer:
        await peer.ws.send(text)
        answer = await error(peer)
        assert answer["data"]["code"] == code
        assert answer.get("id") == request_id
        assert (await peer.request("ok"))["data"] == "still here"
        assert broker.get_stats().invalid == 1
    assert errors == []
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_longest_event_name_and_every_form_of_id(kind: ServerKind) -> None:
    broker = Broker(settings())
    name = "é" * 256

    @broker.on(name)
    async def handle(data: Any, message: Message) -> list[Any]:
        return [message.event == name, message.data, data]

    async with running(broker, kind) as address, address.connect() as peer:
        for request_id in (0, -1, 2**80, "", "Ω", "x" * 300):
            answer = await peer.request(name, {"a": 1}, id=request_id)
            assert answer["data"] == [True, {"a": 1}, {"a": 1}]
        await peer.ws.send(json.dumps({"event": name, "id": None, "more": 1}))
        await peer.ws.send(json.dumps({"event": name, "id": 9}))
        assert (await peer.receive())["id"] == 9  # a null id asks for no answer


# --- handlers


async def test_annotations_validate(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("model")
    async def model(client: Client, data: Chat) -> str:
        return f"{type(data).__name__} {data.text}"

    @broker.on("dataclass")
    async def dataclass_(data: Move) -> int:
        return data.x + data.y

    @broker.on("typeddict")
    async def typeddict(data: Filter) -> str:
        return data["topic"]

    @broker.on("builtin")
    def builtin(data: list[int]) -> int:
        return sum(data)

    @broker.on("union")
    async def union(data: Chat | Literal["all"] | None) -> str:
        return type(data).__name__

    @broker.on("any")
    async def anything(data: Any) -> Any:
        return data

    good = [
        ("model", {"room": "a"}, "Chat …"),
        ("dataclass", {"x": 1, "y": 2}, 3),
        ("typeddict", {"topic": "news"}, "news"),
        ("builtin", [1, 2, 3], 6),
        ("union", {"room": "a"}, "Chat"),
        ("union", "all", "str"),
        ("union", None, "NoneType"),
        ("any", {"x": [1, {"y": None}]}, {"x": [1, {"y": None}]}),
    ]
    bad: list[tuple[str, Any, list[Any]]] = [
        ("model", {"room": "too long to be one"}, ["room"]),
        ("model", "text", []),
        ("dataclass", {"x": 1}, ["y"]),
        ("typeddict", {}, ["topic"]),
        ("builtin", [1, "two"], [1]),
        ("union", "some", ["Chat"]),
    ]
    async with running(broker, kind) as address, address.connect() as peer:
        for event, data, result in good:
            assert await peer.request(event, data, id=1) == {"event": "reply", "id": 1, "data": result}
        for event, data, where in bad:
            await peer.send(event, data, id="b")
            answer = await error(peer)
            assert answer["id"] == "b"
            assert answer["data"]["code"] == "INVALID_DATA"
            details = answer["data"]["details"]
            assert details[0]["loc"][: len(where)] == where
            assert details[0]["msg"]
        await peer.send("model", {})
        assert "id" not in await error(peer)


async def test_a_validation_error_inside_a_handler_is_the_servers(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def x(data: Any) -> None:
        TypeAdapter(int).validate_python("five")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("x", id=1)
        assert (await error(peer))["data"]["code"] == "INTERNAL_ERROR"


async def test_on_message_runs_first_and_may_guard(kind: ServerKind) -> None:
    broker = Broker(settings())
    order: list[str] = []

    @broker.on_message
    async def first(client: Client, message: Message) -> None:
        order.append(f"first {message.event} {message.data} {message.id}")

    @broker.on_message
    def guard(client: Client, message: Message) -> None:
        if message.data == "secret":
            raise ClientError("UNAUTHORIZED", "log in first", hint="auth", code="not this")

    @broker.on("x")
    async def x(data: str) -> str:
        order.append("handler")
        return data.upper()

    async with running(broker, kind) as address, address.connect() as peer:
        assert (await peer.request("x", "open"))["data"] == "OPEN"
        await peer.send("x", "secret", id=5)
        assert await error(peer) == {
            "event": "error",
            "id": 5,
            "data": {"code": "UNAUTHORIZED", "message": "log in first", "hint": "auth"},
        }
        await peer.send("x", "secret")
        assert "id" not in await error(peer)
        # With on_message hooks there is no unknown event, and a request is answered all the same.
        assert await peer.request("y", id=6) == {"event": "reply", "id": 6, "data": None}
    assert order[:3] == ["first x open 1", "handler", "first x secret 5"]
    assert order.count("handler") == 1
    assert broker.get_stats().errors == 0


async def test_requests_are_always_answered(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("none")
    async def none() -> None:
        return None

    @broker.on("fails")
    async def fails() -> None:
        raise ValueError("the password is hunter2")

    @broker.on("fails in a thread")
    def fails_in_thread() -> None:
        raise StopIteration

    @broker.on("exits")
    async def exits() -> None:
        raise SystemExit(3)

    @broker.on("cancels")
    async def cancels() -> None:
        raise asyncio.CancelledError

    @broker.on("unencodable")
    async def unencodable() -> object:
        return object()

    @broker.on("unencodable details")
    async def unencodable_details() -> object:
        raise ClientError("NO", "no", what=object())

    async with running(broker, kind) as address, address.connect() as peer:
        assert await peer.request("none") == {"event": "reply", "id": 1, "data": None}
        for event in ("fails", "fails in a thread", "exits", "cancels", "unencodable details"):
            for more in ({"id": event}, {}):
                await peer.send(event, **more)
                answer = await error(peer)
                assert answer["data"]["code"] == "INTERNAL_ERROR"
                assert answer.get("id") == more.get("id")
                assert "hunter2" not in json.dumps(answer)
        await peer.send("unencodable")  # nobody asked for its result
        await peer.send("unencodable", id=1)
        assert (await error(peer))["data"]["code"] == "INTERNAL_ERROR"
        assert broker.get_stats().errors == 11
        assert (await peer.request("none"))["data"] is None


async def test_errors_are_reported_once_and_contained(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())
    seen: list[tuple[Client, BaseException]] = []

    @broker.on_error
    async def broken(client: Client, error: BaseException) -> None:
        raise RuntimeError("on_error is broken too")

    @broker.on_error
    def working(client: Client, error: BaseException) -> None:
        seen.append((client, error))

    @broker.on("x")
    async def x() -> None:
        raise KeyError("k")

    @broker.on_disconnect
    async def gone(client: Client) -> None:
        raise LookupError("gone")

    @broker.on_disconnect
    async def gone_too(client: Client) -> None:
        raise LookupError("gone too")

    async with running(broker, kind) as address, address.connect() as peer:
        client = broker.get_clients()[0] if broker.get_clients() else None
        await peer.send("x")
        await error(peer)
        client = broker.get_clients()[0]
        await peer.ws.close()
        await eventually(lambda: len(seen) == 3)
    assert [type(failure) for _, failure in seen] == [KeyError, LookupError, LookupError]
    assert {one for one, _ in seen} == {client}
    records = [record for record in caplog.records if record.exc_info]
    assert len(records) == 6  # each once, and on_error's own
    assert broker.get_stats().errors == 6
    assert {record.__dict__["client_id"] for record in records} == {client.id}


async def test_binary_messages(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on_binary
    async def echo(client: Client, data: bytes) -> None:
        await client.send_bytes(data[::-1])

    @broker.on_binary
    def picky(data: bytes) -> None:
        if data == b"no":
            raise ClientError("NO", "not that")
        if data == b"boom":
            raise RuntimeError

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.ws.send(b"abc\x00\xff")
        assert await peer.receive() == b"\xff\x00cba"
        await peer.ws.send(b"")
        assert await peer.receive() == b""
        for data, code in ((b"no", "NO"), (b"boom", "INTERNAL_ERROR")):
            await peer.ws.send(data)
            assert await peer.receive() == data[::-1]
            assert (await error(peer))["data"]["code"] == code


async def test_binary_messages_nobody_handles(kind: ServerKind) -> None:
    async with running(Broker(settings()), kind) as address, address.connect() as peer:
        await peer.ws.send(b"abc")
        assert (await error(peer))["data"]["code"] == "UNKNOWN_EVENT"


# --- one at a time, and others never wait


async def test_one_at_a_time_for_each_client_in_order(kind: ServerKind) -> None:
    broker = Broker(settings())
    busy: set[str] = set()
    go = asyncio.Event()
    order: list[int] = []

    @broker.on("async")
    async def async_(client: Client, data: int) -> None:
        assert client.id not in busy
        busy.add(client.id)
        await go.wait()
        await asyncio.sleep(0)
        busy.remove(client.id)
        order.append(data)

    @broker.on("plain")
    def plain(client: Client, data: int) -> None:
        assert client.id not in busy
        busy.add(client.id)
        threading.Event().wait(0.001)
        busy.remove(client.id)
        order.append(data)

    @broker.on("quick")
    async def quick() -> str:
        return "at once"

    async with running(broker, kind) as address, address.connect() as slow, address.connect() as other:
        for number in range(0, 20, 2):
            await slow.send("async", number)
            await slow.send("plain", number + 1)
        await eventually(lambda: busy)
        assert (await other.request("quick"))["data"] == "at once"
        assert order == []
        go.set()
        await eventually(lambda: len(order) == 20)
    assert order == list(range(20))


async def test_a_blocking_handler_hurts_nobody_else(kind: ServerKind) -> None:
    broker = Broker(settings())
    release = threading.Event()

    @broker.on("block")
    def block() -> None:
        release.wait(DEADLINE)

    @broker.on("plain")
    def plain() -> str:
        return "free"

    async with running(broker, kind) as address:
        async with address.connect() as blocked, address.connect() as other:
            await blocked.send("block", id=1)
            assert (await other.request("plain"))["data"] == "free"
            async with asyncio.timeout(DEADLINE):
                await (await blocked.ws.ping())  # answered while the handler is busy
            release.set()
            assert (await blocked.receive())["id"] == 1


# --- the rate limit


async def test_rate_limit(kind: ServerKind) -> None:
    now = [1000.0]
    broker = Broker(settings(rate_limit=10, rate_burst=3), clock=lambda: now[0])
    handled: list[Any] = []

    @broker.on("x")
    async def x(data: Any) -> Any:
        handled.append(data)
        return data

    @broker.on_binary
    async def binary(data: bytes) -> None:
        handled.append(data)

    async with running(broker, kind) as address, address.connect() as peer, address.connect() as other:
        for number in range(3):
            await peer.request("x", number)
        await peer.send("x", 3, id="three")
        refusal = await peer.receive()
        assert refusal["event"] == "rate_limit_exceeded"
        assert refusal["id"] == "three"
        assert refusal["data"]["retry_after"] == pytest.approx(0.1)
        assert refusal["data"]["message"]
        await peer.send("x", 4)
        assert "id" not in await peer.receive()
        await peer.ws.send('{"event": "x", "data": "\\ud83d", "id": "half"}')
        assert (await peer.receive())["id"] == "half"
        for raw in ("not json", b"binary"):
            await peer.ws.send(raw)
            assert (await peer.receive())["event"] == "rate_limit_exceeded"
        assert (await other.request("x", "other"))["data"] == "other"
        now[0] += 0.1
        assert (await peer.request("x", 5))["data"] == 5
        await peer.send("x", 6)
        assert (await peer.receive())["event"] == "rate_limit_exceeded"
    assert handled == [0, 1, 2, "other", 5]
    assert broker.get_stats().rate_limited == 6


async def test_rate_limit_in_bytes(kind: ServerKind) -> None:
    now = [1000.0]
    broker = Broker(settings(rate_limit=0, rate_bytes=100_000), clock=lambda: now[0])

    @broker.on("x")
    async def x(data: str) -> int:
        return len(data)

    broker.on_binary(lambda data: None)
    text = "x" * 99_000
    async with running(broker, kind) as address, address.connect() as peer, address.connect() as other:
        for _ in range(5):  # four seconds' worth, and never less than the longest message
            assert (await peer.request("x", text))["data"] == len(text)
        refusal = await peer.request("x", text, id="six")
        assert refusal["event"] == "rate_limit_exceeded"
        assert refusal["data"]["message"] == "too many bytes"
        assert 0 < refusal["data"]["retry_after"] < 1
        await peer.ws.send(b"x" * 99_000)
        assert (await peer.receive())["event"] == "rate_limit_exceeded"
        assert (await peer.request("x", "small"))["data"] == 5
        assert (await other.request("x", text))["data"] == len(text)
        now[0] += refusal["data"]["retry_after"] + 0.1
        assert (await peer.request("x", text))["data"] == len(text)
        for _ in range(200):  # small ones count too
            await peer.send("x", "x" * 1000, id=0)
        events = [(await peer.receive())["event"] for _ in range(200)]
        assert 150 < events.count("rate_limit_exceeded") < 200
    assert broker.get_stats().rate_limited == 2 + events.count("rate_limit_exceeded")


@pytest.mark.parametrize(("size", "refused"), [(1, 100), (40_000, 10)])
async def test_who_goes_on_over_the_limit_is_closed_the_sooner_the_larger_its_messages_are(
    size: int, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 100)
    broker = Broker(settings(rate_limit=1, rate_burst=1), clock=lambda: 1000.0)
    broker.on("x")(lambda: None)
    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.request("x")
        for _ in range(refused):
            await peer.send("x", "x" * size)
            await peer.expect("rate_limit_exceeded")
        await peer.send("x", "x" * size)
        assert await peer.closed() == (1008, "too many messages")


async def test_who_is_over_the_limit_now_and_then_is_told_and_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS", 10)
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 10)
    now = [1000.0]
    broker = Broker(settings(rate_limit=0.001, rate_burst=1), clock=lambda: now[0])
    broker.on("x")(lambda: None)
    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.request("x")
        for _ in range(5):
            for _ in range(10):
                await peer.send("x")
                await peer.expect("rate_limit_exceeded")
            now[0] += 1
        for _ in range(10):
            await peer.send("x")
            await peer.expect("rate_limit_exceeded")
        await peer.send("x")
        assert await peer.closed() == (1008, "too many messages")


async def test_no_rate_limit(kind: ServerKind) -> None:
    broker = Broker(settings(rate_limit=0))

    @broker.on("x")
    async def x(data: int) -> int:
        return data

    async with running(broker, kind) as address, address.connect() as peer:
        for number in range(500):
            await peer.send("x", number, id=number)
        assert [(await peer.receive())["data"] for _ in range(500)] == list(range(500))


# --- sizes


async def test_the_largest_message(kind: ServerKind) -> None:
    limit = 1000
    broker = Broker(settings(max_message_size=limit))

    @broker.on("size")
    async def size(data: str) -> int:
        return len(data.encode())

    def sized(total: int, letter: str) -> str:
        empty = json.dumps({"event": "size", "data": "", "id": 1}, ensure_ascii=False)
        room = total - len(empty)
        count, rest = divmod(room, len(letter.encode()))
        return json.dumps({"event": "size", "data": letter * count + "x" * rest, "id": 1}, ensure_ascii=False)

    # hypercorn has a limit of its own, so there it is ours that acts.
    async with running(broker, kind) as address:
        for letter in ("x", "é"):
            async with address.connect() as peer:
                exact = sized(limit, letter)
                assert len(exact.encode()) == limit
                await peer.ws.send(exact)
                assert (await peer.receive())["event"] == "reply"
                await peer.ws.send(sized(limit + 1, letter))
                assert (await peer.closed())[0] == 1009
        async with address.connect() as peer:
            await peer.ws.send(b"x" * (limit + 1))
            assert (await peer.closed())[0] == 1009
        async with address.connect(compression="deflate") as peer:
            await peer.ws.send("x" * 100_000)  # some hundred bytes on the wire
            assert (await peer.closed())[0] == 1009
        await eventually(lambda: not broker.node.lifecycle.sessions)


async def test_the_read_buffer_bounds_what_waits_for_a_busy_handler(kind: ServerKind) -> None:
    broker = Broker(settings(read_buffer_size=100_000, rate_limit=0))
    go = asyncio.Event()
    handled: list[int] = []

    @broker.on("x")
    async def x(data: str) -> None:
        await go.wait()
        handled.append(len(data))

    async with running(broker, kind) as address, address.connect(compression=None) as peer:
        flood = asyncio.create_task(_flood(peer, 1500))
        await eventually(lambda: broker.get_stats().bytes_received > 100_000)
        session = next(iter(broker.node.lifecycle.sessions))
        await eventually(lambda: session.inbox.is_full)
        before = broker.get_stats().bytes_received
        assert before < 100_000 + 20 * 10_100  # one over the limit, and what the server had read
        assert not flood.done()  # the rest waits in the sender and the kernel
        go.set()
        await flood
        await eventually(lambda: len(handled) == 1500)
    assert broker.get_stats().messages_received == 1500


async def _flood(peer: Peer, count: int) -> None:
    for _ in range(count):
        await peer.send("x", "y" * 10_000)


async def test_a_server_that_sends_bytes_for_text_and_none_for_the_rest(kind: ServerKind) -> None:
    # The ASGI specification lets either key be missing or None.
    broker = Broker(settings())

    @broker.on("x")
    async def x(data: str) -> str:
        return data

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.ws.send(json.dumps({"event": "x", "data": "ü", "id": 1}).encode(), text=True)
        assert (await peer.receive())["data"] == "ü"


async def test_statistics_are_exact(kind: ServerKind) -> None:
    broker = Broker(settings())
    sizes = {"sent": 0, "received": 0}

    @broker.on("echo")
    async def echo(client: Client, data: Any) -> Any:
        await client.send_bytes(b"\x00" * 5)
        return data

    async with running(broker, kind) as address, address.connect() as peer, address.connect() as other:
        for data in ("plain", "ünïcödé", {"a": [1, 2]}, None):
            text = json.dumps({"event": "echo", "data": data, "id": 1}, ensure_ascii=False)
            await peer.ws.send(text)
            sizes["received"] += len(text.encode())
            for _ in range(2):
                raw = await peer.ws.recv(decode=False)
                sizes["sent"] += len(raw)
        await other.ws.send("nonsense")
        sizes["received"] += 8
        sizes["sent"] += len(await other.ws.recv(decode=False))
        await eventually(lambda: len(broker.get_clients()) == 2)
        assert await broker.broadcast("news", "ö") == 2
        sizes["sent"] += len(await peer.ws.recv(decode=False)) + len(await other.ws.recv(decode=False))
        stats = broker.get_stats()
        assert stats.connected_clients == 2
        assert stats.messages_received == 5
        assert stats.messages_sent == 4 * 2 + 1 + 2
        assert stats.bytes_received == sizes["received"]
        assert stats.bytes_sent == sizes["sent"]
        assert stats.connections == 2
        assert stats.dropped == 0
        assert stats.uptime > 0
        assert stats.to_dict()["messages_sent"] == 11
        with pytest.raises(AttributeError):
            stats.messages_sent = 0  # type: ignore[misc]
