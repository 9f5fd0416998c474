"""Tails: all who read a stream at its end share what is heard of it, and get all of it, byte for byte."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE, eventually, settings
from tests.support.clocks import HandClock
from tests.support.durables import META, TAG, Requests, data, requests
from tests.support.nodes import engine_url
from velocity_ws import BackplaneUnavailable, Broker, StreamGone, StreamNotFound
from velocity_ws.cluster.envelopes import StreamPiece, decode_body
from velocity_ws.history.items import Refused
from velocity_ws.streams import tails as streams_tails
from velocity_ws.streams.items import Renewal, Summary, Written
from velocity_ws.streams.notes import Meta
from velocity_ws.streams.requests import Post, Problem
from velocity_ws.streams.streams import Streams
from velocity_ws.streams.tail import Chunk
from velocity_ws.streams.tails import Tails


class Hears:
    """Hears what others publish, once a test lets it.

    Attributes:
        held: topics that are needed, and how often.
        is_heard: set when they are heard.
    """

    def __init__(self) -> None:
        self.held: list[str] = []
        self.is_heard = asyncio.Event()
        self.is_heard.set()

    def hold(self, topic: str) -> None:
        self.held.append(topic)

    def let_go(self, topic: str) -> None:
        self.held.remove(topic)

    async def wait_held(self, topic: str) -> None:
        assert topic in self.held
        await self.is_heard.wait()


class Reader:
    """A node that reads, and one that writes; what the latter says is heard where a test does not prevent it.

    Attributes:
        is_deaf: whether nothing is heard.
    """

    def __init__(self, node: Requests, writer: Requests) -> None:
        self.node = node
        self.writer = writer
        self.hears = Hears()
        self.clock = HandClock()
        self.is_deaf = False
        self.chunks = 0  # that were read
        self.tails = Tails(node.link, node.asking.look, self.hears, self.clock, node.kept)
        node.link.on_moved.append(self.tails.look_soon)

    def heard(self, message: bytes) -> None:
        """Take what was published."""
        said = decode_body(message)
        assert isinstance(said, StreamPiece)
        if not self.is_deaf:
            self.tails.heard(said.id, said.payload)

    async def read(self, cursor: int, timeout: float | None = None, id_: str = "a", **more: Any) -> Chunk:
        async with asyncio.timeout(3 * DEADLINE):  # some wait for as long as a test takes
            chunk = await self.tails.read(id_, cursor, timeout, **more)
        self.chunks += 1
        assert chunk.writer == more.get("writer", chunk.writer) != b""
        return chunk._replace(writer=b"")

    async def follow(self, id_: str = "a") -> bytes:
        """All of a stream, up to its end."""
        whole = b""
        while True:
            chunk = await self.read(len(whole), id_=id_)
            assert chunk.start == len(whole)
            whole += chunk.data
            assert chunk.stop == len(whole)
            if chunk.end:
                assert chunk.is_all
                return whole


@asynccontextmanager
async def reading(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    async with requests(2) as (one, two):
        reader = Reader(one, two)
        two.durable._took = lambda _, id_, payload: None if reader.is_deaf else reader.tails.heard(id_, payload)
        monkeypatch.setattr(streams_tails, "LOOK", 0.02)
        yield reader
        await reader.tails.stop()


def looks(node: Requests) -> int:
    return node.store.calls.count("look")


# --- many


async def test_many_who_read_at_the_end_cost_the_engine_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 60.0)
        await reader.writer.create()
        waiting = [asyncio.create_task(reader.follow()) for _ in range(200)]
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users == 200)
        reader.node.store.calls.clear()
        for number in range(50):
            await reader.writer.append(b"%d," % number)
        await reader.writer.append(b"end", is_closing=True)
        texts = await asyncio.gather(*waiting)
        assert set(texts) == {b"".join(b"%d," % number for number in range(50)) + b"end"}
        assert reader.node.store.calls == []


async def test_what_was_said_before_is_read_once_for_all_who_ask_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"before")
        await reader.tails.open("a")
        reader.node.store.is_held = True
        waiting = [asyncio.create_task(reader.read(0)) for _ in range(50)]
        other = asyncio.create_task(reader.read(3))
        await eventually(lambda: reader.node.store.calls.count("read") == 2)
        reader.node.store.go_on.set()
        assert {chunk.data for chunk in await asyncio.gather(*waiting)} == {b"before"}
        assert (await other).data == b"ore"
        assert reader.node.store.calls.count("read") == 2
        assert (await reader.read(0)).data == b"before"  # kept, as it was made for others
        assert reader.node.store.calls.count("read") == 2


async def test_one_of_them_that_goes_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"before")
        await reader.tails.open("a")
        reader.node.store.is_held = True
        waiting = [asyncio.create_task(reader.read(0)) for _ in range(3)]
        await eventually(lambda: reader.node.store.calls.count("read") == 1)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        reader.node.store.go_on.set()
        assert [(await each).data for each in waiting[1:]] == [b"before"] * 2


async def test_places_that_readers_begin_at_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=bytes(range(200)), is_closed=True)
        for cursor in range(200):
            assert (await reader.read(cursor)).data == bytes(range(200))[cursor:]
        assert len((await reader.tails.open("a")).made) < 50


async def test_one_that_reads_all_of_a_large_stream_leaves_little_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "PAGE", 1000)
        monkeypatch.setattr("velocity_ws.streams.tail.MADE", 3000)
        await reader.writer.create(said=b"x" * 900)
        for _ in range(19):
            await reader.writer.append(b"y" * 900)
        await reader.writer.append(None, is_closing=True)
        tail = await reader.tails.open("a")
        monkeypatch.setattr(tail, "kept", lambda _: None)
        assert len(await reader.follow()) == 20 * 900
        assert sum(len(chunk.data) for chunk in tail.made.values()) <= 3000
        assert max(chunk.stop for chunk in tail.made.values()) == 20 * 900


# --- what is missed


async def test_what_was_not_heard_is_found_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"a")
        reader.is_deaf = True
        waiting = asyncio.create_task(reader.follow())
        await eventually(lambda: "a" in reader.tails._tails)
        await reader.writer.append(b"b")
        await reader.writer.append(b"c", is_closing=True)
        assert await waiting == b"abc"


async def test_a_hole_is_found_by_what_comes_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 60.0)
        await reader.writer.create(said=b"a")
        assert (await reader.read(0)).data == b"a"
        waiting = [asyncio.create_task(reader.follow()) for _ in range(20)]
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users == 20)
        reader.node.store.calls.clear()
        reader.is_deaf = True
        await reader.writer.append(b"b")
        reader.is_deaf = False
        await reader.writer.append(b"c")
        await reader.writer.append(b"d", is_closing=True)
        assert set(await asyncio.gather(*waiting)) == {b"abcd"}
        assert reader.node.store.calls.count("look") <= 2
        assert reader.node.store.calls.count("read") <= 2


@pytest.mark.parametrize("seed", range(5))
async def test_a_reader_that_hears_some_of_it_gets_all_of_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "PAGE", 64)
        monkeypatch.setattr("velocity_ws.streams.tail.KEPT", 100)
        await reader.writer.create()
        waiting = [asyncio.create_task(reader.follow()) for _ in range(5)]
        said = b""
        for _ in range(100):
            part = chance.randbytes(chance.randint(1, 40))
            reader.is_deaf = chance.random() < 0.3
            await reader.writer.append(part)
            said += part
            if chance.random() < 0.1:
                reader.tails.look_soon()
        await reader.writer.append(None, is_closing=True)
        assert set(await asyncio.gather(*waiting, reader.follow())) == {said}


async def test_what_is_no_piece_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"a")
        await reader.tails.open("a")
        reader.tails.heard("a", b"none")
        reader.tails.heard("unknown", b"none")
        await reader.writer.append(b"b", is_closing=True)
        assert await reader.follow() == b"ab"


async def test_what_is_heard_before_it_is_known_where_a_stream_is_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 60.0)
        await reader.writer.create(said=b"a")
        reader.hears.is_heard.clear()
        waiting = asyncio.create_task(reader.follow())
        await eventually(lambda: reader.hears.held)
        await reader.writer.append(b"b")
        reader.hears.is_heard.set()
        await reader.writer.append(b"c", is_closing=True)
        assert await waiting == b"abc"


# --- waiting


async def test_who_has_all_waits_for_more_and_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        for timeout in (0, 0.01):
            assert await reader.read(3, timeout) == Chunk("", 3, 3, b"", True, "")
        waiting = asyncio.create_task(reader.read(3))
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users)
        await reader.writer.append(b"")
        await reader.writer.append(b"d")
        assert await waiting == Chunk("bytes", 3, 4, b"d", True, "")
        await reader.writer.append(None, is_closing=True)
        assert await reader.read(4) == Chunk("", 4, 4, b"", True, "done")
        assert (await reader.read(3)).end == "done"


async def test_who_has_seen_a_part_that_is_of_no_use_yet_waits_for_more_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"ab\xe2")
        assert (await reader.read(2)).data == b"\xe2"
        assert (await reader.read(2, 0.01, seen=2)).data == b"\xe2"
        waiting = asyncio.create_task(reader.read(2, seen=3))
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users)
        assert not waiting.done()
        await reader.writer.append(b"\x82\xac")
        assert (await waiting).data == "€".encode()


# --- deleted


@pytest.mark.parametrize("is_deaf", [False, True])
async def test_who_waits_for_a_stream_that_is_deleted_is_told(is_deaf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        waiting = [asyncio.create_task(reader.read(3)) for _ in range(5)]
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users == 5)
        reader.is_deaf = is_deaf
        await reader.writer.forks.delete("a")
        if is_deaf:
            for each in waiting:
                with pytest.raises(StreamNotFound):
                    await each
        else:
            assert {(await each).end for each in waiting} == {"cancelled"}


@pytest.mark.parametrize("is_deaf", [False, True])
@pytest.mark.parametrize("is_closed", [False, True])
async def test_who_reads_a_stream_that_was_begun_anew_gets_nothing_of_the_old_one(
    is_closed: bool, is_deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 60.0)
        old = (await reader.writer.create(said=b"old and secret", is_closed=is_closed)).found.stream.writer
        assert (await reader.read(0)).data == b"old and secret"
        reader.is_deaf = is_deaf
        await reader.writer.forks.delete("a")
        new = (await reader.writer.create(said=b"new")).found.stream.writer
        assert (await reader.read(0, writer=new)).data == b"new"
        with pytest.raises(StreamNotFound):
            await reader.read(0, writer=old)
        assert (await reader.read(0, writer=new)).data == b"new"
        reader.is_deaf = False
        await reader.writer.append(b"!", is_closing=True)
        assert await reader.follow() == b"new!"
        await eventually(lambda: reader.hears.held == ["velocity.stream.a"])  # once, by the one that is left


async def test_a_stream_that_is_begun_anew_while_somebody_waits_ends_the_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        waiting = asyncio.create_task(reader.read(3))
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users)
        reader.is_deaf = True
        await reader.writer.forks.delete("a")
        await reader.writer.create(said=b"another that is longer")
        with pytest.raises(StreamNotFound):
            await waiting
        await eventually(lambda: "a" not in reader.tails._tails)
        assert (await reader.read(0)).data == b"another that is longer"


async def test_a_first_piece_of_another_stream_has_the_id_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 60.0)
        await reader.writer.create(said=b"abc", is_closed=True)
        assert (await reader.read(0)).data == b"abc"
        await reader.writer.forks.delete("a")
        await reader.writer.create(said=b"anew")
        await eventually(lambda: "a" not in reader.tails._tails)
        assert (await reader.read(0)).data == b"anew"


async def test_what_is_deleted_while_it_is_read_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        for is_anew in (False, True):
            await reader.writer.create(said=b"abc")
            await reader.tails.open("a")
            reader.is_deaf = True
            await reader.writer.forks.delete("a")
            if is_anew:
                await reader.writer.create(said=b"abcdef")
            with pytest.raises(StreamNotFound):
                await reader.read(0)
            await eventually(lambda: "a" not in reader.tails._tails)
            reader.clock.advance(60)


async def test_a_stream_that_is_not_there_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        for _ in range(2):
            with pytest.raises(StreamNotFound):
                await reader.read(0)
        assert not reader.tails._tails
        await reader.writer.asking.begin("b", "chat")
        await reader.writer.asking.cancel("b")
        reader.writer.advance(61)
        with pytest.raises(StreamGone):
            await reader.read(0, id_="b")
        assert not reader.hears.held


async def test_what_the_engine_has_lost_behind_what_it_said_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        await reader.tails.open("a")
        assert reader.node.store._engine is not None
        reader.node.store._engine.streams["a"].payloads.clear()
        with pytest.raises(StreamGone):
            await reader.read(0)


# --- life


async def test_a_stream_is_followed_for_a_while_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        await reader.read(0)
        looked = looks(reader.node)
        for _ in range(5):  # who asks again and again finds it as it was
            reader.clock.advance(streams_tails.LINGER - 0.1)
            await reader.writer.append(b"d")
            assert (await reader.read(3)).data.startswith(b"d")
        assert looks(reader.node) <= looked + 1
        assert reader.hears.held == ["velocity.stream.a"]
        reader.clock.advance(streams_tails.LINGER)
        await eventually(lambda: not reader.tails._tails)
        assert not reader.hears.held
        assert (await reader.read(0)).stop == 8


async def test_nobody_looks_at_a_stream_that_nobody_reads_or_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        monkeypatch.setattr(streams_tails, "LOOK", 0.001)
        await reader.writer.create(said=b"abc")
        waiting = asyncio.create_task(reader.read(3))
        before = looks(reader.node)
        await eventually(lambda: looks(reader.node) > before + 5)
        await reader.writer.append(None, is_closing=True)
        assert (await waiting).end == "done"
        await reader.writer.create("b")
        other = asyncio.create_task(reader.read(0, id_="b"))
        looked = reader.node.store.looked
        await eventually(lambda: looked.count("b") > 5)
        before = looked.count("a")
        await eventually(lambda: looked.count("b") > 15)
        assert looked.count("a") == before
        await reader.writer.append(b"x", "b")
        assert (await other).data == b"x"


async def test_who_waits_is_told_that_the_broker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        waiting = asyncio.create_task(reader.read(3))
        tail = await reader.tails.open("a")
        await eventually(lambda: tail.users)
        await reader.writer.create("b", b"abc")
        await reader.tails.open("b")
        reader.node.store.is_held = True
        in_the_middle = asyncio.create_task(reader.read(0, id_="b"))
        await eventually(lambda: "read" in reader.node.store.calls)
        await reader.tails.stop()
        for task in (waiting, in_the_middle):
            with pytest.raises(BackplaneUnavailable, match="stopping"):
                await task
        assert not reader.hears.held
        assert not reader.tails._tasks


async def test_who_waits_does_so_while_the_engine_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"a")
        waiting = asyncio.create_task(reader.follow())
        await eventually(lambda: reader.chunks)  # else it comes while the engine is away, and is told so
        reader.is_deaf = True
        reader.node.store.lost(ConnectionError("it is away"))
        await reader.writer.append(b"b")
        await reader.writer.append(b"c", is_closing=True)
        assert await waiting == b"abc"


async def test_who_comes_while_the_engine_is_away_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"a")
        reader.node.store.lost(ConnectionError("it is away"))
        with pytest.raises(BackplaneUnavailable):
            await reader.read(0)
        await eventually(lambda: reader.node.link.is_up)
        assert (await reader.read(0)).data == b"a"


@pytest.mark.parametrize("is_known", [False, True])
async def test_who_waits_is_told_of_what_nobody_thought_of_and_the_next_begins_anew(
    is_known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(monkeypatch) as reader:
        await reader.writer.create(said=b"abc")
        look = reader.tails._settled

        async def fail(_: str) -> Summary:
            raise RuntimeError("nobody thought of it")

        waiting: list[asyncio.Task[Chunk]] = []
        if is_known:
            waiting = [asyncio.create_task(reader.read(3)) for _ in range(3)]
            tail = await reader.tails.open("a")
            await eventually(lambda: tail.users == 3)
            assert reader.hears.held
        monkeypatch.setattr(reader.tails, "_settled", fail)
        waiting = waiting or [asyncio.create_task(reader.read(0, 1)) for _ in range(3)]
        for each in waiting:
            with pytest.raises(BackplaneUnavailable, match="log"):
                await each
        assert "nobody thought of it" in caplog.text
        assert not reader.tails._tails
        assert not reader.hears.held
        monkeypatch.setattr(reader.tails, "_settled", look)
        assert (await reader.read(0)).data == b"abc"


# --- streams that are gone some time after they were read last


def renewals_of(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the streams that are renewed from now on."""
    found: list[str] = []
    renew = reader.node.link.renew

    async def renewed(renewals: Sequence[Renewal]) -> list[Written | Refused]:
        written = await renew(renewals)
        found.extend(renewal.id for renewal in renewals)
        return written

    monkeypatch.setattr(reader.node.link, "renew", renewed)
    return found


