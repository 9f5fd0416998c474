"""KeptStreams: what requests find of a stream: its parts, its limits, and that it is there at all."""

from __future__ import annotations

import pytest

from tests.support.durables import META, TAG, Requests, requests, text_of
from velocity_ws.streams import kept_streams
from velocity_ws.streams.notes import Meta
from velocity_ws.streams.requests import Problem
from velocity_ws.streams.tail import Chunk


async def why(node: Requests, id_: str = "a") -> str:
    """Why a stream is not found."""
    with pytest.raises(Problem) as caught:
        await node.kept.find(id_)
    return caught.value.why


async def test_a_stream_that_nobody_has_begun_is_missing() -> None:
    async with requests() as (node,):
        assert await why(node) == "missing"
        await node.create()
        found = await node.kept.find("a")
        assert (found.stream.length, found.is_closed, node.kept.room_of(found)) == (0, False, None)
        assert await node.kept.kind_of(found) == ""


async def test_a_stream_without_a_read_or_write_is_gone_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_streams, "RENEW", 0.0)
    async with requests(2) as (one, two):
        await one.create(said=b"text", meta=Meta("text/plain", TAG, ttl=10))
        for renew in (
            lambda: one.append(b"!"),
            lambda: two.append(b"!"),
            _read(one),
            _read(two),
        ):
            one.advance(9.9)
            await renew()
        one.advance(9.9)
        assert await two.text() == "text!!"
        one.advance(0.1)
        assert [await why(node) for node in (one, two)] == ["missing", "missing"]
        with pytest.raises(Problem) as caught:
            await two.append(b"late")
        assert caught.value.why == "missing"
        assert (await two.create(said=b"new")).is_new
        assert await one.text() == "new"


def _read(node: Requests):  # type: ignore[no-untyped-def]
    async def read() -> None:
        await node.kept.touch(await node.kept.find("a"))

    return read


async def test_a_read_renews_once_in_a_while_and_a_write_each_time() -> None:
    async with requests() as (node,):
        await node.create(meta=Meta("text/plain", TAG, ttl=10))
        found = await node.kept.find("a")
        asked: list[object] = []
        renew = node.link.renew

        async def counted(renewals: object) -> object:
            asked.append(renewals)
            return await renew(renewals)  # type: ignore[arg-type]

        node.link.renew = counted  # type: ignore[assignment,method-assign]
        for _ in range(3):
            await node.kept.touch(found)
        assert len(asked) == 1
        node.advance(kept_streams.RENEW)
        await node.kept.touch(found)
        assert len(asked) == 2
        await node.append(b"x")
        assert len(asked) == 3
        await node.create("b")
        await node.kept.touch(await node.kept.find("b"))  # which has no such limit
        assert len(asked) == 3


async def test_it_is_known_of_so_many_streams_when_they_were_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_streams, "KNOWN", 2)
    async with requests() as (node,):
        for name in "abcd":
            await node.create(name, meta=Meta("text/plain", TAG, ttl=10))
            await node.kept.touch(await node.kept.find(name))
        assert list(node.kept._renewed) == ["c", "d"]


async def test_a_stream_is_gone_at_its_moment_be_it_read_or_not() -> None:
    async with requests(2) as (one, two):
        meta = Meta("text/plain", TAG, expires=one.wall.now + 100)
        await one.create(said=b"text", meta=meta)
        for _ in range(9):
            one.advance(11)
            assert await two.text() == "text"
            await two.kept.touch(await two.kept.find("a"))
        one.advance(1)
        assert await why(two) == "missing"
        assert (await one.create(said=b"past", meta=Meta("text/plain", TAG, expires=one.wall.now - 5))).is_new
        assert await why(two) == "missing"


@pytest.mark.parametrize("ttl", [0, 1])
async def test_a_closed_stream_with_a_time_is_gone_that_long_after(ttl: int) -> None:
    """Be it read or not, where the protocol has each read renew it: no engine renews what has ended."""
    async with requests() as (node,):
        await node.create(said=b"text", meta=Meta("text/plain", TAG, ttl=ttl), is_closed=True)
        assert await node.text() == "text"
        node.advance(0.6)
        await node.kept.touch(await node.kept.find("a"))
        node.advance(0.4)
        assert await why(node) == "missing"
        assert (await node.create()).is_new


async def test_one_that_its_time_has_ended_is_missing_though_its_end_was_told() -> None:
    for room in (None, "room"):
        async with requests() as (node,):
            await node.create(said=b"text", meta=Meta("text/plain", TAG, ttl=5), room=room)
            node.advance(5)
            assert (await node.asking.look("a")).end == "lost"  # as those who read it there are told
            assert await why(node) == "missing"
            assert (await node.create("a" if room is None else "b", room=room)).is_new


async def test_what_has_no_limit_stays_until_long_after_the_engine_would_forget_others() -> None:
    async with requests() as (node,):
        await node.create(said=b"text")
        node.advance(300 * 86400)
        assert await node.text() == "text"


async def test_a_stream_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_streams, "ANSWER", 100)
    async with requests() as (node,):
        await node.create(said=b"begin")
        for number in range(50):
            await node.append(b"%04d" % number)
        await node.append(b"end", is_closing=True)
        expected = "begin" + "".join(f"{number:04d}" for number in range(50)) + "end"
        found = await node.kept.find("a")
        assert await text_of(node.kept, found) == expected
        chunk = await node.kept.part(found, 7)  # within a piece
        assert expected[7:].startswith(chunk.data.decode())
        assert (chunk.is_all, chunk.end) == (False, "")
        last = await node.kept.part(found, len(expected) - 1)
        assert (last.data, last.is_all, last.end) == (b"d", True, "done")
        assert await node.kept.part(found, len(expected)) == Chunk("", len(expected), len(expected), b"", True, "done")
        assert await node.kept.kind_of(found) == "bytes"


async def test_what_was_deleted_since_it_was_found_is_missing() -> None:
    async with requests() as (node,):
        await node.create(said=b"text")
        found = await node.kept.find("a")
        for begin_anew in (False, True):
            await node.forks.delete("a")
            if begin_anew:
                await node.create(said=b"other text")
            with pytest.raises(Problem) as caught:
                await node.kept.part(found, 0)
            assert caught.value.why == "missing"
            if not begin_anew:
                await node.create(said=b"again")


async def test_a_stream_of_the_application_is_found_and_gone_once_it_is_kept_no_more() -> None:
    async with requests() as (node,):
        begun, _, _ = await node.asking.begin("a", "chat")
        assert begun is not None
        found = await node.kept.find("a")
        assert (found.note, node.kept.room_of(found)) == (None, "chat")
        await node.asking.cancel("a")
        found = await node.kept.find("a")
        node.advance(61)
        assert await why(node) == "gone"
        with pytest.raises(Problem) as caught:
            await node.kept.part(found._replace(stream=found.stream._replace(length=5)), 0)
        assert caught.value.why == "gone"


async def test_two_that_ask_for_one_stream_differ_by_its_room() -> None:
    async with requests() as (node,):
        await node.create(meta=META, room="one")
        found = await node.kept.find("a")
        assert node.kept.room_of(found) == "one"
        with pytest.raises(Problem) as caught:
            await node.create(meta=META, room="two")
        assert caught.value.why == "conflict"
