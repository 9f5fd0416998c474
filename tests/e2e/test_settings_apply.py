"""Each setting does what it says, on the server that applies it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate

from tests.support import DEADLINE, Address, eventually, settings
from velocity_ws import Broker, Reject, Server, SettingsError

# Tested where what they do is tested: handshake_timeout, the origins and the connection limits in test_connections;
# max_header_size and max_header_count in test_http_protocol; max_message_size, read_buffer_size and the rate limit in
# test_dispatch; send_queue_size, slow_client, socket_send_buffer and the pings in test_slow_clients; drain_timeout and
# restart_code in test_life_cycle; subprotocols in test_subprotocols; warn_message_size in test_sending;
# message_timeout and max_unfinished_size in test_unfinished.


async def test_host_and_port_and_path_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    (tmp_path / ".env").write_text("WS_PATH=/from/dotenv\nWS_HOST=127.0.0.9\n")
    monkeypatch.setenv("WS_HOST", "127.0.0.2")
    monkeypatch.setenv("WS_PORT", str(port))
    async with Server(Broker()) as server:
        assert server.port == port
        address = Address(port)
        address.ws = f"ws://127.0.0.2:{port}"
        async with address.connect("/from/dotenv"):
            pass
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def test_a_bad_variable_stops_the_program_with_its_name(tmp_path: Path) -> None:
    program = "from velocity_ws import Broker; Broker()"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "WS_PING_INTERVAL": "soon", "WS_PORT": "high"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "WS_PING_INTERVAL" in result.stderr
    assert "WS_PORT" in result.stderr
    assert "'soon'" in result.stderr


@pytest.mark.parametrize("enabled", [True, False])
async def test_compression(enabled: bool) -> None:
    broker = Broker(settings(port=0, enable_compression=enabled))
    async with Server(broker) as server, Address(server.port).connect(compression="deflate") as peer:
        deflate = [e for e in peer.ws.protocol.extensions if isinstance(e, PerMessageDeflate)]
        assert bool(deflate) is enabled


async def test_write_buffer_size_is_the_high_water_mark() -> None:
    broker = Broker(settings(port=0, write_buffer_size="48KiB"))
    async with Server(broker) as server, Address(server.port).connect():
        await eventually(broker.get_clients)
        (connection,) = server._uvicorn.server_state.connections
        assert connection.transport.get_write_buffer_limits()[1] == 48 * 1024


async def test_pings_can_be_turned_off() -> None:
    async def pings(within: float, **values: Any) -> bool:
        broker = Broker(settings(port=0, **values))
        async with Server(broker) as server, Address(server.port).connect() as peer:
            seen = asyncio.Event()
            received = peer.ws.protocol.events_received

            def watch() -> Any:
                events = received()
                if any(getattr(event, "opcode", None) == 9 for event in events):
                    seen.set()
                return events

            peer.ws.protocol.events_received = watch  # type: ignore[method-assign]
            try:
                async with asyncio.timeout(within):
                    await seen.wait()
            except TimeoutError:
                return False
            return True

    assert await pings(DEADLINE, ping_interval="20ms") is True
    assert await pings(0.3, ping_interval=0) is False


async def test_the_message_limit_holds_on_the_server_too() -> None:
    broker = Broker(settings(port=0, max_message_size="1KiB"))
    async with Server(broker) as server, Address(server.port).connect() as peer:
        await peer.ws.send("x" * 1025)
        with pytest.raises(ConnectionClosed) as caught:
            await peer.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_options_for_uvicorn_are_passed_on() -> None:
    broker = Broker(settings(port=0))
    async with Server(broker, ws="wsproto", root_path="/under") as server:
        async with Address(server.port).connect():
            await eventually(broker.get_clients)
            assert broker.get_clients()[0].request.scope["root_path"] == "/under"


async def test_no_token_in_the_servers_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    broker = Broker(settings(port=0))

    @broker.authenticate
    async def refuse(request: HTTPConnection) -> None:
        if request.query_params["token"] == "s3cret-2":
            raise Reject

    async with Server(broker) as server:
        async with Address(server.port).connect("/ws?token=s3cret-1"):
            pass
        with pytest.raises(InvalidStatus):
            async with Address(server.port).connect("/ws?token=s3cret-2"):
                pass
        await eventually(lambda: not broker.node.lifecycle.sessions)
    ours = [record for record in caplog.records if record.name.startswith(("uvicorn", "velocity_ws"))]
    assert any('"WebSocket /ws" [accepted]' in record.getMessage() for record in ours)
    assert not [record for record in ours if "s3cret" in record.getMessage()]


def test_no_backplane_of_that_name() -> None:
    with pytest.raises(SettingsError, match="WS_BACKPLANE_URL"):
        settings(backplane_url="carrier-pigeon://:s3cret@loft")
