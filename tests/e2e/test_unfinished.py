"""A message of which a part has come: its rest has so long, and all of them together have so much room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support import DEADLINE, Address, Peer, eventually, running, settings
from tests.support.wire import CloseFinder, frame, handshake
from velocity_ws import Broker, Close
from velocity_ws.uvicorn.state import WebSocketState
from velocity_ws.websocket.unfinished import UnfinishedMessages

pytestmark = pytest.mark.usefixtures("unhurried")  # what a busy machine does is no fault of who has little time here

SIZE = 200_000


class RawClient:
    """A client of which each byte is its test's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.finder = CloseFinder()

    async def closed(self) -> int | None:
        """Wait for the end; the code it came with."""
        async with asyncio.timeout(DEADLINE):
            while self.finder.code is None and (data := await self.reader.read(65536)):
                self.finder.feed(data)
        return self.finder.code


@asynccontextmanager
async def wired(address: Address, headers: str = "") -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    try:
        writer.write(handshake(headers))
        await reader.readuntil(b"\r\n\r\n")
        yield RawClient(reader, writer)
    finally:
        writer.close()


class NotingBroker:
    """A broker that remembers how long messages were, and how connections ended."""

    def __init__(self, **options: object) -> None:
        self.broker = Broker(settings(**{"ping_interval": 0, **options}))
        self.lengths: list[int] = []
        self.closes: list[Close] = []
        self.broker.on_binary(lambda data: self.lengths.append(len(data)))
        self.broker.on_disconnect(lambda client, close: self.closes.append(close))


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> list[UnfinishedMessages]:
    """What is watched by the servers of a test."""
    found: list[UnfinishedMessages] = []
    original = WebSocketState.unfinished_within

    def noted(self: WebSocketState, *bounds: float) -> UnfinishedMessages:
        watch = original(self, *bounds)  # type: ignore[arg-type]
        if watch not in found:
            found.append(watch)
        return watch

    monkeypatch.setattr(WebSocketState, "unfinished_within", noted)
    return found


async def fragments(more: asyncio.Event) -> AsyncIterator[bytes]:
    yield bytes(SIZE)
    await more.wait()
    yield bytes(SIZE)


