"""The HTTP class: what a connection is before its first bytes, and what makes uvicorn's of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import uvicorn
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.server import ServerState

from tests.support.library import REQUEST, Pipe
from velocity_ws.uvicorn import WebSocketProtocol
from velocity_ws.uvicorn.http import H11Protocol
from velocity_ws.uvicorn.http_guard import HTTPGuard
from velocity_ws.uvicorn.http_tools import HttpToolsProtocol


class Wire(Pipe):
    """A transport whose protocol can be changed."""

    protocol: Any

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture(params=[HttpToolsProtocol, H11Protocol], ids=["httptools", "h11"])
async def connection(request: pytest.FixtureRequest) -> HTTPGuard:
    """A connection that is there."""
    config = uvicorn.Config(app, log_config=None, ws=WebSocketProtocol)
    config.load()
    protocol: HTTPGuard = request.param(config, ServerState(), {})
    wire = Wire()
    wire.protocol = protocol
    protocol.connection_made(wire)
    assert connections_of(protocol) == [protocol]
    return protocol


def connections_of(connection: HTTPGuard) -> list[Any]:
    """Those that the server knows of."""
    return list(connection.server_state.connections)


def wire_of(connection: HTTPGuard) -> Wire:
    wire = connection.transport
    assert isinstance(wire, Wire)
    return wire


async def test_a_websocket_makes_nothing_of_uvicorns(connection: HTTPGuard) -> None:
    connection.data_received(REQUEST)
    assert not hasattr(connection, "flow")
    websocket = wire_of(connection).protocol
    assert isinstance(websocket, WebSocketProtocol)
    assert connections_of(connection) == [websocket]
    websocket.abort()


@pytest.mark.parametrize("first", [1, len(REQUEST) // 2, len(REQUEST)])
async def test_anything_else_makes_a_connection_of_uvicorns(connection: HTTPGuard, first: int) -> None:
    data = REQUEST.replace(b"Upgrade: websocket\r\n", b"")
    connection.data_received(data[:first])
    assert connection.flow is not None
    if rest := data[first:]:
        connection.data_received(rest)
    (task,) = connection.server_state.tasks
    await task
    assert wire_of(connection).written.startswith(b"HTTP/1.1 204")
    connection.connection_lost(None)
    assert not connections_of(connection)


async def test_one_that_goes_without_a_word_leaves_nothing(connection: HTTPGuard) -> None:
    connection.eof_received()
    connection.connection_lost(None)
    assert not connections_of(connection)
    assert not hasattr(connection, "flow")


async def test_one_that_said_nothing_closes_when_the_server_stops(connection: HTTPGuard) -> None:
    connection.shutdown()
    assert wire_of(connection).closing


async def test_uvicorn_logs_what_it_does_where_it_traces(caplog: pytest.LogCaptureFixture) -> None:
    config = uvicorn.Config(app, log_config=None)
    config.load()
    with caplog.at_level(TRACE_LOG_LEVEL, "uvicorn.error"):
        protocol = H11Protocol(config, ServerState(), {})
        protocol.connection_made(Wire())
        protocol.connection_lost(None)
    lines = [record.getMessage() for record in caplog.records if record.levelno < logging.DEBUG]
    assert lines == ["HTTP connection made", "HTTP connection lost"]
