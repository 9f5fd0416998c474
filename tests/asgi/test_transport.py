"""A WebSocket as ASGI's events: how a handshake is answered, how an end is told, and what middleware sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.support import SERVER_KINDS, ServerKind, eventually, serve, settings
from velocity_ws import Broker, Close, Reject, WebSocketApp
from velocity_ws.asgi.transport import EVENTS_PER_TURN, ASGITransport, send_refusal

HAS_RESPONSES: Scope = {"extensions": {"websocket.http.response": {}}}


class Inbox:
    """Takes what is fed, and is never full."""

    is_full = False

    def __init__(self) -> None:
        self.got: list[str | bytes] = []

    def feed(self, payload: str | bytes) -> bool:
        self.got.append(payload)
        return False


class Session:
    """Only what a transport feeds."""

    def __init__(self) -> None:
        self.inbox = Inbox()


def transport_of(events: Iterable[Message]) -> tuple[ASGITransport, Inbox]:
    """A transport whose server has those events ready."""
    ready = iter(events)
    session: Any = Session()

    async def receive() -> Message:
        return next(ready)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    transport = ASGITransport({"type": "websocket"}, receive, send)
    transport._session = session
    return transport, session.inbox


async def refusal(reject: Reject, scope: Scope, subprotocol: str | None = None) -> list[Any]:
    """The events that tell a refusal."""
    said: list[Any] = []

    async def send(message: Message) -> None:
        said.append(dict(message))

    await send_refusal(scope, send, reject, subprotocol)
    return said


async def test_a_refusal_is_a_response_where_the_server_has_them() -> None:
    start, body = await refusal(
        Reject("gesperrt für heute", status=423), {"extensions": {"websocket.http.response": {}}}
    )
    assert start["status"] == 423
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    assert body["body"].decode() == "gesperrt für heute"


async def test_a_refusal_with_a_code_is_an_accepted_connection_that_closes() -> None:
    scopes: list[Scope] = [{}, HAS_RESPONSES]
    for scope in scopes:
        assert await refusal(Reject("log in", code=4401), scope, "v2") == [
            {"type": "websocket.accept", "subprotocol": "v2"},
            {"type": "websocket.close", "code": 4401, "reason": "log in"},
        ]


async def test_the_headers_of_a_refusal_with_a_code_go_out_with_the_acceptance() -> None:
    accept, _ = await refusal(Reject("log in", code=4401, headers={"Set-Cookie": "t=; Max-Age=0"}), {})
    assert accept["headers"] == [(b"set-cookie", b"t=; Max-Age=0")]


async def test_any_other_refusal_is_a_close_whose_reason_fits_into_a_frame() -> None:
    (close,) = await refusal(Reject("ü" * 200), {})
    assert (close["type"], close["code"]) == ("websocket.close", 1008)
    assert close["reason"] == "ü" * 61


@pytest.mark.parametrize(
    ("event", "close"),
    [
        ({"code": 1000, "reason": "done"}, Close(1000, "done", "client")),
        ({"code": 4000}, Close(4000, "", "client")),
        ({"code": 1005, "reason": ""}, Close(1005, "", "client")),
        ({"code": 1005}, Close(1006, "", "network")),
        ({"code": None}, Close(1006, "", "network")),
        ({"code": 1006, "reason": "lost"}, Close(1006, "", "network")),
        ({"code": 1012, "reason": None}, Close(1012, "", "server")),
    ],
)
async def test_an_end_says_who_ended_it(event: dict[str, Any], close: Close) -> None:
    transport, inbox = transport_of(
        [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"b"},
            {"type": "websocket.receive", "text": None, "bytes": b"c"},
            {"type": "websocket.disconnect", **event},
        ]
    )
    assert await transport.wait_closed() == close
    assert inbox.got == ["a", b"b", b"c"]


async def test_others_get_their_turn_while_a_server_has_messages_ready() -> None:
    events: list[Message] = [{"type": "websocket.receive", "text": "x"}] * 100
    transport, inbox = transport_of([*events, {"type": "websocket.disconnect", "code": 1000}])
    seen: list[int] = []

    async def other() -> None:
        while len(inbox.got) < 100:
            seen.append(len(inbox.got))
            await asyncio.sleep(0)

    await asyncio.gather(transport.wait_closed(), other())
    assert len(seen) >= 100 // EVENTS_PER_TURN


class AddsHeader:
    """Middleware as tracing has it: adds a header to whatever answers a handshake."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_header(message: Message) -> None:
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), (b"x-trace", b"7")]
            await send(message)

        await self.app(scope, receive, send_with_header)


class WithoutResponses:
    """Middleware that takes HTTP responses out of what the server offers, and notes what passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.passed: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            self.passed.append(message)
            return message

        async def sent(message: Message) -> None:
            self.passed.append(message)
            await send(message)

        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        extensions = {name: value for name, value in scope["extensions"].items() if name != "websocket.http.response"}
        await self.app({**scope, "extensions": extensions}, received, sent)


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_refusal_has_the_form_that_middleware_leaves(kind: ServerKind) -> None:
    app = WithoutResponses(WebSocketApp(Broker(settings())))
    async with serve(app, kind) as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect(origin="https://elsewhere.example"):
                raise AssertionError("it was accepted")
        assert (caught.value.response.status_code, caught.value.response.body) == (403, b"")
        assert app.passed == [
            {"type": "websocket.connect"},
            {"type": "websocket.close", "code": 1008, "reason": "origin not allowed"},
        ]


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_middleware_sees_how_a_handshake_is_answered(kind: ServerKind) -> None:
    broker = Broker(settings(allowed_origins="https://app.example"))
    async with serve(AddsHeader(WebSocketApp(broker)), kind) as address:
        async with address.connect() as peer:
            assert peer.ws.response is not None
            assert peer.ws.response.headers["x-trace"] == "7"
            await eventually(broker.get_clients)
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect(origin="https://elsewhere.example"):
                raise AssertionError("it was accepted")
        assert caught.value.response.status_code == 403
        assert caught.value.response.headers["x-trace"] == "7"
