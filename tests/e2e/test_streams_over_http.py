"""Streams over HTTP, on a real server: who may read and write them, what they are answered, and what attackers get."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from tests.support import DEADLINE, Address, ServerKind, eventually, running, serve, settings
from tests.support.clocks import keeps_time_of
from tests.support.jetstream import storing
from tests.support.machine import beside_others
from tests.support.nodes import KINDS, engine_url, nodes
from tests.support.streaming import ROOM, Gate, Reading, chat, join, said
from velocity_ws import Broker, Client, ClientError, Reject, Server, StreamError, WebSocketApp, WebSocketMiddleware
from velocity_ws.asgi import stream_access, stream_endpoint, stream_feeds
from velocity_ws.asgi.stream_forms import offset_of
from velocity_ws.streams import kept_streams
from velocity_ws.streams.items import Summary
from velocity_ws.streams.requests import Problem

KEY, OTHER_KEY = "a-key-of-a-program", "another-key-of-one"
WITH_KEY = {"x-api-key": KEY}
TEXT, JSON, BINARY = "text/plain", "application/json", "application/octet-stream"
CLOSED = {"stream_closed": "true"}


class Site:
    """A server with a broker, and a client of it that sends the key where it is not told otherwise."""

    def __init__(self, broker: Broker, address: Address, http: httpx.AsyncClient, base: str = "/ws") -> None:
        self.broker = broker
        self.address = address
        self.http = http
        self.base = base

    async def ask(
        self, method: str, id_: str, body: bytes | str | None = None, type_: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send a request; names of headers have ``_`` for ``-``, and ``key=""`` is none."""
        sent = {name.replace("_", "-"): value for name, value in headers.items() if name != "key"}
        if key := headers.get("key", KEY):
            sent["x-api-key"] = key
        if type_ is not None:
            sent["content-type"] = type_
        return await self.http.request(method, f"{self.base}/streams/{id_}", content=body, headers=sent)

    @property
    def waiting(self) -> int:
        """How many answers are open."""
        return self.broker.node.connection_limits._total

    async def put(self, id_: str = "a", body: bytes | str | None = None, type_: str = TEXT, **headers: str) -> str:
        """Create a stream; where it ends."""
        answer = await self.ask("PUT", id_, body, type_, **headers)
        assert answer.status_code == 201, answer.text
        offset: str = answer.headers["stream-next-offset"]
        return offset

    async def post(self, id_: str, body: bytes | str, type_: str = TEXT, **headers: str) -> str:
        """Append to it; where it ends."""
        answer = await self.ask("POST", id_, body, type_, **headers)
        assert answer.status_code in (200, 204), answer.text
        offset: str = answer.headers["stream-next-offset"]
        return offset

    async def get(self, id_: str, **headers: str) -> httpx.Response:
        """Read it."""
        return await self.ask("GET", id_, **headers)

    @asynccontextmanager
    async def events(self, id_: str, offset: str = "-1", **headers: str) -> AsyncIterator[Events]:
        """Read it as events."""
        sent = {name.replace("_", "-"): value for name, value in headers.items() if name != "key"}
        if key := headers.get("key", KEY):
            sent["x-api-key"] = key
        path = f"{self.base}/streams/{id_}?offset={offset}&live=sse"
        async with self.http.stream("GET", path, headers=sent) as response:
            yield Events(response)


async def eventually_answers(one: Site, id_: str, status: int) -> None:
    """Ask until the answer has a status."""
    async with asyncio.timeout(DEADLINE):
        while (await one.get(id_)).status_code != status:
            await asyncio.sleep(0.05)


