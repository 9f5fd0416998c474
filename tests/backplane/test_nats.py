"""What NATS has beyond the contract: ways in, several servers, refusals, being cut off, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from tests.support.configured import certificates, configured
from tests.support.engines import ENGINES, Engine, engine
from tests.support.nodes import nodes, person
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.base import Leaving
from velocity_ws.backplane.nats import NatsBackplane
from velocity_ws.backplane.nats_client import NatsClient
from velocity_ws.testing import Listener
from velocity_ws.testing.listener import listening, refused

PASSWORD = "p@ss/w:o,rd%"
QUOTED = "p%40ss%2Fw%3Ao%2Crd%25"


async def works(url: str) -> None:
    async with listening(create_backplane(url), ["a"]) as listener:
        await listener.backplane.publish([("a", b"1")])
        assert await listener.messages(1) == [("a", b"1")]


async def fails(url: str) -> OSError:
    backplane = create_backplane(url)
    error = await refused(Listener(backplane).connect())
    await backplane.close()
    return error


async def test_user_and_password() -> None:
    async with configured("nats", "--user", "someone", "--pass", PASSWORD) as server:
        at = f"127.0.0.1:{server.port}"
        await works(f"nats://someone:{QUOTED}@{at}")
        assert QUOTED not in str(await fails(f"nats://{QUOTED}:{QUOTED}@{at}"))
        await fails(f"nats://{at}")


async def test_token() -> None:
    async with configured("nats", "--auth", "a token/of=ours") as server:
        at = f"127.0.0.1:{server.port}"
        await works(f"nats://a%20token%2Fof%3Dours@{at}")
        await fails(f"nats://another@{at}")


async def test_what_begins_with_the_prefix_is_all_that_a_user_has_to_be_allowed(tmp_path: Path) -> None:
    own = 'permissions: {publish: "velocity.>", subscribe: "velocity.>"}'
    (tmp_path / "nats.conf").write_text(f'authorization {{ users = [{{user: "u", password: "p", {own}}}] }}')
    async with configured("nats", "-c", str(tmp_path / "nats.conf")) as server:
        url = f"nats://u:p@127.0.0.1:{server.port}"
        async with nodes(url, 2, options={"name": "internal"}, backplane_timeout=5) as (a, b):
            async with person(b, room="x") as (peer, _):
                await a.broker.to_room("x").send("n", 1)
                assert await peer.expect("n") == 1


async def test_several_servers() -> None:
    async with engine("nats") as gone:
        pass
    async with engine("nats") as server:
        for _ in range(6):  # it begins with any of them
            await works(f"nats://127.0.0.1:{gone.port},127.0.0.1:{server.port}")
            await works(f"nats://127.0.0.1:{server.port},nats://127.0.0.1:{gone.port}")
    error = await fails(f"nats://127.0.0.1:{gone.port},127.0.0.1:{server.port}")
    assert "connect" in str(error).lower()


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = certificates(tmp_path)
    async with configured("nats", "--tls", "--tlscert", files["cert"], "--tlskey", files["key"]) as server:
        url = f"tls://127.0.0.1:{server.port}"
        await fails(url)
        monkeypatch.setenv("SSL_CERT_FILE", files["ca"])
        await works(url)
        async with listening(create_backplane(url), ["a"]) as listener:
            await server.kill()
            await listener.loss()
            assert len(listener.losses) == 1


async def test_what_is_not_allowed_raises(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(
        'authorization { users: [{user: some, password: secret, permissions: {publish: "ok", subscribe: "ok"}}] }'
    )
    async with configured("nats", "-c", str(config)) as server:
        url = f"nats://some:secret@127.0.0.1:{server.port}"
        for _ in range(10):
            async with listening(create_backplane(url), ["ok"]) as listener:
                error = await refused(listener.backplane.publish([("ok", b"1"), ("other", b"2"), ("ok", b"3")]))
                assert "permissions violation" in str(error)
                await listener.loss()
            async with listening(create_backplane(url)) as listener:
                await refused(listener.backplane.subscribe(["ok", "other"]))


async def test_the_largest_payload_is_the_servers(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 2000\n")
    async with configured("nats", "-c", str(config)) as server:
        async with listening(create_backplane(server.url), ["a"]) as listener:
            assert listener.backplane.max_payload == 2000
            await listener.backplane.publish([("a", b"x" * 2000)])
            await listener.messages(1)
            assert "payload" in str(await refused(listener.backplane.publish([("a", b"x" * 2001)])))
            await listener.loss()


async def test_a_subscriber_that_falls_behind_is_cut_off_and_told(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text('max_pending: 1MB\nwrite_deadline: "100ms"\n')
    async with configured("nats", "-c", str(config)) as server:
        async with listening(create_backplane(server.url), ["a"]) as slow:
            async with listening(create_backplane(server.url)) as other:
                wire: Any = slow.backplane
                wire = wire._client._wire
                wire.pause_reading()  # as it keeps up with what comes from the same loop
                await other.backplane.publish([("a", b"x" * 900_000)] * 60)
                wire.resume_reading()
                assert isinstance(await slow.loss(), ConnectionError)
                assert len(slow.received) < 60
                await other.backplane.publish([("a", b"still here")])


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with engine("nats") as server:
        backplane = create_backplane(server.url)
        listener = Listener(backplane)
        await listener.connect()
        await backplane.subscribe([f"a.{number}" for number in range(100)])
        assert len(asyncio.all_tasks()) - len(before) == 3, "no task for each subscription"
        await backplane.close()
        assert asyncio.all_tasks() == before
        for _ in range(2):
            await listener.connect()
            await backplane.subscribe(["a"])
            await server.kill()
            await listener.loss()
            await backplane.close()
            assert asyncio.all_tasks() == before
            await refused(listener.connect())
            await backplane.close()
            assert asyncio.all_tasks() == before
            await server.start()


def goes(server: Engine) -> None:
    """Lame duck mode: it takes no more connections, tells those it has, and ends them after 10 seconds."""
    server.process.send_signal(signal.SIGUSR2)


async def is_going(server: Engine) -> None:
    """It is in lame duck mode: until it listens no more, whoever looks for another server finds this one."""
    goes(server)
    await eventually(lambda: not _listens(server.port))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def carries(listener: Listener, *, what: bytes) -> None:
    """What is published to a topic comes back."""
    await listener.backplane.publish([("a", what)])
    await listener.up_to("a", what)


async def test_a_server_that_is_about_to_go_is_left_while_it_carries_for_another() -> None:
    async with configured("nats", "-n", "one") as one, configured("nats", "-n", "two") as two:
        backplane = NatsBackplane(f"nats://127.0.0.1:{one.port},127.0.0.1:{two.port}")
        async with listening(backplane, ["a"]) as listener:
            first = backplane.server_name
            goes(one if first == "one" else two)
            loss = await listener.loss()
            assert isinstance(loss, Leaving)
            assert first in str(loss)
            await carries(listener, what=b"still here")
            await backplane.close()
            for _ in range(5):  # it begins with any of them
                await listener.connect()
                assert backplane.server_name == ("two" if first == "one" else "one")
                await backplane.close()
            assert len(listener.losses) == 1


async def test_servers_that_are_all_about_to_go_carry_until_one_is_there_again() -> None:
    before = asyncio.all_tasks()
    async with configured("nats", "-n", "one") as one, configured("nats", "-n", "two") as two:
        backplane = NatsBackplane(f"nats://127.0.0.1:{one.port},127.0.0.1:{two.port}")
        async with listening(backplane, ["a"]) as listener, listening(NatsBackplane(one.url), ["a"]) as other:
            for server in (two, one) if backplane.server_name == "one" else (one, two):
                await is_going(server)
            await eventually(lambda: "velocity-ws nats" in {task.get_name() for task in asyncio.all_tasks()})
            await carries(other, what=b"nobody else is there")
            await carries(listener, what=b"nobody is there")
            assert listener.losses == []
            again = Engine("nats", ENGINES["nats"])
            again.port = one.port  # where the old one listens no more
            await again.start()
            try:
                assert isinstance(await listener.loss(), Leaving)
                assert isinstance(await other.loss(), Leaving)
                await backplane.close()
                await listener.connect()
                await backplane.subscribe(["a"])
                await carries(listener, what=b"it is there again")
            finally:
                await again.kill()
        assert asyncio.all_tasks() == before


async def test_a_server_that_ends_while_another_is_looked_for() -> None:
    before = asyncio.all_tasks()
    async with engine("nats") as server:
        async with listening(NatsBackplane(server.url), ["a"]) as listener:
            goes(server)
            await eventually(lambda: "velocity-ws nats" in {task.get_name() for task in asyncio.all_tasks()})
            await server.kill()
            assert not isinstance(await listener.loss(), Leaving)
            await refused(listener.backplane.publish([("a", b"1")]))
        assert asyncio.all_tasks() == before


def test_what_is_written_to_a_connection_that_has_just_ended_is_a_connection_error() -> None:
    """uvloop raises a RuntimeError for it, before anybody was told that the connection has ended."""
    uvloop = pytest.importorskip("uvloop")

    async def write() -> None:
        async with engine("nats") as server:
            client = NatsClient()
            await client.open([server.url], lambda: None, lambda _: None)
            transport: Any = client._transport
            transport._io_writer.transport.abort()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                client.write([b"PING\r\n"])
            await client.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write())


async def test_a_server_that_ends_just_after_the_login_is_lost_without_a_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"A","version":"2.11.0","proto":1,"max_payload":1048576,"headers":true}\r\n')
        while (await reader.readline())[:4] != b"PING":
            pass
        writer.write(b"PONG\r\nPING\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    backplane = NatsBackplane(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionError):
            await backplane.connect(lambda _topic, _payload: None, lost.set_result)
            await lost
    await backplane.close()
    server.close()
    await server.wait_closed()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