async def test_a_stream_stays_for_as_long_as_somebody_waits_for_more_and_one_renews_it_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reading(monkeypatch) as reader:
        renewed = renewals_of(reader, monkeypatch)
        await reader.writer.create(said=b"abc", meta=Meta("text/plain", TAG, ttl=2))
        waiting = [asyncio.create_task(reader.read(3)) for _ in range(20)]
        await eventually(lambda: renewed == ["a"])
        for number in range(2, 22):
            reader.writer.advance(1.9)
            reader.clock.advance(1.9)
            await eventually(lambda number=number: len(renewed) == number)  # type: ignore[misc]
        await reader.writer.append(b"d")
        assert {(await each).data for each in waiting} == {b"d"}
        reader.writer.advance(2)  # nobody waits now
        reader.clock.advance(2)
        with pytest.raises(Problem):
            await reader.writer.kept.find("a")
        assert len(renewed) == 21


async def test_a_stream_without_such_a_time_or_that_has_ended_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        renewed = renewals_of(reader, monkeypatch)
        await reader.writer.create("plain", b"abc")
        await reader.writer.create("ended", b"abc", Meta("text/plain", TAG, ttl=2), is_closed=True)
        waiting = asyncio.create_task(reader.read(3, id_="plain"))
        assert (await reader.read(0, id_="ended")).end == "done"
        looked = reader.node.store.looked
        for _ in range(3):
            before = looked.count("plain")
            await eventually(lambda before=before: looked.count("plain") > before)  # type: ignore[misc]
            reader.clock.advance(1)
        assert renewed == []
        waiting.cancel()