class Events:
    """Events as the HTML standard (9.2.6) reads them, which knows three ends of a line and takes one space away.

    Attributes:
        response: whose body they are.
        raw: all of it so far.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.raw = b""
        self._chunks = response.aiter_raw()
        self._ended = False

    async def next(self) -> tuple[str, str] | None:
        """The type and data of the next event; ``None`` at the end."""
        async with asyncio.timeout(DEADLINE):
            return await self._next()

    async def _next(self) -> tuple[str, str] | None:
        name = ""
        data: list[str] = []
        while (line := await self._line()) is not None:
            if not line and (data or name):
                return name or "message", "\n".join(data)
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
        return None

    async def _line(self) -> str | None:
        while b"\n" not in self.raw[self._at :]:
            try:
                self.raw += await anext(self._chunks)
            except StopAsyncIteration:
                return None
        whole = self.raw[self._at :]
        assert b"\r" not in whole  # which would end a line, too
        end = whole.index(b"\n")
        self._at += end + 1
        return whole[:end].decode()

    _at = 0

    async def pair(self) -> tuple[str, dict[str, Any]]:
        """What the next event has, empty where it has none, and what is said of where the stream is then."""
        found = await self.next()
        assert found is not None, self.raw
        data = ""
        if found[0] == "data":
            data = found[1]
            found = await self.next()
            assert found is not None, self.raw
        assert found[0] == "control", found
        control: dict[str, Any] = json.loads(found[1])
        return data, control

    async def all(self) -> tuple[list[str], dict[str, Any]]:
        """All that comes until the stream has ended, and what is said at last."""
        parts = []
        while True:
            data, control = await self.pair()
            if data:
                parts.append(data)
            if control.get("streamClosed"):
                assert await self.next() is None
                return parts, control


@asynccontextmanager
async def site(
    prepare: Callable[[Broker], None] | None = None, kind: ServerKind = "ours", **values: Any
) -> AsyncIterator[Site]:
    """A server, as the middleware has it."""
    broker = Broker(settings(**{"api_keys": f"{KEY},{OTHER_KEY}", **values}))
    if prepare is not None:
        prepare(broker)
    async with running(broker, kind) as address, client(address) as http:
        yield Site(broker, address, http)


def client(address: Address) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=address.http, timeout=DEADLINE, trust_env=False, limits=limits)


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, within: float = DEADLINE) -> tuple[int, str]:
        """The status and the headers of the next answer."""
        async with asyncio.timeout(within):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return int(head.split()[1]), head.lower()


@asynccontextmanager
async def raw(address: Address) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


# --- keys


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 201),
        ({"x-api-key": OTHER_KEY}, 201),
        ({"authorization": f"Bearer {KEY}"}, 201),
        ({"authorization": f"bearer  {OTHER_KEY}"}, 201),
        ({"x-api-key": KEY[:-1]}, 401),
        ({"x-api-key": KEY + "x"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": f"{KEY},{OTHER_KEY}"}, 401),
        ({"x-api-key": "\xe9" * 16}, 401),
        ({"x-api-key": "wrong", "authorization": f"Bearer {KEY}"}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": KEY}, 401),
        ({}, 401),
    ],
)
async def test_who_has_a_key_writes(headers: dict[str, str], status: int) -> None:
    async with site() as one:
        for method in ("PUT", "POST", "DELETE"):
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            answer = await one.http.request(
                method, "/ws/streams/a", content=b"x", headers=[(b"content-type", TEXT.encode()), *encoded]
            )
            expected = {201: {"PUT": 201, "POST": 204, "DELETE": 204}[method]}.get(status, status)
            assert answer.status_code == expected, answer.text
            if status == 401:
                assert KEY not in answer.text
                assert answer.json()["code"] == "UNAUTHORIZED"
        if status == 401:
            assert (await one.get("a")).status_code == 404


async def test_where_no_key_is_set_nobody_writes() -> None:
    async with site(chat, api_keys="") as one:
        for method in ("PUT", "POST", "DELETE"):
            answer = await one.ask(method, "a", b"x", TEXT, key="")
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
            assert "WS_API_KEYS" in answer.text
            answer = await one.ask(method, "a", b"x", TEXT)  # with a key of another server
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
            assert "WS_API_KEYS is not set there" in answer.text
        await one.broker.streams.start("app", room=ROOM, source=said(["text"]))
        assert (await one.get("app", key="")).text == "text"


# --- who reads


def guarded(broker: Broker) -> None:
    """Users by a token, and rooms whose ``authorize`` lets in who owns them."""

    @broker.authenticate
    async def authenticate(request: Any) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        name = token if scheme == "Bearer" else request.query_params.get("user")
        if name == "bad":
            raise Reject("no such user", status=401)
        if name == "out":
            raise Reject("out", code=4403)
        found: str | None = name
        return found

    async def authorize(client: Client, owner: str) -> bool:
        if owner == "broken":
            raise RuntimeError("the database is away")
        if owner == "paid":
            raise ClientError("PAYMENT", "pay first")
        return client.user_id == owner

    broker.rooms("of:{owner}").authorize(authorize)


async def test_who_may_be_in_a_room_reads_its_streams_and_no_others() -> None:
    async with site(guarded) as one:
        await one.put("anns", "for ann", room="no header")
        for owner in ("ann", "bob"):
            answer = await one.ask("PUT", f"of-{owner}?room=of:{owner}", f"for {owner}", TEXT)
            assert answer.status_code == 201, answer.text
        for user, owner, status in (("ann", "ann", 200), ("ann", "bob", 404), ("bob", "bob", 200), ("eve", "ann", 404)):
            answer = await one.get(f"of-{owner}?user={user}", key="")
            assert (answer.status_code, user) == (status, user)
            assert (answer.text == f"for {owner}") == (status == 200)
            bearer = await one.get(f"of-{owner}", key="", authorization=f"Bearer {user}")
            assert bearer.status_code == status
            head = await one.ask("HEAD", f"of-{owner}?user={user}", key="")
            assert head.status_code == status
            live = await one.get(f"of-{owner}?user={user}&offset=-1&live=long-poll", key="")
            assert live.status_code == status
            if status == 404:
                async with one.events(f"of-{owner}", f"-1&user={user}", key="") as events:
                    assert events.response.status_code == 404
        # A room that is named in the query opens nothing, and what is of no room is for programs.
        assert (await one.get("of-bob?user=ann&room=of:ann", key="")).status_code == 404
        assert (await one.get("anns?user=ann", key="")).status_code == 404
        missing, hidden = await one.get("none?user=ann", key=""), await one.get("of-bob?user=ann", key="")
        assert (missing.status_code, missing.json()["code"]) == (hidden.status_code, hidden.json()["code"])
        assert (await one.get("of-bob")).text == "for bob"  # with a key


async def test_who_is_refused_is_told_as_by_a_handshake() -> None:
    async with site(guarded) as one:
        await one.ask("PUT", "a?room=of:ann", b"x", TEXT)
        assert (await one.get("a?user=bad", key="")).status_code == 401
        assert (await one.get("a?user=out", key="")).status_code == 403
        assert (await one.get("a?user=ann", key="", origin="https://elsewhere.example")).status_code == 403
        for owner, status in (("broken", 500), ("paid", 404)):
            await one.ask("PUT", f"{owner}?room=of:{owner}", b"secret", TEXT)
            answer = await one.get(f"{owner}?user=ann", key="")
            assert answer.status_code == status
            assert "secret" not in answer.text
            assert "database" not in answer.text
            assert answer.json()["code"] == ("INTERNAL_ERROR" if status == 500 else "NOT_FOUND")
        assert one.waiting == 0


async def test_who_may_not_read_is_told_the_same_of_streams_that_are_there_were_there_or_never_were() -> None:
    async with site(guarded, stream_ttl=1) as one:
        await one.broker.streams.start("old", room="of:bob", source=said(["x"]))
        await one.ask("PUT", "there?room=of:bob", b"x", TEXT)
        await one.ask("PUT", "source", b"x", TEXT)
        await one.ask("PUT", "fork", stream_forked_from="/ws/streams/source")
        assert (await one.ask("DELETE", "source")).status_code == 204
        await eventually_answers(one, "old", 410)
        assert (await one.get("source")).status_code == 410
        answers = [await one.get(f"{id_}?user=ann", key="") for id_ in ("never", "there", "old", "source", "fork")]
        assert {(each.status_code, each.text) for each in answers} == {(404, answers[0].text)}
        assert (await one.get("old?user=bob", key="")).status_code == 410


async def test_an_authentication_that_looks_for_what_only_handshakes_have_fails_nobody() -> None:
    def by_subprotocol(broker: Broker) -> None:
        @broker.authenticate
        async def authenticate(request: Any) -> str | None:
            match request.scope["subprotocols"]:
                case [_, token]:
                    return str(token)
            return None

        broker.rooms("open").authorize(lambda client: client.user_id is None)

    async with site(by_subprotocol) as one:
        await one.ask("PUT", "a?room=open", b"x", TEXT)
        assert (await one.get("a", key="")).text == "x"


async def test_what_a_hook_raises_is_a_fault_of_the_server() -> None:
    def failing(broker: Broker) -> None:
        @broker.authenticate
        async def authenticate(_: Any) -> str | None:
            raise RuntimeError("the database is away")

    async with site(failing) as one:
        answer = await one.get("a", key="")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")


async def test_who_writes_without_a_key_is_told_of_keys_whatever_authenticate_says() -> None:
    async with site(guarded) as one:
        for headers in ({}, {"authorization": "Bearer bad"}):
            answer = await one.ask("POST", "a?user=bad", b"x", TEXT, key="", **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
            assert "WS_API_KEYS" in answer.text
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_no_token_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uvicorn.access")
    broker = Broker(settings(api_keys=KEY))
    async with Server(broker, port=0) as server, client(address := Address(server.port)) as http:
        one = Site(broker, address, http)
        await one.put("a")
        await one.get("a?token=secret")
        await one.get("none?token=secret")
        assert (await one.http.get("/elsewhere?query=of-the-application")).status_code == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert any('"GET /ws/streams/a HTTP/1.1" 200' in line for line in lines)
    assert not any("secret" in line for line in lines)
    assert any("query=of-the-application" in line for line in lines)


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_who_may_not_read_any_more_gets_nothing_of_what_comes_then(live: str) -> None:
    members = {"ann", "bob"}

    def revocable(broker: Broker) -> None:
        guarded(broker)
        broker.rooms("team").authorize(lambda client: client.user_id in members)

    async with site(revocable) as one:
        offset = (await one.ask("PUT", "a?room=team", "text", TEXT)).headers["stream-next-offset"]
        path = f"{one.base}/streams/a?offset={offset}&live={live}&user="
        asked = {user: asyncio.create_task(one.http.get(path + user)) for user in ("ann", "bob", "eve")}
        assert (await asked["eve"]).status_code == 404
        await eventually(lambda: one.waiting == 2)
        members.remove("bob")
        await one.broker.reauthorize(room="team", user_id="bob")
        await one.post("a", " secret")
        told = await asked["bob"]
        assert (told.status_code, "secret" in told.text) == (200 if live == "sse" else 204, False)
        assert (await one.get("a?user=bob", key="")).status_code == 404
        if live == "sse":
            assert (await one.ask("POST", "a", **CLOSED)).status_code == 204
        assert "secret" in (await asked["ann"]).text
        assert one.waiting == 0


async def test_who_may_not_read_any_more_is_refused_though_it_was_let_in_just_now() -> None:
    members = {"bob"}
    asking, go_on = asyncio.Event(), asyncio.Event()

    def slow(broker: Broker) -> None:
        guarded(broker)

        async def authorize(client: Client) -> bool:
            found = client.user_id in members
            asking.set()
            await go_on.wait()
            return found

        broker.rooms("team").authorize(authorize)

    async with site(slow) as one:
        await one.ask("PUT", "a?room=team", "text", TEXT)
        reading = asyncio.create_task(one.get("a?user=bob&offset=-1&live=sse", key=""))
        await asking.wait()
        members.clear()
        await one.broker.reauthorize(room="team")
        go_on.set()
        assert (await reading).status_code == 404


async def test_an_application_has_keys_of_its_own_where_there_are_none() -> None:
    def by_key(broker: Broker) -> None:
        @broker.authenticate
        async def authenticate(request: Any) -> str | None:
            key: str | None = request.headers.get("x-api-key")
            return key

        broker.rooms("team").authorize(lambda client: client.user_id == KEY)

    async with site(by_key, api_keys="") as one:
        await one.broker.streams.start("a", room="team", source=said(["text"]))
        await one.broker.streams.wait("a")
        assert (await one.get("a")).text == "text"
        assert (await one.ask("POST", "a", b"x", TEXT)).status_code == 403


async def test_pages_that_check_origin_lets_in_may_read_the_answers() -> None:
    async def check(request: Any) -> bool:
        return bool(request.headers.get("origin") == "https://ours.example")

    def fails(_: Any) -> bool:
        raise RuntimeError("it failed")

    async with site(guarded, check_origin=check) as one:
        await one.ask("PUT", "a?room=of:ann", b"x", TEXT)
        answer = await one.get("a?user=ann", key="", origin="https://ours.example")
        assert (answer.text, answer.headers["access-control-allow-origin"]) == ("x", "https://ours.example")
        answer = await one.get("a?user=ann", key="", origin="https://other.example")
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (403, None)
    async with site(guarded, check_origin=fails) as one:
        answer = await one.get("a", key="", origin="https://ours.example")
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (500, None)


async def test_an_authentication_that_takes_too_long_is_given_up() -> None:
    def slow(broker: Broker) -> None:
        @broker.authenticate
        async def authenticate(request: Any) -> str | None:
            await asyncio.Event().wait()
            return None

    async with site(slow, handshake_timeout=0.05) as one:
        assert (await one.get("a", key="")).status_code == 503
        assert (await one.get("a")).status_code == 404  # a program is not asked


# --- rooms, read by WebSocket


async def test_members_of_a_room_get_what_is_written_by_http_as_events(kind: ServerKind) -> None:
    async with site(chat, kind) as one, one.address.connect("/ws?user=ann") as peer:
        await join(peer)
        await one.ask("PUT", f"t?room={ROOM}", "Hé", TEXT)
        await one.post("t", "llo 𝄞", type_="text/plain; charset=utf-8")
        await one.ask("POST", "t", None, None, stream_closed="true")
        text = await Reading("t").follow(peer)
        assert (text.text, text.end) == ("Héllo 𝄞", "done")
        await one.ask("PUT", f"j?room={ROOM}", '[{"a": 1}, 2]', JSON)
        await one.post("j", "[[3]]", JSON, **CLOSED)
        items = await Reading("j").follow(peer)
        assert (items.items, items.end) == ([{"a": 1}, 2, [3]], "done")
        async with one.address.connect("/ws?user=bob") as late:
            answer = await join(late, streams={})
            assert answer is not None
            got: dict[str, Any] = {}
            while len(got) < 2:
                message = await late.receive()
                got[message["data"]["id"]] = message["data"]
            assert got["t"]["text"] == "Héllo 𝄞"


async def test_a_stream_of_a_room_is_deleted_before_its_members_and_its_id_stays_taken() -> None:
    async with site(chat) as one, one.address.connect("/ws?user=ann") as peer:
        await join(peer)
        await one.ask("PUT", f"t?room={ROOM}", "text 0", TEXT)
        reading = await Reading("t").follow(peer, 6)
        assert reading.text == "text 0"
        assert (await one.ask("DELETE", "t")).status_code == 204
        assert (await reading.follow(peer)).end == "cancelled"
        # Else one who comes back and says how much of it it has would get the rest of another one.
        answer = await one.ask("PUT", f"t?room={ROOM}", "text 1 and more", TEXT)
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
        assert (await one.ask("PUT", f"u?room={ROOM}", "text 1", TEXT)).status_code == 201
        assert (await Reading("u").follow(peer, 6)).text == "text 1"


async def test_a_member_that_may_stop_a_stream_stops_one_that_a_program_writes() -> None:
    async with site(chat) as one, one.address.connect("/ws?user=admin") as admin:
        await join(admin)
        offset = (await one.ask("PUT", f"t?room={ROOM}", "text", TEXT)).headers["stream-next-offset"]
        assert (await Reading("t").follow(admin, 4)).text == "text"
        await admin.send("stream_cancel", {"id": "t"}, id=9, room=ROOM)
        seen = [await admin.receive(), await admin.receive()]
        assert {message["event"] for message in seen} == {"reply", "stream"}
        answer = await one.ask("POST", "t", b"more", TEXT)
        assert (answer.status_code, answer.headers["stream-closed"], answer.headers["stream-end"]) == (
            409, "true", "cancelled",
        )  # fmt: skip
        after = await one.get(f"t?offset={offset}")  # which is still one of it
        assert (after.status_code, after.text, after.headers["stream-end"]) == (200, "", "cancelled")
        assert (await one.ask("DELETE", "t")).status_code == 204


async def test_a_create_that_is_not_done_says_what_is_wrong() -> None:
    async with site(chat) as one:
        answer = await one.ask("PUT", f"a?room={ROOM}", b"x", "application/x-www-form-urlencoded")
        assert (answer.status_code, "application/x-www-form-urlencoded" in answer.text) == (400, True)
        assert "no Content-Type" in (await one.ask("PUT", f"a?room={ROOM}", b"x")).text
        assert (await one.ask("PUT", "a?room=", b"x", TEXT)).status_code == 400
        await one.put("a")
        for id_, type_, headers, what in (
            ("a", JSON, {}, "has text/plain"),
            ("a", TEXT, {"stream_ttl": "5"}, "lasts for another time"),
            ("a", TEXT, CLOSED, "is not closed"),
            (f"a?room={ROOM}", TEXT, {}, "is of another room"),
            ("a", TEXT, {"stream_forked_from": "/ws/streams/a"}, "begins with no other one"),
        ):
            answer = await one.ask("PUT", id_, None, type_, **headers)
            assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
            assert what in answer.text


async def test_bytes_are_not_forked_into_a_room_which_has_text() -> None:
    async with site(chat) as one:
        await one.put("bytes", b"\xc3")
        answer = await one.ask("PUT", f"a?room={ROOM}", stream_forked_from="/ws/streams/bytes")
        assert (answer.status_code, "no room" in answer.text) == (409, True)
        await one.put("items", b"[1,2]", JSON)
        answer = await one.ask("PUT", f"b?room={ROOM}", stream_forked_from="/ws/streams/items")
        assert answer.status_code == 201
        async with one.address.connect("/ws?user=ann") as peer:
            await join(peer)
            assert (await Reading("b").follow(peer, 2)).items == [1, 2]


async def test_events_have_text_that_was_cut_in_a_character_in_front_of_more_than_one_read() -> None:
    text = "ä" * 300_000
    data = text.encode()
    async with site(max_message_size="1mib") as one:
        await one.put("a", data[:300_001])
        await one.post("a", data[300_001:])
        async with one.events("a") as events:
            got = ""
            while len(got) < len(text):
                kind, said = await events.next() or ("", "")
                assert kind
                got += said if kind == "data" else ""
        assert got == text
        assert (await one.http.get("/health")).status_code in (200, 404)


async def test_what_is_to_last_for_centuries_is_created() -> None:
    async with site() as one:
        await one.put("a", "x", stream_expires_at="9999-01-01T00:00:00Z")
        assert (await one.ask("HEAD", "a")).headers["stream-expires-at"] == "9999-01-01T00:00:00Z"


async def test_the_application_does_not_start_what_is_written_over_http() -> None:
    async with site(chat) as one:
        await one.ask("PUT", f"a?room={ROOM}", b"x", TEXT)
        with pytest.raises(StreamError, match="written over HTTP"):
            await one.broker.streams.start("a", room=ROOM, source=said(["never"]))
        with pytest.raises(StreamError, match="written over HTTP"):
            async with one.broker.streams.open("a", room=ROOM):
                pass
        assert (await one.get("a")).text == "x"


async def test_rooms_take_text_and_items_in_whole_characters() -> None:
    async with site(chat) as one:
        for type_ in (BINARY, "image/png", None):
            answer = await one.ask("PUT", f"b?room={ROOM}", b"x", type_)
            assert answer.status_code == 400
        assert (await one.ask("PUT", f"t?room={ROOM}", b"ab\xe2", TEXT)).status_code == 400
        await one.ask("PUT", f"t?room={ROOM}", b"ab", TEXT)
        assert (await one.ask("POST", "t", b"\xe2", TEXT)).status_code == 400
        assert (await one.get("t")).text == "ab"


# --- streams of the application


@pytest.mark.usefixtures("unhurried")
async def test_what_the_application_says_is_read_by_http() -> None:
    async with site(chat) as one:
        gate = Gate()
        stream = await one.broker.streams.start("t", room=ROOM, source=gate.source())
        async with one.events("t", key="") as events:
            assert events.response.headers["content-type"] == "text/event-stream"
            data, control = await events.pair()
            assert (data, control["upToDate"]) == ("", True)
            gate.say("Héllo")
            assert (await events.pair())[0] == "Héllo"
            waiting = asyncio.create_task(
                one.get(f"t?offset={(await one.ask('HEAD', 't')).headers['stream-next-offset']}&live=long-poll")
            )
            gate.say(" you")
            assert (await waiting).text == " you"
            assert (await events.pair())[0] == " you"
            gate.end()
            began = asyncio.get_running_loop().time()
            parts, control = await events.all()
            assert asyncio.get_running_loop().time() - began < beside_others(0.2)
        assert (parts, control["streamEnd"]) == ([], "done")
        assert "streamCursor" not in control
        assert await stream.wait() == "done"
        answer = await one.get("t", key="")
        assert (answer.text, answer.headers["content-type"]) == ("Héllo you", "text/plain; charset=utf-8")
        assert (answer.headers["stream-closed"], answer.headers["stream-end"]) == ("true", "done")
        head = await one.ask("HEAD", "t", key="")
        assert (head.headers["stream-closed"], head.headers["stream-end"]) == ("true", "done")
        assert head.headers["stream-next-offset"] == answer.headers["stream-next-offset"]


async def test_items_of_the_application_are_an_array_also_where_there_were_none_yet() -> None:
    async with site(chat) as one:
        gate = Gate()
        await one.broker.streams.start("j", room=ROOM, source=gate.source())
        waiting = asyncio.create_task(one.get("j?offset=-1&live=long-poll"))
        async with one.events("j") as events:
            await events.pair()
            await eventually(lambda: one.waiting == 2)
            gate.say({"a": 1})
            assert json.loads((await events.pair())[0]) == [{"a": 1}]
            polled = await waiting
            assert (polled.json(), polled.headers["content-type"]) == ([{"a": 1}], JSON)
            gate.say("two", None)
            gate.end()
            parts, _ = await events.all()
            assert [item for part in parts for item in json.loads(part)] == ["two", None]
        answer = await one.get("j")
        assert (answer.json(), answer.headers["content-type"]) == ([{"a": 1}, "two", None], JSON)
        assert (await one.ask("HEAD", "j")).headers["content-type"] == JSON


@pytest.mark.parametrize(("fault", "end"), [(RuntimeError("no"), "error"), (asyncio.CancelledError(), "cancelled")])
async def test_how_an_application_s_stream_has_ended_is_told(fault: BaseException, end: str) -> None:
    async with site(chat) as one:
        gate = Gate()
        stream = await one.broker.streams.start("t", room=ROOM, source=gate.source())
        gate.say("so far")
        async with one.events("t", key="") as events:
            data, control = await events.pair()
            if not data:
                data, control = await events.pair()
            if end == "error":
                gate.end(fault)
            else:
                await stream.cancel()
            _, control = await events.all()
            assert control["streamEnd"] == end
        assert (await one.get("t")).headers["stream-end"] == end


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_nobody_but_the_application_writes_what_it_has_started(method: str) -> None:
    async with site(chat) as one:
        gate = Gate()
        await one.broker.streams.start("t", room=ROOM, source=gate.source())
        gate.say("text")
        answer = await one.ask(method, "t", b"x", TEXT)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await one.ask("PUT", f"t?room={ROOM}", b"x", TEXT)).status_code == 409
        assert (await one.ask("PUT", "t", b"x", TEXT)).status_code == 409
        gate.end()
        await one.broker.streams.wait("t")
        assert (await one.ask(method, "t", b"x", TEXT)).status_code == 405
        assert (await one.get("t")).text == "text"


# --- other origins


async def test_pages_of_origins_that_are_allowed_may_ask() -> None:
    async with site(chat, allowed_origins="https://app.example") as one:
        await one.ask("PUT", f"t?room={ROOM}", b"text", TEXT)
        for origin, is_allowed in (
            ("https://app.example", True),
            (one.address.http, True),
            ("https://evil.example", False),
        ):
            asked = {"origin": origin, "access_control_request_method": "PUT"}
            answer = await one.ask("OPTIONS", "t", key="", **asked)
            assert answer.status_code == 204
            assert answer.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
            assert "x-api-key" in answer.headers["access-control-allow-headers"]
            assert "DELETE" in answer.headers["access-control-allow-methods"]
            read = await one.get("t", key="", origin=origin)
            assert read.status_code == (200 if is_allowed else 403)
            assert read.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
            assert read.headers["vary"] == "Origin"
            assert ("stream-next-offset" in read.headers.get("access-control-expose-headers", "")) is is_allowed
            expected = "cross-origin" if is_allowed else "same-origin"
            assert read.headers["cross-origin-resource-policy"] == expected
            async with one.events("t", key="", origin=origin) as events:
                assert events.response.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
        plain = await one.ask("OPTIONS", "t", key="")
        assert (plain.status_code, plain.headers["allow"]) == (204, "GET, HEAD, PUT, POST, DELETE, OPTIONS")
        assert "access-control-allow-methods" not in plain.headers
        missing = await one.get("none", key="", origin="https://app.example")
        assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, "https://app.example")
        assert missing.headers["x-content-type-options"] == "nosniff"


# --- reading


async def test_a_stream_is_read_from_where_one_was_and_told_of_without_its_content() -> None:
    async with site() as one:
        first = await one.put("a", "Hello", stream_ttl="3600")
        second = await one.post("a", ", you")
        head = await one.ask("HEAD", "a")
        assert (head.status_code, head.content) == (200, b"")
        assert {name: head.headers.get(name) for name in ("content-type", "stream-next-offset", "stream-ttl")} == {
            "content-type": TEXT, "stream-next-offset": second, "stream-ttl": "3600",
        }  # fmt: skip
        assert head.headers["cache-control"] == "no-store"
        for offset, text in (("-1", "Hello, you"), (first, ", you"), (second, ""), ("now", "")):
            answer = await one.get(f"a?offset={offset}")
            assert (answer.text, answer.headers["stream-next-offset"]) == (text, second)
            assert answer.headers["stream-up-to-date"] == "true"
            assert "stream-closed" not in answer.headers
        await one.put("e", stream_expires_at="2100-01-01T00:00:00+01:00")
        assert (await one.ask("HEAD", "e")).headers["stream-expires-at"] == "2100-01-01T00:00:00+01:00"


async def test_what_one_has_is_not_sent_again() -> None:
    async with site() as one:
        await one.put("a", "text")
        answer = await one.get("a")
        etag = answer.headers["etag"]
        for same in (etag, f"W/{etag}", f'"x", {etag}'):
            again = await one.get("a", if_none_match=same)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == etag
            assert again.headers["stream-next-offset"] == answer.headers["stream-next-offset"]
        for other in ('"x"', etag[:-1], ""):
            assert (await one.get("a", if_none_match=other)).status_code == 200
        now = await one.get("a?offset=now", if_none_match="x")
        assert (now.status_code, now.content, now.headers.get("etag")) == (200, b"", None)
        await one.ask("POST", "a", None, None, **CLOSED)
        closed = await one.get("a", if_none_match=etag)
        assert (closed.status_code, closed.headers["stream-closed"]) == (200, "true")
        assert (await one.get("a", if_none_match=closed.headers["etag"])).status_code == 304
        assert (await one.ask("DELETE", "a")).status_code == 204
        await one.put("a", "tex2")
        assert (await one.get("a", if_none_match=etag)).status_code == 200


async def test_a_part_that_is_no_longer_all_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_streams, "ANSWER", 4)
    async with site() as one:
        offset = await one.put("a", "text")
        whole = await one.get("a")
        assert whole.headers["stream-up-to-date"] == "true"
        await one.post("a", "more")
        part = await one.get("a", if_none_match=whole.headers["etag"])
        assert (part.status_code, part.text, part.headers["stream-next-offset"]) == (200, "text", offset)
        assert "stream-up-to-date" not in part.headers
        assert (await one.get("a", if_none_match=part.headers["etag"])).status_code == 304


async def test_a_long_poll_has_what_comes_next_or_nothing_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_endpoint, "LONG_POLL", 0.1)
    async with site() as one:
        offset = await one.put("a", "text")
        empty = await one.get(f"a?offset={offset}&live=long-poll")
        assert (empty.status_code, empty.content) == (204, b"")
        assert (empty.headers["stream-next-offset"], empty.headers["stream-up-to-date"]) == (offset, "true")
        cursor = empty.headers["stream-cursor"]
        again = await one.get(f"a?offset={offset}&live=long-poll&cursor={cursor}")
        assert int(again.headers["stream-cursor"]) > int(cursor)
        assert (await one.get("a?offset=-1&live=long-poll")).text == "text"
        monkeypatch.setattr(stream_endpoint, "LONG_POLL", DEADLINE)
        for is_closing in (False, True):
            waiting = [asyncio.create_task(one.get(f"a?offset={offset}&live=long-poll&cursor=1")) for _ in range(5)]
            await eventually(lambda: one.waiting == 5)
            if is_closing:
                await one.ask("POST", "a", None, None, **CLOSED)
            else:
                offset = await one.post("a", "more")
            for answer in await asyncio.gather(*waiting):
                assert answer.status_code == (204 if is_closing else 200)
                assert answer.text == ("" if is_closing else "more")
                assert answer.headers.get("stream-closed") == ("true" if is_closing else None)
                assert answer.headers["stream-next-offset"] == offset
                assert answer.headers["cache-control"] == "no-store"
        closed = await one.get(f"a?offset={offset}&live=long-poll")
        assert (closed.status_code, closed.headers["stream-end"]) == (204, "done")
        assert one.waiting == 0


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("live=long-poll", 400), ("live=sse", 400), ("live=x&offset=-1", 400), ("offset=x", 400), ("offset=", 400),
        ("offset=-1&offset=now", 400), ("offset=-1&live=sse&live=sse", 400), ("offset=-1&cursor=1&cursor=2", 400),
        ("", 200), ("offset=-1", 200), ("x=y", 200),
    ],
)  # fmt: skip
async def test_a_request_that_says_nothing_sensible_is_refused(query: str, status: int) -> None:
    async with site() as one:
        await one.put("a", "text")
        assert (await one.get(f"a?{query}")).status_code == status


# --- events


AWKWARD = [
    "a\r\nb", "a\rb\nc", "\n", "\r", "\n\n", " leading", "  two", "\n leading", ":", "data: x", "\u2028\u2029\x85\x0b",
    "event: control\ndata: {}\n\n", "\x00\x7f", "𝄞é€", "trailing \n",
]  # fmt: skip


@pytest.mark.parametrize("room", ["", f"?room={ROOM}"])
async def test_any_text_is_read_as_events_with_its_lines(room: str) -> None:
    async with site(chat) as one:
        await one.put(f"a{room}")
        async with one.events("a") as events:
            assert (await events.pair())[1]["upToDate"] is True
            for text in AWKWARD:
                offset = await one.post("a", text)
                data, control = await events.pair()
                assert data == text.replace("\r\n", "\n").replace("\r", "\n")
                assert control["streamNextOffset"] == offset
        async with one.events("a") as events:
            data, _ = await events.pair()
            assert data == "".join(AWKWARD).replace("\r\n", "\n").replace("\r", "\n")


async def test_characters_come_whole_however_they_were_cut() -> None:
    async with site() as one:
        whole = "a€𝄞é".encode() * 3
        await one.put("a")
        async with one.events("a") as events:
            await events.pair()
            text = ""
            for index in range(len(whole)):
                await one.post("a", whole[index : index + 1])
            while text.encode() != whole:
                data, control = await events.pair()
                text += data
                assert "\ufffd" not in data
                assert int(control["streamNextOffset"].split("_")[0]) == len(text.encode())
            await one.ask("POST", "a", b"\xe2\x82", TEXT, **CLOSED)  # and the rest never comes


async def test_half_a_character_costs_nothing_while_its_other_half_is_waited_for() -> None:
    async with site() as one:
        await one.put("a", b"ab\xe2")
        async with one.events("a") as events:
            data, control = await events.pair()
            assert (data, control["streamNextOffset"].split("_")[0]) == ("ab", f"{2:016d}")
            for _ in range(3):  # the server answers others meanwhile, and says nothing to this one
                assert (await one.get("a")).content == b"ab\xe2"
            await one.post("a", b"\x82\xac")
            assert (await events.pair())[0] == "€"
        assert len(events.raw) < 1000
        async with one.events("a", control["streamNextOffset"]) as events:
            assert (await events.pair())[0] == "€"


async def test_bytes_are_read_as_events_in_base64() -> None:
    async with site() as one:
        body = bytes(range(256))
        await one.put("a", body, BINARY)
        async with one.events("a") as events:
            assert events.response.headers["stream-sse-data-encoding"] == "base64"
            assert base64.b64decode((await events.pair())[0]) == body
            await one.ask("POST", "a", b"\r\n", BINARY, **CLOSED)
            parts, _ = await events.all()
            assert b"".join(map(base64.b64decode, parts)) == b"\r\n"
        assert (await one.get("a")).content == body + b"\r\n"


async def test_items_are_read_as_events_of_arrays() -> None:
    async with site() as one:
        await one.put("a", '[1,\r\n {"a":\n"x\\r\\n"}]', JSON)
        async with one.events("a") as events:
            assert json.loads((await events.pair())[0]) == [1, {"a": "x\r\n"}]
            await one.post("a", '"three"', JSON, **CLOSED)
            parts, _ = await events.all()
            assert [json.loads(part) for part in parts] == [["three"]]
        assert (await one.get("a")).json() == [1, {"a": "x\r\n"}, "three"]


@pytest.mark.usefixtures("unhurried")
async def test_silence_is_broken_and_a_stream_of_events_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_feeds, "COMMENT", 0.02)
    monkeypatch.setattr(stream_endpoint, "LIFE", 0.2)
    async with site() as one:
        await one.put("a", "text")
        async with one.events("a", "now&cursor=5") as events:
            _, control = await events.pair()
            assert int(control["streamCursor"]) > 5
            assert await events.next() is None
        assert 2 <= events.raw.count(b":\n\n") <= 10
        assert one.waiting == 0


async def test_a_reader_that_begins_anew_reads_on_without_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_endpoint, "LIFE", 0.05)
    async with site() as one:
        await one.put("a")

        async def write() -> None:
            for number in range(100):
                await one.post("a", f"{number},")
            await one.ask("POST", "a", None, None, **CLOSED)

        writing = asyncio.create_task(write())
        text, offset, is_closed, times = "", "-1", False, 0
        while not is_closed:
            times += 1
            async with one.events("a", offset) as events:
                while (event := await events.next()) is not None:
                    if event[0] == "data":
                        text += event[1]
                    else:
                        control = json.loads(event[1])
                        offset, is_closed = control["streamNextOffset"], control.get("streamClosed", False)
        await writing
        assert text == "".join(f"{number}," for number in range(100))
        assert times > 1


async def test_readers_of_a_stream_that_is_deleted_or_begun_anew_get_nothing_of_the_other_one() -> None:
    async with site() as one:
        await one.put("a", "old and secret", **CLOSED)
        async with one.events("a") as events:
            assert (await events.all())[0] == ["old and secret"]
        await one.ask("DELETE", "a")
        offset = await one.put("a")
        waiting = asyncio.create_task(one.get("a?offset=-1&live=long-poll"))
        async with one.events("a") as events:
            assert (await events.pair())[0] == ""
            await one.post("a", "new")
            assert (await events.pair())[0] == "new"
            assert (await waiting).text == "new"
            await one.ask("DELETE", "a")
            assert (await events.all())[1]["streamEnd"] == "cancelled"
        assert (await one.get(f"a?offset={offset}")).status_code == 404


async def test_a_server_that_stops_ends_what_is_open(kind: ServerKind) -> None:
    async with AsyncExitStack() as stack:
        inner = await stack.enter_async_context(AsyncExitStack())
        one = await inner.enter_async_context(site(kind=kind))
        await one.put("a", "text")
        http = await stack.enter_async_context(client(one.address))
        other = Site(one.broker, one.address, http)
        events = await stack.enter_async_context(other.events("a"))
        await events.pair()
        polling = asyncio.create_task(other.get("a?offset=now&live=long-poll"))
        await eventually(lambda: one.waiting == 2)
        began = time.monotonic()
        stopping = asyncio.create_task(one.broker.stop())
        async with asyncio.timeout(5):
            assert await events.next() is None
            assert (await polling).status_code in (200, 204, 503)
            await stopping
        assert time.monotonic() - began < beside_others(5)


# --- writing


async def test_a_stream_is_created_once_and_says_where_it_is() -> None:
    async with site() as one:
        answer = await one.ask("PUT", "a?x=y", "text", "text/plain; charset=utf-8")
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{one.address.http}/ws/streams/a"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        again = await one.ask("PUT", "a", "other", "TEXT/plain")
        assert (again.status_code, again.headers["stream-next-offset"]) == (200, answer.headers["stream-next-offset"])
        assert "location" not in again.headers
        assert (await one.ask("PUT", "a", None, JSON)).status_code == 409
        assert (await one.ask("PUT", "a", None, TEXT, stream_ttl="9")).status_code == 409
        assert (await one.ask("PUT", f"a?room={ROOM}", None, TEXT)).status_code == 409
        bare = await one.ask("PUT", "b")
        assert (bare.status_code, bare.headers["content-type"]) == (201, BINARY)
        assert (await one.ask("DELETE", "a")).status_code == 204
        for method in ("GET", "HEAD", "DELETE"):
            assert (await one.ask(method, "a")).status_code == 404
        assert (await one.ask("POST", "a", "x", TEXT)).status_code == 404


async def test_what_is_appended_is_told_apart_by_its_producer() -> None:
    async with site() as one:
        await one.put("a")
        said: dict[str, str] = {"producer_id": "p", "producer_epoch": "1", "producer_seq": "0"}
        first = await one.ask("POST", "a", "x", TEXT, **said)
        assert (first.status_code, first.headers["producer-epoch"], first.headers["producer-seq"]) == (200, "1", "0")
        again = await one.ask("POST", "a", "x", TEXT, **said)
        assert (again.status_code, again.headers["producer-seq"]) == (204, "0")
        hole = await one.ask("POST", "a", "x", TEXT, **{**said, "producer_seq": "3"})
        assert (hole.status_code, hole.headers["producer-expected-seq"], hole.headers["producer-received-seq"]) == (
            409, "1", "3",
        )  # fmt: skip
        stale = await one.ask("POST", "a", "x", TEXT, **{**said, "producer_epoch": "0"})
        assert (stale.status_code, stale.headers["producer-epoch"]) == (403, "1")
        assert (await one.ask("POST", "a", "x", TEXT, producer_id="p")).status_code == 400
        await one.post("a", "y", stream_seq="5")
        assert (await one.ask("POST", "a", "z", TEXT, stream_seq="5")).status_code == 409
        closing = {**said, "producer_seq": "1", **CLOSED}
        closed = [await one.ask("POST", "a", "!", TEXT, **closing) for _ in range(2)]
        assert [answer.status_code for answer in closed] == [200, 204]
        assert all(answer.headers["stream-closed"] == "true" for answer in closed)
        late = await one.ask("POST", "a", "z", TEXT)
        assert (late.status_code, late.headers["stream-closed"], late.headers["stream-next-offset"]) == (
            409, "true", closed[0].headers["stream-next-offset"],
        )  # fmt: skip
        assert (await one.get("a")).text == "xy!"


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b"", TEXT, 400), (b"x", None, 400), (b"x", JSON, 409), (b"x", "nonsense", 409), (b"x", "text/plain;v=1", 204),
    ],
)  # fmt: skip
async def test_an_append_has_a_body_of_the_stream_s_type(body: bytes, type_: str | None, status: int) -> None:
    async with site() as one:
        await one.put("a")
        assert (await one.ask("POST", "a", body, type_)).status_code == status


async def test_a_fork_begins_with_another_stream() -> None:
    async with site(chat) as one:
        first = await one.put("a", "one ")
        await one.post("a", "two")
        path = "/ws/streams/a"
        await one.put("b", "and own", stream_forked_from=path, stream_fork_offset=first)
        assert (await one.get("b")).text == "one and own"
        await one.put("c", stream_forked_from=path, stream_fork_offset=first, stream_fork_sub_offset="2")
        assert (await one.get("c")).text == "one tw"
        await one.put("d", stream_forked_from=f"{one.address.http}{path}")
        assert (await one.get("d")).text == "one two"
        refused = {
            "beyond": {"stream_fork_offset": first, "stream_fork_sub_offset": "4"},
            "forged": {"stream_fork_offset": offset_of(99, first[-16:])},
            "foreign": {"stream_fork_offset": offset_of(1, "0" * 16)},
            "elsewhere": {"stream_forked_from": "/elsewhere/a"},
        }
        for more in refused.values():
            answer = await one.ask("PUT", "e", None, TEXT, **{"stream_forked_from": path, **more})
            assert answer.status_code == 400, more
        assert (await one.ask("PUT", "e", None, TEXT, stream_forked_from="/ws/streams/none")).status_code == 404
        assert (await one.ask("PUT", "e", None, JSON, stream_forked_from=path)).status_code == 409
        await one.broker.streams.start("app", room=ROOM, source=said(["text"]))
        assert (await one.ask("PUT", "e", None, TEXT, stream_forked_from="/ws/streams/app")).status_code == 409
        await one.ask("DELETE", "a")
        assert (await one.get("a")).status_code == 410
        assert (await one.ask("PUT", "a", None, TEXT)).status_code == 409
        assert (await one.ask("PUT", "e", None, TEXT, stream_forked_from=path)).status_code == 409
        for id_ in "bcd":
            await one.ask("DELETE", id_)
        assert (await one.get("a")).status_code == 404
        await one.ask("PUT", f"r?room={ROOM}", "of a room", TEXT)
        await one.put("f", stream_forked_from="/ws/streams/r")
        assert (await one.get("f", key="")).text == "of a room"  # as the fork is, too


async def test_the_same_request_for_a_fork_finds_it_though_its_source_is_gone() -> None:
    async with site() as one:
        first = await one.put("a", "one ")
        fork = {"stream_forked_from": "/ws/streams/a", "stream_fork_offset": first}
        await one.put("b", "own", **fork)
        await one.put("kept", **fork)
        for status in (409, 404):  # first the other fork keeps it, and then it is not there at all
            if status == 404:
                await one.ask("DELETE", "kept")
                async with site() as other:
                    assert (await other.ask("PUT", "b", None, TEXT, **fork)).status_code == 404
            await one.ask("DELETE", "a")
            answer = await one.ask("PUT", "b", "own", TEXT, **fork)
            assert (answer.status_code, answer.headers["stream-next-offset"][:16]) == (200, f"{7:016d}")
            assert "location" not in answer.headers
            for more in (
                {"stream_fork_offset": "-1"},
                {"stream_ttl": "60"},
                {"stream_closed": "true"},
                {"type_": JSON},
                {"stream_forked_from": "/ws/streams/kept"},
            ):
                assert (await one.ask("PUT", "b", "own", **{"type_": TEXT, **fork, **more})).status_code >= 400, more
            assert (await one.get("b")).text == "one own"
        assert (await one.ask("PUT", "c", None, TEXT, **fork)).status_code == 409


@pytest.mark.parametrize("path", ["/ws", "/api/streams/ws", "/streams", "/ws/{tenant}", "/"])
async def test_a_fork_is_of_a_stream_that_has_the_path_of_the_request(path: str) -> None:
    async with site(path=path) as one:
        base = path.replace("{tenant}", "shop").rstrip("/")
        async with client(one.address) as http:

            async def fork(source: str, id_: str, host: str = "") -> int:
                headers = {**WITH_KEY, "content-type": TEXT, "stream-forked-from": source}
                headers |= {"host": host} if host else {}
                answer = await http.put(f"{base}/streams/{id_}", headers=headers)
                if answer.status_code == 201:
                    assert (await http.get(f"{base}/streams/{id_}", headers=WITH_KEY)).text == "text"
                return answer.status_code

            for id_ in ("src", "of/streams/one%3F"):
                await read_at(http, f"{base}/streams/{id_}")
                own = f"{base}/streams/{id_}"
                forms = [own, f"{own}?room=x", f"{one.address.http}{own}", f"HTTP://APP.example{own}"]
                for number, source in enumerate(forms):
                    host = "app.example" if "example" in source else ""
                    assert await fork(source, f"{id_}-{number}/fork", host) == 201, source
                for source in (
                    f"http://evil.example{own}",
                    f"//evil.example{own}",
                    f"http://user@127.0.0.1{own}",
                    f"http://[{own}",
                    f"/other{own}",
                    f"/x{own[1:]}",
                    own[1:],
                    f"{base}/stream/{id_}",
                ):
                    assert await fork(source, "refused") == 400, source
            for id_ in ("", "%00fsrc", "x" * 257):
                assert await fork(f"{base}/streams/{id_}", "refused") == 400
            assert await fork(f"{base}/streams/none", "refused") == 404


async def test_a_fork_behind_a_proxy_that_strips_is_of_the_path_that_clients_see() -> None:
    broker = Broker(settings(api_keys=KEY))
    app = application()
    broker.attach(app)
    async with serve(app, root_path="/api") as address, client(address) as http:
        await http.put("/ws/streams/a", content=b"text", headers={**WITH_KEY, "content-type": TEXT})
        for source, status in (("/api/ws/streams/a", 201), ("/ws/streams/a", 400), ("/other/ws/streams/a", 400)):
            headers = {**WITH_KEY, "stream-forked-from": source}
            assert (await http.put("/ws/streams/b", headers=headers)).status_code == status, source


async def test_brokers_of_one_application_fork_their_own_streams_only() -> None:
    app = Starlette()
    async with Broker(settings(api_keys=KEY)) as one, Broker(settings(api_keys=KEY)) as two:
        app.mount("/one", WebSocketApp(one))
        app.mount("/two", WebSocketApp(two))
        async with serve(app) as address, client(address) as http:
            await read_at(http, "/one/streams/a")
            await read_at(http, "/two/streams/a")
            headers = {**WITH_KEY, "stream-forked-from": "/one/streams/a"}
            assert (await http.put("/one/streams/b", headers=headers)).status_code == 201
            assert (await http.put("/two/streams/b", headers=headers)).status_code == 400


# --- limits


async def test_a_body_is_no_larger_than_a_message_said_or_not() -> None:
    """WS_MAX_MESSAGE_SIZE."""
    async with site(max_message_size=1000) as one:

        async def chunks(count: int) -> AsyncIterator[bytes]:
            for _ in range(count):
                yield b"x" * 100

        assert (await one.ask("PUT", "a", b"x" * 1001, TEXT)).status_code == 413
        assert (await one.get("a")).status_code == 404
        await one.put("a", b"x" * 1000)
        for count, status in ((11, 413), (10, 204)):
            answer = await one.http.post(
                "/ws/streams/a", content=chunks(count), headers={**WITH_KEY, "content-type": TEXT}
            )
            assert answer.status_code == status
        assert len((await one.get("a")).content) == 2000
        async with raw(one.address) as connection:
            await connection.say(
                b"POST /ws/streams/a HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\ncontent-type: text/plain\r\n"
                b"content-length: 999999999999\r\n\r\n" % KEY.encode()
            )
            assert (await connection.head())[0] == 413  # before any of it came


async def test_a_stream_is_no_larger_than_it_may_be() -> None:
    async with site(stream_max_size=1000) as one:
        assert (await one.ask("PUT", "a", b"x" * 1001, TEXT)).status_code == 413
        await one.put("a", b"x" * 850)
        answer = await one.ask("POST", "a", b"x" * 50, TEXT)
        assert (answer.status_code, "WS_STREAM_MAX_SIZE" in answer.text) == (413, True)


async def test_a_body_that_never_ends_is_given_up() -> None:
    async with site(message_timeout=0.1) as one, raw(one.address) as connection:
        await one.put("a")
        await connection.say(
            b"POST /ws/streams/a HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\ncontent-type: text/plain\r\n"
            b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n" % KEY.encode()
        )
        assert (await connection.head())[0] == 408
        assert (await one.get("a")).text == ""
        async with raw(one.address) as another:
            await another.say(
                b"POST /ws/streams/a HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\ncontent-type: text/plain\r\n"
                b"content-length: 10\r\n\r\nx" % KEY.encode()
            )
        assert (await one.get("a")).text == ""  # it has gone, and was no whole body


async def test_who_asks_too_often_waits_and_programs_do_not() -> None:
    async with site(guarded, rate_limit=0.05, rate_burst=3) as one:
        await one.ask("PUT", "a?room=of:ann", "x", TEXT)
        await one.ask("PUT", "b?room=of:bob", "x", TEXT)
        statuses = [(await one.get("a?user=ann", key="")).status_code for _ in range(5)]
        assert statuses == [200] * 3 + [429] * 2
        refused = await one.get("a?user=ann", key="")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "RATE_LIMITED"
        assert (await one.get("b?user=bob", key="")).status_code == 200  # another user
        assert {(await one.get("a")).status_code for _ in range(20)} == {200}


async def test_rates_are_known_of_so_many_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_access, "MOST_READERS", 3)
    broker = Broker(settings(rate_limit=1000, rate_burst=1000))
    guarded(broker)
    app = WebSocketApp(broker)
    async with serve(app) as address, client(address) as http:
        for number in range(10):
            for each in (0, number):  # one that comes often is not forgotten for it
                assert (await http.get(f"/streams/a?user={each}")).status_code == 404
        assert list(app._streams._access._rates) == ["user 8", "user 0", "user 9"]


async def test_a_thousand_long_polls_of_one_client_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_endpoint, "LONG_POLL", 6 * DEADLINE)
    most = stream_endpoint.MOST_WAITING
    async with site(guarded, rate_limit=0, max_connections=400) as one, AsyncExitStack() as stack:
        offset = (await one.ask("PUT", "a?room=of:ann", "x", TEXT)).headers["stream-next-offset"]
        await one.ask("PUT", "b?room=of:bob", "x", TEXT)
        request = f"GET /ws/streams/a?user=ann&offset={offset}&live=long-poll HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        heads = []
        for _ in range(1000):
            poll = await stack.enter_async_context(raw(one.address))
            await poll.say(request)
            heads.append(asyncio.create_task(poll.head(within=6 * DEADLINE)))
        await eventually(lambda: sum(head.done() for head in heads) == 1000 - most, within=3 * DEADLINE)
        assert {head.result()[0] for head in heads if head.done()} == {429}
        assert one.waiting == most
        assert (await one.get("b?user=bob", key="")).text == "x"
        waiting = asyncio.create_task(one.get("b?user=bob&offset=now&live=long-poll", key=""))
        await eventually(lambda: one.waiting == most + 1)
        async with one.address.connect("/ws?user=bob"):  # and a place for a connection
            await one.post("b", "y")
            assert (await waiting).text == "y"
        await one.post("a", "y")
        statuses = [status for status, _ in await asyncio.gather(*heads)]
        assert statuses.count(200) == most
        await eventually(lambda: one.waiting == 0)


async def test_open_answers_count_as_connections() -> None:
    async with site(max_connections_per_ip=1) as one:
        await one.put("a", "x")
        async with one.events("a") as events:
            await events.pair()
            async with one.events("a") as more:
                assert more.response.status_code == 503
            assert (await one.get("a?offset=now&live=long-poll")).headers["retry-after"] == "1"
            assert (await one.get("a")).text == "x"
        await eventually(lambda: one.waiting == 0)  # as it has gone
        async with one.events("a") as events:
            assert (await events.pair())[0] == "x"


@pytest.mark.usefixtures("unhurried")
async def test_a_stream_with_a_time_does_not_end_under_who_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_time_of(asyncio.get_running_loop(), monkeypatch)
    async with site() as one:
        streams = one.broker.node.streams
        assert streams is not None
        renewed: list[str] = []
        renew = streams.kept.renew

        async def counted(stream: Summary) -> None:
            await renew(stream)
            renewed.append(stream.id)

        monkeypatch.setattr(streams.kept, "renew", counted)
        offset = await one.put("polled", "x", stream_ttl="1")
        await one.put("a", "x", stream_ttl="1")
        polled = asyncio.create_task(one.get(f"polled?offset={offset}&live=long-poll"))
        async with one.events("a") as events:
            assert (await events.pair())[0] == "x"
            for id_ in ("a", "polled"):
                await eventually(lambda id_=id_: renewed.count(id_) > 6)  # type: ignore[misc] # in 1.5 seconds
                await one.post(id_, "y")
            assert (await events.pair())[0] == "y"
            assert (await polled).text == "y"


async def test_who_goes_leaves_nothing_behind(kind: ServerKind) -> None:
    async with site(kind=kind) as one:
        await one.put("a", "x")
        for query in ("offset=now&live=sse", "offset=now&live=long-poll"):
            async with raw(one.address) as connection:
                await connection.say(
                    b"GET /ws/streams/a?%b HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n"
                    % (query.encode(), KEY.encode())
                )
                await eventually(lambda: one.waiting == 1)
            await eventually(lambda: one.waiting == 0)
        await eventually(lambda: all(task.get_name() != "velocity-ws stream reader" for task in asyncio.all_tasks()))


# --- attackers


@pytest.mark.parametrize(
    "id_",
    [
        "%E2%82%AC%F0%9D%84%9E", "a%0d%0aset-cookie:%20x=y", "%0a", "a/b/c", "a%2Fb", "a//b",
        "..%5c", "a%20b", "%25", "a%3Fb", "a%23b", "%22%3E%3Cscript%3E", "streams%2Fstreams", "x" * 250, "%7F%01",
    ],
)  # fmt: skip
async def test_an_id_may_have_any_characters_and_is_the_same_everywhere(id_: str, kind: ServerKind) -> None:
    async with site(kind=kind) as one:
        answer = await one.ask("PUT", id_, "text", TEXT)
        assert answer.status_code == 201
        assert "set-cookie" not in answer.headers
        assert (await one.get(id_)).text == "text"
        location = answer.headers["location"]
        assert (await one.http.get(location, headers=WITH_KEY)).text == "text"
        decoded = httpx.URL(f"http://x/{id_}").path[1:]
        assert (await one.broker.streams.read(decoded)).content == b"text"
        assert (await one.ask("DELETE", id_)).status_code == 204


@pytest.mark.parametrize("id_", ["", "x" * 251, "%00fa", "a%00"])
async def test_an_id_that_cannot_be_is_refused(id_: str) -> None:
    async with site() as one:
        for method in ("PUT", "GET", "POST", "DELETE", "HEAD"):
            status = (await one.ask(method, id_, b"x" if method in ("PUT", "POST") else None, TEXT)).status_code
            assert status in (400, 404), method
        assert one.broker.get_stats().errors == 0


@pytest.mark.parametrize("room", ["%0d%0a", "x" * 256, "%E2%82%AC", "*", "chat.*", "%00", "a%2Fb", ">", "chat:7%20"])
async def test_a_room_may_have_any_name_and_is_only_its_own(room: str) -> None:
    async with site(chat) as one, one.address.connect("/ws?user=ann") as peer:
        await join(peer)
        answer = await one.ask("PUT", f"other?room={room}", "not for chat 7", TEXT)
        assert answer.status_code == 201
        await one.ask("PUT", f"a?room={ROOM}", "for it", TEXT)
        assert (await Reading("a").follow(peer, 6)).text == "for it"
        assert (await one.get("other", key="")).status_code == (404 if room != "chat:7%20" else 200)


@pytest.mark.parametrize("room", ["x" * 257, "%ed%a0%80", "a&room=b"])
async def test_a_room_that_cannot_be_is_refused(room: str) -> None:
    async with site(chat) as one:
        answer = await one.ask("PUT", f"a?room={room}", "x", TEXT)
        assert answer.status_code in (201, 400)
        assert (answer.status_code == 201) == (room == "%ed%a0%80")  # it comes as replacement characters


@pytest.mark.parametrize(
    "offset", ["9" * 16 + "_" + "f" * 16, "0" * 15 + "1_" + "f" * 16, "%00", "%0d%0a", "-2", "1" * 9000]
)
@pytest.mark.parametrize("live", ["", "&live=sse", "&live=long-poll"])
async def test_a_forged_offset_is_refused(offset: str, live: str) -> None:
    async with site() as one:
        await one.put("a", "text")
        answer = await one.get(f"a?offset={offset}{live}")
        assert answer.status_code == 400
        assert len(answer.content) < 1000
        assert answer.json()["code"] == "INVALID"


async def test_headers_that_are_large_or_broken_do_no_harm() -> None:
    async with site() as one:
        await one.put("a", "text")
        assert (await one.get("a", last_event_id="x" * 10_240)).text == "text"
        for name, value in (
            (b"last-event-id", b"\xff\x00" * 10), (b"stream-closed", b"true\rx: y"), (b"content-type", b"text/\nplain"),
            (b"producer-id", b"\x01"), (b"origin", b"x\r y"),
        ):  # fmt: skip
            async with raw(one.address) as connection:
                await connection.say(
                    b"POST /ws/streams/a HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n%b: %b\r\ncontent-length: 1\r\n\r\nx"
                    % (KEY.encode(), name, value)
                )
                assert (await connection.head())[0] in (400, 409)
        for host in (b"evil\r\nx: y", b"e vil", b"", b"\xff", b"a,b"):
            async with raw(one.address) as connection:
                await connection.say(
                    b"PUT /ws/streams/h HTTP/1.1\r\nhost: %b\r\nx-api-key: %b\r\ncontent-length: 0\r\n\r\n"
                    % (host, KEY.encode())
                )
                status, head = await connection.head()
                assert status in (200, 201, 400)
                assert "\r\nx: y" not in head
        many = ", ".join(f'"{number}"' for number in range(1000))
        assert (await one.get("a", if_none_match=many)).status_code == 200
        assert (await one.get("a")).text == "text"


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "PROPFIND", "ET", "E", "P", "T", ",", "DELET", "ELETE", "get"])
@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_no_other_method_does_anything(method: str, parser: str) -> None:
    broker = Broker(settings(api_keys=KEY))
    async with running(broker, http=parser) as address, client(address) as http, raw(address) as connection:
        one = Site(broker, address, http)
        await one.put("a", "text")
        await connection.say(
            b"%b /ws/streams/a HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n" % (method.encode(), KEY.encode())
        )
        assert (await connection.head())[0] in (400, 405)
        assert (await one.get("a")).text == "text"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/streams/a", 200), ("/ws//streams/a", 200), ("/ws/streams//a", 404), ("/ws/streams/a/", 404),
        ("/ws/streams/./a", 404), ("/ws/streams/../streams/a", 404), ("//ws/streams/a", 404), ("/WS/streams/a", 404),
        ("/ws/Streams/a", 404), ("/streams/a", 404), ("/ws/x/streams/a", 404), ("/ws/streams", 404),
        ("/ws/streams/", 400),
        ("/ws%2Fstreams/a", 200), ("/ws/streams%2Fa", 200), ("/ws/streams/a%00", 400),
    ],
)  # fmt: skip
async def test_paths_lead_to_one_stream_or_none(path: str, status: int) -> None:
    async with site() as one, raw(one.address) as connection:
        await one.put("a", "text")
        await connection.say(b"GET %b HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n" % (path.encode(), KEY.encode()))
        assert (await connection.head())[0] == status


# --- where it is


async def read_at(http: httpx.AsyncClient, path: str) -> tuple[str, str]:
    """Write a stream at a path, and read it where the answer says; what it has, and where that is."""
    answer = await http.put(path, content=b"text", headers={**WITH_KEY, "content-type": TEXT})
    assert answer.status_code == 201, answer.text
    found = answer.headers["location"]
    return (await http.get(found, headers=WITH_KEY)).text, httpx.URL(found).raw_path.decode()


async def own_page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"the application's {request.scope['path']}")


@pytest.mark.parametrize("path", ["/streams", "/ws/{tenant}", "/{tenant}", "/", "/a/b/"])
async def test_streams_are_below_the_path_of_the_endpoint(path: str) -> None:
    async with site(path=path) as one:
        base = path.replace("{tenant}", "shop").rstrip("/")
        async with client(one.address) as http:
            assert await read_at(http, f"{base}/streams/a") == ("text", f"{base}/streams/a")
            assert await read_at(http, f"{base}/streams/streams/x") == ("text", f"{base}/streams/streams/x")
            assert (await http.get(f"{base}/elsewhere/a", headers=WITH_KEY)).status_code == 404


def application() -> FastAPI:
    return FastAPI(routes=[Route(path, own_page) for path in ("/streams/own", "/ws/streams/own", "/plain")])


async def test_streams_are_found_in_every_way_of_mounting_it() -> None:
    broker = Broker(settings(api_keys=KEY))
    sub, at_root = FastAPI(), Starlette(routes=[Route("/plain", own_page)])
    broker.attach(sub)
    broker.attach(at_root, "/")
    app = application()
    broker.attach(app)
    app.mount("/sub", sub)
    app.mount("/root", at_root)
    app.mount("/mounted", WebSocketApp(broker))
    app.mount("/nested", Starlette(routes=[Mount("/deep", WebSocketApp(broker))]))
    async with serve(app) as address, client(address) as http:
        for base in ("/ws", "/sub/ws", "/root", "/mounted", "/nested/deep"):
            assert await read_at(http, f"{base}/streams/at{base}") == ("text", f"{base}/streams/at{base}")
        assert (await http.get("/plain")).text == "the application's /plain"
        assert (await http.get("/root/plain")).text == "the application's /root/plain"
        assert (await http.get("/streams/own")).text == "the application's /streams/own"
        assert (await http.get("/ws/streams/own", headers=WITH_KEY)).status_code == 404  # below the endpoint


@pytest.mark.parametrize("path", ["/", "/{tenant}"])
async def test_an_application_s_own_routes_come_first_where_the_path_is_wide(path: str) -> None:
    broker = Broker(settings(path=path, api_keys=KEY))
    app: ASGIApp = WebSocketMiddleware(application(), broker)
    base = "" if path == "/" else "/ws"
    async with serve(app) as address, client(address) as http:
        assert (await http.get(f"{base}/streams/own", headers=WITH_KEY)).text == f"the application's {base}/streams/own"
        assert (await read_at(http, f"{base}/streams/a"))[0] == "text"
        big = b"x" * 100_000
        answer = await http.put(f"{base}/streams/b", content=big, headers={**WITH_KEY, "content-type": TEXT})
        assert answer.status_code == 201
        assert (await http.get(f"{base}/streams/b", headers=WITH_KEY)).content == big
        offset = answer.headers["stream-next-offset"]
        waiting = asyncio.create_task(http.get(f"{base}/streams/a?offset=now&live=long-poll", headers=WITH_KEY))
        await eventually(lambda: broker.node.connection_limits._total == 1)
        await http.post(f"{base}/streams/a", content=b"!", headers={**WITH_KEY, "content-type": TEXT})
        assert (await waiting).text == "!"
        assert offset


async def test_a_reader_that_goes_is_no_fault_of_middleware_around_it(caplog: pytest.LogCaptureFixture) -> None:
    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    broker = Broker(settings(api_keys=KEY))
    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)])
    broker.attach(app)
    async with serve(app) as address, client(address) as http:
        one = Site(broker, address, http)
        offset = await one.put("a")
        for live in ("long-poll", "sse"):
            async with raw(address) as connection:
                path = f"/ws/streams/a?offset={offset}&live={live}"
                await connection.say(f"GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
                await eventually(lambda: one.waiting == 1)
            await eventually(lambda: one.waiting == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_our_server_ends_what_is_open_when_it_stops() -> None:
    broker = Broker(settings(api_keys=KEY))
    server = Server(broker, port=0)
    async with AsyncExitStack() as stack:
        await server.__aenter__()
        address = Address(server.port)
        http = await stack.enter_async_context(client(address))
        one = Site(broker, address, http)
        await one.put("a", "text")
        events = await stack.enter_async_context(one.events("a"))
        await events.pair()
        began = time.monotonic()
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        assert await events.next() is None
        async with asyncio.timeout(DEADLINE):
            await stopping
        assert time.monotonic() - began < beside_others(5)


# --- several nodes, and an engine that is away


@pytest_asyncio.fixture(params=KINDS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Site]]:
    """Two nodes on each engine, and a client of each."""
    async with AsyncExitStack() as stack:
        if request.param == "nats":
            url = (await stack.enter_async_context(storing(tmp_path))).url
        else:
            url = await stack.enter_async_context(engine_url(request.param))
        values: dict[str, Any] = {"api_keys": KEY, "backplane_timeout": 5}
        found = await stack.enter_async_context(nodes(url, prepare=chat, **values))
        https = [await stack.enter_async_context(client(node.address)) for node in found]
        yield [Site(node.broker, node.address, http) for node, http in zip(found, https, strict=True)]


async def test_what_one_node_writes_is_read_at_another(pair: list[Site]) -> None:
    one, two = pair
    await one.put("a")
    async with two.events("a") as events, two.address.connect("/ws?user=ann") as peer:
        await events.pair()
        await join(peer)
        for number in range(50):
            await pair[number % 2].post("a", f"{number},")
        await one.ask("POST", "a", None, None, **CLOSED)
        parts, control = await events.all()
        assert "".join(parts) == "".join(f"{number}," for number in range(50))
        assert control["streamEnd"] == "done"
        await one.ask("PUT", f"t?room={ROOM}", "to ", TEXT)
        await two.post("t", "members")
        await one.ask("POST", "t", None, None, **CLOSED)
        assert (await Reading("t").follow(peer)).text == "to members"


async def test_what_many_write_at_two_nodes_is_there_once(pair: list[Site]) -> None:
    await pair[0].put("a")

    async def write(name: str) -> None:
        for number in range(10):
            said = {"producer_id": name, "producer_epoch": "0", "producer_seq": str(number)}
            both = [one.ask("POST", "a", f"{name}{number},", TEXT, **said) for one in pair]
            statuses = sorted(answer.status_code for answer in await asyncio.gather(*both))
            assert statuses == [200, 204]

    await asyncio.gather(*map(write, "pqrs"))
    found = (await pair[1].get("a")).text.removesuffix(",").split(",")
    assert sorted(found) == sorted(f"{name}{number}" for name in "pqrs" for number in range(10))
    for name in "pqrs":
        assert [each for each in found if each[0] == name] == [f"{name}{number}" for number in range(10)]


async def test_streams_are_deleted_begun_anew_forked_and_stopped_on_every_engine(pair: list[Site]) -> None:
    one, two = pair
    for number in range(3):
        await one.put("a", f"old {number}")
        async with two.events("a") as events:
            assert (await events.pair())[0] == f"old {number}"
            await one.ask("DELETE", "a")
            assert (await events.all())[1]["streamEnd"] == "cancelled"
        assert (await two.get("a")).status_code == 404
    await one.put("a", "one ")
    await two.put("b", "own", stream_forked_from="/ws/streams/a")
    assert (await one.get("b")).text == "one own"
    await one.ask("DELETE", "a")
    assert [(await each.get("a")).status_code for each in pair] == [410, 410]
    await two.ask("DELETE", "b")
    assert [(await each.get("a")).status_code for each in pair] == [404, 404]
    offset = (await one.ask("PUT", f"r?room={ROOM}", "text", TEXT)).headers["stream-next-offset"]
    assert await two.broker.streams.cancel("r")
    closed = await one.get(f"r?offset={offset}")
    assert (closed.status_code, closed.headers["stream-end"]) == (200, "cancelled")
    assert (await one.ask("POST", "r", "x", TEXT)).status_code == 409
    assert (await one.ask("DELETE", "r")).status_code == 204
    await one.put("t", "text", stream_ttl="1")
    async with asyncio.timeout(DEADLINE):
        while await _is_there(two, "t"):
            await asyncio.sleep(0.05)  # the pause between two looks, which are no reads
    assert (await one.get("t")).status_code == 404


async def _is_there(one: Site, id_: str) -> bool:
    streams = one.broker.node.streams
    assert streams is not None
    try:
        await streams.forks.find(id_)
    except Problem:
        return False
    return True


async def test_what_an_engine_cannot_do_now_is_to_be_tried_again() -> None:
    async with engine_url("memory") as url:
        broker = Broker(settings(backplane_url=url, api_keys=KEY))
        async with running(broker, "ours") as address, client(address) as http:
            one = Site(broker, address, http)
            await one.put("a", "text")
            streams = broker.node.streams
            assert streams is not None
            await streams._link.stop()
            for method in ("GET", "PUT", "POST", "DELETE"):
                answer = await one.ask(method, "a", b"x" if method == "POST" else None, TEXT)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