async def begin(peer: Peer, more: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(peer.ws.send(fragments(more)))


# --- how long


async def test_a_message_that_is_never_finished_is_given_up_in_time(unfinished: list[UnfinishedMessages]) -> None:
    site = NotingBroker(message_timeout=0.2)
    async with running(site.broker, "ours") as address, address.connect() as peer:
        sending = await begin(peer, asyncio.Event())
        await (await peer.ws.ping())  # which it answers meanwhile
        code, reason = await peer.closed()
        sending.cancel()
        await eventually(lambda: site.closes)
        assert [watch.size for watch in unfinished] == [0] * len(unfinished)
    assert (code, reason) == (1008, "a message took more than 0.2 s to come")
    assert (site.closes[0].code, site.closes[0].by) == (1008, "server")


@pytest.mark.parametrize(
    ("start", "trickle"),
    [
        (b"\x82", b""),
        (frame(0x82, bytes(SIZE))[:9], b""),
        (frame(0x82, bytes(SIZE))[:100], b"x"),
        (frame(0x02, b"x"), frame(0x89)),
        (frame(0x02, b"x"), frame(0x00, b"y")),
        (frame(0x02, b"x") + frame(0x80, bytes(SIZE))[:1000], b"x"),
    ],
    ids=["one byte", "a header", "bytes that trickle", "pings", "fragments that trickle", "a trickling fragment"],
)
async def test_what_trickles_is_not_waited_for(start: bytes, trickle: bytes) -> None:
    site = NotingBroker(message_timeout=0.3)
    async with running(site.broker, "ours") as address, wired(address) as wire:
        wire.writer.write(start)
        closed = asyncio.create_task(wire.closed())
        while not closed.done():
            wire.writer.write(trickle)
            await asyncio.wait([closed], timeout=0.02)
        assert await closed == 1008
    assert site.lengths == []


async def test_a_client_that_always_has_a_part_of_its_next_message_under_way_is_no_such_one() -> None:
    site = NotingBroker(message_timeout=0.4, rate_limit=0)
    message = frame(0x82, bytes(SIZE))
    parts = [frame(0x02, bytes(1000)), frame(0x80, bytes(1000))]
    async with running(site.broker, "ours") as address, wired(address) as wire:
        rest = b""
        for _ in range(8):  # which takes longer than one message may
            sent = rest + message + parts[0] + parts[1] + message[: SIZE // 2]
            rest = message[SIZE // 2 :]
            wire.writer.write(sent)
            await asyncio.sleep(0.1)  # the pause of a client, not a wait
        wire.writer.write(rest + frame(0x88, b"\x03\xe8"))
        assert await wire.closed() == 1000
    assert site.lengths == [SIZE, 2000, SIZE] * 8


WHOLE = frame(0x82, bytes(SIZE))
HALVES = frame(0x02, bytes(SIZE // 2)) + frame(0x80, bytes(SIZE // 2))
QUEUED = frame(0x82, bytes(5000)) * (SIZE // 5000)


@pytest.mark.parametrize("wire", [WHOLE, HALVES, QUEUED], ids=["frame", "fragments", "messages"])
async def test_a_client_that_takes_long_to_send_is_not_dead_though_its_pong_waits_for_that(wire: bytes) -> None:
    site = NotingBroker(ping_interval=0.1, ping_timeout=0.5)
    async with running(site.broker, "ours") as address, wired(address) as peer:
        for at in range(0, len(wire), len(wire) // 24):
            peer.writer.write(wire[at : at + len(wire) // 24])
            await asyncio.sleep(0.05)  # a slow line
        await eventually(lambda: sum(site.lengths) == SIZE)
        assert not site.closes
        await eventually(lambda: site.closes)  # as it never answers
    assert site.closes[0].by == "network"


async def test_what_this_side_does_not_read_is_not_late() -> None:
    site = NotingBroker(message_timeout=0.2, read_buffer_size=1000)
    go_on, came = asyncio.Event(), asyncio.Event()

    @site.broker.on("wait")
    async def wait() -> None:
        came.set()
        await go_on.wait()

    async with running(site.broker, "ours") as address, wired(address) as wire:
        wire.writer.write(frame(0x81, b'{"event":"wait"}') + frame(0x02, b"x") + frame(0x89) * 10)
        await came.wait()
        wire.writer.write(frame(0x80, b"y") + frame(0x82, bytes(2000)) + frame(0x02, b"z"))
        await asyncio.sleep(0.7)  # longer than a message may take; nothing tells that nothing happens
        go_on.set()
        wire.writer.write(frame(0x80, b"z") + frame(0x88, b"\x03\xe8"))
        assert await wire.closed() == 1000
    assert site.lengths == [2, 2000, 2]


# --- how much


def total(unfinished: list[UnfinishedMessages]) -> int:
    return sum(watch.size for watch in unfinished)


async def test_where_all_have_too_much_the_idlest_goes(unfinished: list[UnfinishedMessages]) -> None:
    site = NotingBroker(max_unfinished_size=2 * SIZE + 1000)
    more = asyncio.Event()
    async with running(site.broker, "ours") as address:
        async with address.connect() as oldest, address.connect() as middle, address.connect() as newest:
            sending = []
            for peer in (oldest, middle):
                sending.append(await begin(peer, more))
                await eventually(lambda: sum(map(len, unfinished)) == len(sending))
            sending.append(await begin(newest, asyncio.Event()))
            assert await oldest.closed() == (1013, "too much is unfinished of all messages")
            assert total(unfinished) == 2 * SIZE
            sending[2].cancel()
            await newest.ws.close()  # whose part is forgotten with it
            await eventually(lambda: total(unfinished) == SIZE)
            more.set()
            await sending[1]
            await eventually(lambda: site.lengths)
            await asyncio.gather(*sending, return_exceptions=True)
        assert site.lengths == [2 * SIZE]
        assert sum(map(len, unfinished)) == total(unfinished) == 0


async def test_who_goes_on_sending_outlives_those_who_have_stopped(unfinished: list[UnfinishedMessages]) -> None:
    site = NotingBroker(max_unfinished_size=2 * SIZE)
    message, part = frame(0x82, bytes(SIZE)), frame(0x02, bytes(SIZE // 2))
    async with running(site.broker, "ours") as address:
        async with wired(address) as slow, wired(address) as one, wired(address) as two, wired(address) as three:
            slow.writer.write(message[:1000])
            await eventually(lambda: total(unfinished) == 1000)
            for count, other in enumerate((one, two, three), 1):
                other.writer.write(part)
                await eventually(lambda count=count: total(unfinished) == 1000 + count * SIZE // 2)  # type: ignore[misc]
            slow.writer.write(message[1000:-1000])
            assert await one.closed() == 1013
            slow.writer.write(message[-1000:])
            await eventually(lambda: site.lengths == [SIZE])
            assert total(unfinished) == SIZE


async def test_parts_of_frames_count_as_parts_of_messages(unfinished: list[UnfinishedMessages]) -> None:
    site = NotingBroker(max_unfinished_size=2 * SIZE)
    part = frame(0x82, os.urandom(SIZE + 1000))[:SIZE]
    async with running(site.broker, "ours") as address:
        async with wired(address) as one, wired(address) as two, wired(address) as three:
            one.writer.write(part)
            await eventually(lambda: total(unfinished) == SIZE)
            two.writer.write(part)
            await eventually(lambda: total(unfinished) == 2 * SIZE)
            three.writer.write(part)
            assert await one.closed() == 1013


async def test_whole_messages_are_not_watched(unfinished: list[UnfinishedMessages]) -> None:
    site = NotingBroker()
    starts: list[object] = []
    async with running(site.broker, "ours") as address, wired(address) as wire:
        for watch in unfinished:
            watch.add = lambda reader, size: starts.append(reader)  # type: ignore[method-assign]
        wire.writer.write(frame(0x82, b"x") * 20 + frame(0x89) + frame(0x82, b"x") * 20)
        await eventually(lambda: len(site.lengths) == 40)
    assert starts == []


# --- what is wrong by its first two bytes


@pytest.mark.parametrize(
    "start",
    [
        "ffffffffffffffff",
        "ffff",
        "b181",
        "c1fe",
        "83ff",
        "8f80",
        "89fe",
        "88ff",
        "0981",
        "817f",
        "8205",
        "80ff",
        "00fe",
    ],
)
async def test_a_frame_that_is_wrong_by_its_first_two_bytes_is_refused_by_them(start: str) -> None:
    site = NotingBroker()
    async with running(site.broker, "ours") as address, wired(address) as wire:
        wire.writer.write(bytes.fromhex(start)[:1])
        wire.writer.write(bytes.fromhex(start)[1:])
        assert await wire.closed() == 1002
        await eventually(lambda: site.closes)
    assert site.closes[0].code == 1002


@pytest.mark.parametrize("start", [b"\x81\xff", b"\x82\xfe", b"\x40\xfe", b"\x89\xff"], ids=bytes.hex)
async def test_so_is_one_that_is_wrong_between_fragments(start: bytes) -> None:
    site = NotingBroker()
    async with running(site.broker, "ours") as address, wired(address) as wire:
        wire.writer.write(frame(0x01, b"x") + start)
        assert await wire.closed() == 1002


async def test_what_came_before_is_answered() -> None:
    site = NotingBroker()

    @site.broker.on("echo")
    async def echo(data: int) -> int:
        return data

    async with running(site.broker, "ours") as address, wired(address) as wire:
        wire.writer.write(frame(0x81, b'{"event":"echo","data":7,"id":1}') + b"\xff\xff")
        async with asyncio.timeout(DEADLINE):
            answer = await wire.reader.readuntil(b"}")
        assert b'"data":7' in answer
        assert await wire.closed() == 1002
