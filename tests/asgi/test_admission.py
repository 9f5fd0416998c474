"""How a handshake is decided in time, whatever the transport does; what is refused and why is tested over servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Scope

from tests.support import DEADLINE, eventually, settings
from tests.support.local import LocalTransport
from velocity_ws import Broker, Reject, WebSocketApp
from velocity_ws.asgi.admission import MAX_ORIGIN_SIZE, MAX_ORIGINS, Admission
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import RawHeaders


class Reluctant(LocalTransport):
    """A transport that takes its time, or has lost its client."""

    accepts_at_once = False

    def __init__(self, on_accept: str = "", on_refuse: str = "", accepted_at: float | None = None) -> None:
        super().__init__()
        self.on_accept = on_accept
        self.on_refuse = on_refuse
        self.accepted_at = accepted_at
        self.subprotocols: list[str | None] = []

    async def accept(self, subprotocol: str | None, headers: RawHeaders) -> None:
        self.subprotocols.append(subprotocol)
        await self._do(self.on_accept)
        await super().accept(subprotocol, headers)

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        self.subprotocols.append(subprotocol)
        await self._do(self.on_refuse)
        await super().refuse(reject, subprotocol)

    async def _do(self, what: str) -> None:
        if what == "waits":
            await asyncio.Event().wait()
        elif what == "has gone":
            raise OSError(what)


async def admitted(broker: Broker, transport: LocalTransport, *subprotocols: str, full: str | None = None) -> bool:
    """Whether a client is let in."""
    scope: dict[str, Any] = {"type": "http", "path": "/", "headers": [], "subprotocols": list(subprotocols)}
    async with broker, asyncio.timeout(DEADLINE):
        session = Session(broker.node.context, HTTPConnection(scope))
        result = await Admission(broker.node).admit(session, full, transport)
        session.detach()
        return result


def said(transport: LocalTransport) -> tuple[int, str] | None:
    """Status and reason of the refusal; ``None`` where there is no answer."""
    if not transport.answer.done() or (reject := transport.answer.result()) is None:
        return None
    return reject.status, reject.reason


async def test_a_client_that_cannot_be_told_in_time_that_it_may_come_in_is_refused() -> None:
    transport = Reluctant(on_accept="waits")
    assert not await admitted(Broker(settings(handshake_timeout=0.05)), transport)
    assert said(transport) == (503, "the handshake took too long")


async def test_middleware_that_holds_an_acceptance_up_has_no_more_time_where_nothing_waited_before() -> None:
    broker = Broker(settings(handshake_timeout=0.05))

    @broker.authenticate
    async def authenticate() -> str:
        return "ann"

    transport = Reluctant(on_accept="waits")
    transport.accepts_at_once = True
    assert not await admitted(broker, transport)
    assert said(transport) == (503, "the handshake took too long")


async def test_the_deadline_counts_from_when_the_client_connected() -> None:
    broker = Broker(settings(handshake_timeout=60))

    @broker.authenticate
    async def authenticate() -> None:
        await asyncio.Event().wait()

    transport = Reluctant(accepted_at=asyncio.get_running_loop().time() - 60)
    assert not await admitted(broker, transport)
    assert said(transport) == (503, "the handshake took too long")


async def test_a_client_that_has_gone_is_not_refused() -> None:
    transport = Reluctant(on_accept="has gone")
    assert not await admitted(Broker(settings()), transport)
    assert said(transport) is None
    assert transport.subprotocols == [None]  # of the acceptance alone


@pytest.mark.parametrize("on_refuse", ["waits", "has gone"])
async def test_a_refusal_that_reaches_no_one_holds_nothing_up(on_refuse: str) -> None:
    transport = Reluctant(on_refuse=on_refuse)
    assert not await admitted(Broker(settings(handshake_timeout=0.05)), transport, full="WS_MAX_CONNECTIONS")
    assert said(transport) is None


async def test_a_stopping_broker_ends_what_a_hook_still_decides() -> None:
    broker = Broker(settings())
    asked = asyncio.Event()

    @broker.authenticate
    async def authenticate() -> None:
        asked.set()
        await asyncio.Event().wait()

    transport = LocalTransport()
    deciding = asyncio.create_task(admitted(broker, transport))
    await asked.wait()
    await broker.stop()
    assert not await deciding
    assert said(transport) == (503, "shutting down")


@pytest.mark.parametrize(("code", "selected"), [(4401, "v2"), (None, None)])
async def test_a_subprotocol_is_selected_where_a_refusal_has_a_code(code: int | None, selected: str | None) -> None:
    broker = Broker(settings(subprotocols="v1,v2"))

    @broker.authenticate
    async def authenticate() -> None:
        raise Reject("log in", code=code)

    transport = Reluctant()
    assert not await admitted(broker, transport, "v3", "v2")
    assert transport.subprotocols == [selected]


class Call:
    """A call of a broker's endpoint, as a server makes it, whose first event is late or cannot come any more."""

    def __init__(self, app: WebSocketApp, *extensions: str, has_gone: bool = False) -> None:
        self.sent: list[Message] = []
        self._has_gone = has_gone
        scope: Scope = {
            "type": "websocket", "path": "/", "query_string": b"", "headers": [], "client": ("192.0.2.1", 1),
            "extensions": {name: {} for name in extensions},
        }  # fmt: skip
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._has_gone:
            raise OSError("has gone")
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def ended(self) -> list[Message]:
        """What was sent until it returned."""
        async with asyncio.timeout(DEADLINE):
            await self.task
        return self.sent