async def test_a_renewal_that_the_engine_did_not_answer_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(monkeypatch) as reader:
        answers: list[Exception | None] = [BackplaneUnavailable("it is away"), None]

        async def renew(_: Sequence[Renewal]) -> list[Written | Refused]:
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            return [Written(is_taken=True)]

        monkeypatch.setattr(reader.node.link, "renew", renew)
        await reader.writer.create(said=b"abc", meta=Meta("text/plain", TAG, ttl=4))
        waiting = asyncio.create_task(reader.read(3))
        await eventually(lambda: len(answers) == 1)
        reader.clock.advance(1)
        await eventually(lambda: not answers)
        await reader.writer.append(b"d")
        assert (await waiting).data == b"d"


@pytest.mark.parametrize(("ttl", "pause"), [(None, math.inf), (0, 0.25), (1, 0.25), (8, 2.0), (86400, 5.0)])
async def test_how_often_a_stream_is_renewed_goes_by_its_time(ttl: int | None, pause: float) -> None:
    async with requests() as (node,):
        found = (await node.create(meta=Meta("text/plain", TAG, ttl=ttl))).found
        assert node.kept.pause_of(found.stream) == pause
        assert node.kept.pause_of(found.stream._replace(note=b"")) == math.inf


# --- real nodes


def streams_of(broker: Broker) -> Streams:
    found = broker.node.streams
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["memory", "valkey"])
async def test_readers_of_another_node_get_all_of_it_while_it_is_written(kind: str) -> None:
    chance = random.Random(kind)
    async with engine_url(kind) as url:
        async with (
            Broker(settings(backplane_url=url), twin=True) as one,
            Broker(settings(backplane_url=url), twin=True) as two,
        ):
            for broker in (one, two):
                await streams_of(broker).wake()
            writing, other = streams_of(one).durable, streams_of(two)
            await writing.create("a", None, META, data(b"begin"), is_closed=False)

            async def follow() -> bytes:
                whole = b""
                while True:
                    chunk = await other.tails.read("a", len(whole), 10)
                    assert chunk.start == len(whole)
                    whole += chunk.data
                    if chunk.end:
                        return whole

            async def come_later() -> bytes:
                await other.tails.read("a", 2000, 10)
                return await follow()

            reading = [asyncio.create_task(each) for each in (follow(), follow(), come_later())]
            said = b"begin"
            for _ in range(200):
                part = chance.randbytes(chance.randint(1, 60))
                said += part
                await writing.append("a", Post("text/plain"), lambda *_, part=part: data(part))
            await writing.append("a", Post(is_closing=True), lambda *_: data(b""))
            async with asyncio.timeout(3 * DEADLINE):
                assert set(await asyncio.gather(*reading)) == {said}
