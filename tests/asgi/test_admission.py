"""How a handshake is decided in time, whatever the transport does; what is refused and why is tested over servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tests.support import DEADLINE, settings
from tests.support.local import LocalTransport
from velocity_ws import Broker, Reject
from velocity_ws.asgi.admission import Admission
from velocity_ws.sessions.session import Session


class Reluctant(LocalTransport):
    """A transport that takes its time, or has lost its client."""

    accepts_at_once = False

    def __init__(self, on_accept: str = "", on_refuse: str = "", accepted_at: float | None = None) -> None:
        super().__init__()
        self.on_accept = on_accept
        self.on_refuse = on_refuse
        self.accepted_at = accepted_at
        self.subprotocols: list[str | None] = []

    async def accept(self, subprotocol: str | None) -> None:
        self.subprotocols.append(subprotocol)
        await self._do(self.on_accept)
        await super().accept(subprotocol)

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
