"""What every `Transport` does for a session; one of them is no WebSocket, and `sessions/` does not know it."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import DEADLINE, Address, Peer, ServerKind, eventually, running, settings
from tests.support.local import LocalTransport
from velocity_ws import Broker, Client, Close, Message, Reject
from velocity_ws.asgi.admission import Admission
from velocity_ws.asgi.app import serve_client

QUEUE = 64 * 1024
CHUNK = "x" * 16_000


class Refused(Exception):
    """The handshake was refused."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Caller(ABC):
    """The client's end of a transport."""

    @abstractmethod
    async def say(self, message: str) -> None:
        """Send a text message."""

    @abstractmethod
    async def take(self) -> str | bytes | Close:
        """The next message, or how the connection ended."""

    @abstractmethod
    async def leave(self) -> None:
        """Close in good order."""

    @abstractmethod
    def drop(self) -> None:
        """Be gone, without a word."""

    async def send(self, event: str, data: Any = None, **more: Any) -> None:
        await self.say(json.dumps({"event": event, "data": data, **more}))

    async def receive(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            message = await self.take()
        return json.loads(message) if isinstance(message, str) else message

    async def expect(self, event: str) -> Any:
        message = await self.receive()
        assert isinstance(message, dict), message
        assert message["event"] == event, message
        return message["data"]

    async def ended(self) -> tuple[int, str]:
        """Take what still comes; the code and the reason of the end."""
        while not isinstance(message := await self.receive(), Close):
            pass
        return message.code, message.reason


class Site(ABC):
    """Where a broker is served."""

    @abstractmethod
    def call(self, origin: str | None = None) -> Any:
        """Connect; raises `Refused`."""


class SocketCaller(Caller):
    """A WebSocket of the `websockets` library."""

    def __init__(self, peer: Peer) -> None:
        self.ws = peer.ws

    async def say(self, message: str) -> None:
        await self.ws.send(message)

    async def take(self) -> str | bytes | Close:
        try:
            return await self.ws.recv()
        except ConnectionClosed:
            return Close(self.ws.close_code or 1006, self.ws.close_reason or "", "server")

    async def leave(self) -> None:
        await self.ws.close()

    def drop(self) -> None:
        self.ws.transport.abort()


class SocketSite(Site):
    """A real server, with its own class or with ASGI's events."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @asynccontextmanager
    async def call(self, origin: str | None = None) -> AsyncIterator[Caller]:
        # What it does not read is to fill what lies between, and so is neither compressed nor read ahead.
        try:
            async with self.address.connect(origin=origin, compression=None, max_queue=1) as peer:
                yield SocketCaller(peer)
        except InvalidStatus as error:
            raise Refused(error.response.status_code, error.response.body.decode()) from None


class LocalCaller(Caller):
    """A client of this process."""

    def __init__(self, transport: LocalTransport) -> None:
        self.transport = transport

    async def say(self, message: str) -> None:
        await self.transport.up.put(message)

    async def take(self) -> str | bytes | Close:
        return await self.transport.take()

    async def leave(self) -> None:
        self.transport.hang_up(Close(1000, "", "client"))

    def drop(self) -> None:
        self.transport.hang_up(Close(1006, "", "network"))


class LocalSite(Site):
    """No server at all: what admits and serves clients is called with `LocalTransport`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.admission = Admission(broker.node)

    @asynccontextmanager
    async def call(self, origin: str | None = None) -> AsyncIterator[Caller]:
        headers = [(b"host", b"example.com"), *([] if origin is None else [(b"origin", origin.encode())])]
        scope = {"type": "http", "path": "/", "query_string": b"", "headers": headers, "client": ("192.0.2.1", 1)}
        transport = LocalTransport()
        call = serve_client(self.broker.node, self.admission, HTTPConnection(scope), transport)
        task = asyncio.create_task(call)
        try:
            if (reject := await transport.answer) is not None:
                raise Refused(reject.code or reject.status, reject.reason)
            yield LocalCaller(transport)
            transport.hang_up(Close(1000, "", "client"))
        finally:
            await task


KINDS: tuple[ServerKind | None, ...] = ("ours", "websockets-sansio", "hypercorn", None)


@asynccontextmanager
async def site(broker: Broker, kind: ServerKind | None) -> AsyncIterator[Any]:
    """Serve a broker on a server, or without one."""
    if kind is not None:
        async with running(broker, kind) as address:
            yield SocketSite(address)
    else:
        async with broker:
            yield LocalSite(broker)


@pytest.fixture(params=KINDS, ids=lambda kind: kind or "in-process")
def kind(request: pytest.FixtureRequest) -> ServerKind | None:
    """What carries the clients of a test."""
    value: ServerKind | None = request.param
    return value


class App:
    """A broker whose hooks note what they are told."""

    def __init__(self, **values: Any) -> None:
        self.broker = Broker(settings(**values))
        self.told: list[str] = []
        self.closes: list[Close] = []
        self.broker.on_connect(self.came)
        self.broker.on_disconnect(self.went)
        self.broker.on("echo")(self.echo)
        self.broker.on_message(self.heard)

    async def came(self, client: Client) -> None:
        await asyncio.sleep(0)
        self.told.append("came")

    async def went(self, client: Client, close: Close) -> None:
        self.told.append("went")
        self.closes.append(close)

    async def heard(self, client: Client, message: Message) -> None:
        self.told.append(f"heard {message.data}")

    async def echo(self, data: Any) -> Any:
        await asyncio.sleep(0)
        return data

    @property
    def client(self) -> Client:
        (client,) = self.broker.get_clients()
        return client


async def test_hooks_run_around_the_messages(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place:
        async with place.call() as caller:
            await caller.send("echo", 1, id=1)
            assert await caller.expect("reply") == 1
            assert app.client.is_connected
            await caller.leave()
            await eventually(lambda: app.closes)
        assert app.told == ["came", "heard 1", "went"]
        if kind != "hypercorn":  # which does not pass on the client's code
            assert (app.closes[0].code, app.closes[0].by) == (1000, "client")
        assert not app.broker.get_clients()
        await eventually(lambda: app.broker.node.connection_limits.is_empty)


async def test_messages_are_handled_in_order_however_many_wait(kind: ServerKind | None) -> None:
    app = App(read_buffer_size=1024, rate_limit=0)
    async with site(app.broker, kind) as place, place.call() as caller:

        async def say_all() -> None:
            for number in range(300):
                await caller.send("echo", number, id=number)

        saying = asyncio.create_task(say_all())
        assert [await caller.expect("reply") for _ in range(300)] == list(range(300))
        await saying


async def test_what_others_send_reaches_it(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place, place.call() as caller, place.call() as other:
        await eventually(lambda: len(app.broker.get_clients()) == 2)
        first, second = app.broker.get_clients()
        await app.broker.join_room(first.id, "room")
        assert await app.broker.broadcast("to all", 1) == 2
        assert await app.broker.to_room("room").send("to the room", 2) == 1
        assert await first.send("to one", 3)
        assert await first.send_bytes(b"\x00\xff")
        assert await other.expect("to all") == 1
        assert [await caller.expect(event) for event in ("to all", "to the room", "to one")] == [1, 2, 3]
        assert await caller.receive() == b"\x00\xff"
        assert await second.send("last")
        assert await other.expect("last") is None
        stats = app.broker.get_stats()
        assert (stats.messages_sent, stats.dropped) == (6, 0)


async def test_a_client_that_does_not_read_is_bounded_and_told_why(kind: ServerKind | None) -> None:
    app = App(send_queue_size=QUEUE, ping_interval=0)
    async with site(app.broker, kind) as place, place.call() as caller, place.call() as other:
        await eventually(lambda: len(app.broker.get_clients()) == 2)
        slow, _ = app.broker.get_clients()
        sent = 0
        while await slow.send("n", CHUNK):
            sent += 1
            assert sent < 2000
            await asyncio.sleep(0)
        assert not slow.is_connected
        assert app.broker.get_stats().slow_closes == 1
        assert await app.broker.broadcast("to the other") == 1
        assert await other.expect("to the other") is None
        code, reason = await caller.ended()
        assert (code, reason) == (1013, "too slow: the send queue is full")
        await eventually(lambda: app.closes)
        assert app.closes == [Close(1013, "too slow: the send queue is full", "server")]


async def test_what_a_slow_client_misses_is_counted_for_it(kind: ServerKind | None) -> None:
    app = App(send_queue_size=QUEUE, slow_client="drop", ping_interval=0)
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(app.broker.get_clients)
        sent = 0
        while await app.client.send("n", [sent, CHUNK]):
            sent += 1
            await asyncio.sleep(0)
        assert not await app.client.send("n", [-1, CHUNK])
        assert [(await caller.expect("n"))[0] for _ in range(sent)] == list(range(sent))
        assert await caller.expect("gap") == {"dropped": 2}
        assert await app.client.send("after")
        assert await caller.expect("after") is None


async def test_who_sends_much_waits_for_a_client_that_reads(kind: ServerKind | None) -> None:
    app = App(send_queue_size=QUEUE)
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(app.broker.get_clients)
        client = app.client

        async def send_all() -> None:
            for number in range(100):
                assert await client.send("n", [number, CHUNK], wait=True)

        sending = asyncio.create_task(send_all())
        assert [(await caller.expect("n"))[0] for _ in range(100)] == list(range(100))
        await sending
        await client.drained()


async def test_a_disconnect_by_the_server_says_code_and_reason(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(app.broker.get_clients)
        client = app.client
        await client.send("last words")
        await client.disconnect(4000, "enough")
        assert not await client.send("too late")
        await caller.expect("last words")
        assert await caller.ended() == (4000, "enough")
        await eventually(lambda: app.closes)
    assert app.closes == [Close(4000, "enough", "server")]
    assert app.told == ["came", "went"]


async def test_nothing_is_handled_after_a_disconnect(kind: ServerKind | None) -> None:
    app = App()

    @app.broker.on("leave")
    async def leave(client: Client) -> None:
        await client.disconnect(4001, "bye")

    async with site(app.broker, kind) as place, place.call() as caller:
        await caller.send("leave", 1)
        await caller.send("echo", 2)
        assert await caller.ended() == (4001, "bye")
        await eventually(lambda: app.closes)
    assert app.told == ["came", "heard 1", "went"]


async def test_a_connection_that_breaks_is_told_once(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(lambda: app.told == ["came"])
        client = app.client
        caller.drop()
        await eventually(lambda: app.closes)
        assert not client.is_connected
        assert not await client.send("to nobody")
    assert app.told == ["came", "went"]
    assert app.closes == [Close(1006, "", "network")]


async def test_a_stopping_broker_says_goodbye(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(lambda: app.told == ["came"])
        stopping = asyncio.create_task(app.broker.stop())
        assert await caller.ended() == (1001, "the server is shutting down")
        async with asyncio.timeout(DEADLINE):
            await stopping
        assert app.told == ["came", "went"]
        assert (app.closes[0].code, app.closes[0].by) == (1001, "server")


async def test_a_stopping_broker_does_not_wait_for_a_client_that_does_not_read(kind: ServerKind | None) -> None:
    app = App(send_queue_size=QUEUE, slow_client="drop", drain_timeout=0.5, ping_interval=0)
    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(lambda: app.told == ["came"])
        while await app.client.send("n", CHUNK):
            await asyncio.sleep(0)
        async with asyncio.timeout(3):
            await app.broker.stop()
        assert app.told == ["came", "went"]
        assert not app.broker.node.lifecycle.sessions
        caller.drop()


async def test_a_refusal_says_status_and_reason(kind: ServerKind | None) -> None:
    app = App()

    @app.broker.authenticate
    async def authenticate(request: HTTPConnection) -> None:
        raise Reject("no seat left", status=409)

    async with site(app.broker, kind) as place:
        with pytest.raises(Refused) as caught:
            async with place.call():
                raise AssertionError("it was accepted")
        assert (caught.value.status, caught.value.reason) == (409, "no seat left")
        assert app.broker.get_stats().rejected == 1
        assert app.broker.node.connection_limits.is_empty
    assert app.told == []


async def test_who_is_let_in_is_known(kind: ServerKind | None) -> None:
    app = App()

    @app.broker.authenticate
    async def authenticate(request: HTTPConnection) -> str:
        return f"somebody at {request.headers['host']}"

    async with site(app.broker, kind) as place, place.call() as caller:
        await eventually(app.broker.get_clients)
        assert app.client.user_id is not None
        assert await app.broker.to_user(app.client.user_id).send("hello") == 1
        await caller.expect("hello")


async def test_a_page_of_another_origin_is_refused(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place:
        with pytest.raises(Refused) as caught:
            async with place.call("https://elsewhere.example"):
                raise AssertionError("it was accepted")
        assert (caught.value.status, caught.value.reason) == (403, "origin not allowed")


async def test_a_full_node_refuses(kind: ServerKind | None) -> None:
    app = App(max_connections=1)
    async with site(app.broker, kind) as place:
        async with place.call():
            with pytest.raises(Refused) as caught:
                async with place.call():
                    raise AssertionError("it was accepted")
            assert (caught.value.status, caught.value.reason) == (503, "too many connections")
        await eventually(lambda: app.broker.node.connection_limits.is_empty)
        async with place.call() as caller:
            await caller.send("echo", 1, id=1)
            assert await caller.expect("reply") == 1


async def test_a_handshake_that_takes_too_long_is_refused(kind: ServerKind | None) -> None:
    app = App(handshake_timeout=0.1)

    @app.broker.authenticate
    async def authenticate(request: HTTPConnection) -> None:
        await asyncio.Event().wait()

    async with site(app.broker, kind) as place:
        with pytest.raises(Refused) as caught:
            async with place.call():
                raise AssertionError("it was accepted")
        assert (caught.value.status, caught.value.reason) == (503, "the handshake took too long")


async def test_a_broker_that_was_stopped_refuses(kind: ServerKind | None) -> None:
    app = App()
    async with site(app.broker, kind) as place:
        await app.broker.stop()
        with pytest.raises(Refused) as caught:
            async with place.call():
                raise AssertionError("it was accepted")
        assert (caught.value.status, caught.value.reason) == (503, "not running")


async def test_a_cancelled_transport_still_tells_the_end() -> None:
    app = App()
    async with app.broker:
        transport = LocalTransport()
        request = HTTPConnection({"type": "http", "path": "/", "query_string": b"", "headers": []})
        task = asyncio.create_task(serve_client(app.broker.node, Admission(app.broker.node), request, transport))
        assert await transport.answer is None
        await eventually(lambda: app.told == ["came"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.told == ["came", "went"]
        assert app.closes == [Close(1006, "", "network")]
        assert app.broker.node.connection_limits.is_empty