async def test_a_request_that_never_comes_is_refused_in_time() -> None:
    broker = Broker(settings(handshake_timeout=0.05))
    app = WebSocketApp(broker)
    async with broker:
        assert await Call(app).ended() == [
            {"type": "websocket.close", "code": 1008, "reason": "the handshake took too long"}
        ]
        start, body = await Call(app, "websocket.http.response").ended()
        assert (start["status"], body["body"]) == (503, b"the handshake took too long")
        assert broker.get_stats().rejected == 2
        assert broker.node.connection_limits.is_empty


async def test_a_client_that_has_gone_before_its_request_came_is_counted() -> None:
    broker = Broker(settings())
    async with broker:
        assert await Call(WebSocketApp(broker), has_gone=True).ended() == []
        assert broker.get_stats().rejected == 1
        assert broker.node.connection_limits.is_empty


@pytest.mark.parametrize("setting", ["max_connections", "max_connections_per_ip"])
async def test_a_client_whose_request_has_not_come_is_counted_as_a_connection(setting: str) -> None:
    broker = Broker(settings(**{setting: 1}))
    app = WebSocketApp(broker)
    async with broker:
        call = Call(app)
        await eventually(lambda: not broker.node.connection_limits.is_empty)
        assert broker.node.connection_limits.count_in("192.0.2.1") == f"WS_{setting.upper()}"
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
        assert broker.node.connection_limits.is_empty


async def test_a_stopping_broker_ends_handshakes_whose_request_has_not_come() -> None:
    broker = Broker(settings())
    app = WebSocketApp(broker)
    async with broker:
        calls = [Call(app) for _ in range(3)]
        await eventually(lambda: len(broker.node.lifecycle.handshakes) == 3)
    for call in calls:
        assert await call.ended() == [{"type": "websocket.close", "code": 1008, "reason": "shutting down"}]


@pytest.mark.parametrize("has_gone", [False, True])
async def test_a_broker_that_was_stopped_refuses_although_no_request_comes(*, has_gone: bool) -> None:
    broker = Broker(settings(handshake_timeout=0.05))
    async with broker:
        pass
    call = Call(WebSocketApp(broker), has_gone=has_gone)
    assert await call.ended() == [{"type": "websocket.close", "code": 1008, "reason": "not running"}]
    assert broker.get_stats().rejected == 1


async def test_what_is_remembered_of_one_origin_lets_no_other_in() -> None:
    broker = Broker(settings())
    admission = Admission(broker.node)

    async def is_let_in(*headers: tuple[bytes, bytes]) -> bool:
        scope = {"type": "http", "path": "/", "headers": [list(header) for header in headers]}
        session = Session(broker.node.context, HTTPConnection(scope))
        transport = LocalTransport()
        result = await admission.admit(session, None, transport)
        session.detach()
        assert result == (said(transport) is None)
        return result

    async with broker:
        for _ in range(2):
            for number in range(MAX_ORIGINS + 1):  # more than are remembered
                host = b"%d.example" % number
                assert await is_let_in((b"host", host), (b"origin", b"https://" + host), (b"x-more", b"%d" % number))
            assert not await is_let_in((b"host", b"1.example"), (b"origin", b"https://2.example"))
            assert not await is_let_in((b"host", b"1.example"), (b"x-origin", b""), (b"origin", b"null"))
            twice = (b"origin", b"https://1.example")
            assert not await is_let_in((b"host", b"1.example"), twice, twice)
            assert not await is_let_in(twice)
            long = b"a." * MAX_ORIGIN_SIZE + b"example"
            assert await is_let_in((b"host", long), (b"origin", b"https://" + long))
