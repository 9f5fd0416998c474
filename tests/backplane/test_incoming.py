"""What arrives on a library's connection is given on at once, and the library is told of all else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support import DEADLINE, eventually
from velocity_ws.backplane.incoming import Incoming

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[tuple[Streams, Streams]]:
    """The streams of a client, which a library would have made, and those of its server."""
    came: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *streams: came.set_result(streams), "127.0.0.1", 0)
    client = await asyncio.open_connection(*server.sockets[0].getsockname())
    served = await came
    yield client, served
    for _, writer in (client, served):
        writer.transport.abort()
    server.close()
    await server.wait_closed()


def nothing(_: Exception) -> None:
    raise AssertionError("it failed")


async def test_what_arrives_is_given_on_and_the_library_reads_what_it_is_given(both: tuple[Streams, Streams]) -> None:
    (reader, writer), (_, server) = both
    got: list[bytes] = []
    incoming = Incoming(writer.transport, got.append, nothing)  # type: ignore[arg-type]
    server.write(b"hello")
    await eventually(lambda: got == [b"hello"])
    incoming.pass_on(b"a line\r\n")
    async with asyncio.timeout(DEADLINE):
        assert await reader.readline() == b"a line\r\n"


async def test_the_library_hears_of_the_end(both: tuple[Streams, Streams]) -> None:
    (reader, writer), (_, server) = both
    Incoming(writer.transport, lambda _: None, nothing)  # type: ignore[arg-type]
    reading = asyncio.create_task(reader.read(100))
    server.close()
    async with asyncio.timeout(DEADLINE):
        assert await reading == b""
        writer.close()
        await writer.wait_closed()


async def test_the_librarys_writer_waits_while_much_is_to_be_written(both: tuple[Streams, Streams]) -> None:
    (_, writer), (peer, _) = both
    Incoming(writer.transport, lambda _: None, nothing)  # type: ignore[arg-type]
    size = 32 * 1024 * 1024
    writer.write(bytes(size))
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    async with asyncio.timeout(DEADLINE):
        await peer.readexactly(size)
        await draining


async def test_what_is_not_understood_ends_the_connection(both: tuple[Streams, Streams]) -> None:
    (reader, writer), (_, server) = both
    errors: list[Exception] = []

    def receive(data: bytes) -> None:
        raise ValueError(data.decode())

    Incoming(writer.transport, receive, errors.append)  # type: ignore[arg-type]
    server.write(b"what?")
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == b""
    assert [str(error) for error in errors] == ["what?"]
