"""Durable: what requests write on several nodes is there once, in the order of the engine, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable

import pytest

from tests.support import eventually
from tests.support.durables import NOTHING, TAG, data, note_of, requests
from velocity_ws import BackplaneUnavailable
from velocity_ws.streams import durable
from velocity_ws.streams.items import BY_REQUESTS
from velocity_ws.streams.notes import Meta, Producer
from velocity_ws.streams.requests import Post, Problem


async def why(call: object) -> str:
    """Why something is not done."""
    with pytest.raises(Problem) as caught:
        await call  # type: ignore[misc]
    return caught.value.why


# --- creating


@pytest.mark.parametrize("room", [None, "chat", ""])
async def test_a_stream_is_created_once_and_found_again(room: str | None) -> None:
    async with requests(2) as (one, two):
        created = await one.create(said=b"text", room=room)
        assert (created.is_new, created.found.stream.length, created.found.is_closed) == (True, 4, False)
        assert created.found.stream.writer.startswith(BY_REQUESTS)
        assert note_of(created.found).size == one.kept_bytes()
        again = await two.create(said=b"other text", room=room)
        assert (again.is_new, again.found.stream.length) == (False, 4)
        assert await two.text() == "text"
        assert one.took == ["a"]
        assert await why(two.create(meta=Meta("text/html", TAG), room=room)) == "conflict"
        assert await why(two.create(room=room, is_closed=True)) == "conflict"
        assert await why(two.create(room="another")) == "conflict"


async def test_of_many_that_create_one_at_the_same_time_one_has_done_it() -> None:
    async with requests(3) as nodes:
        done = await asyncio.gather(*[node.create(said=b"%d" % n) for n in range(9) for node in nodes])
        assert [each.is_new for each in done].count(True) == 1
        assert len(await nodes[0].text()) == 1


async def test_a_stream_that_was_begun_and_got_nothing_is_begun_again() -> None:
    for room in (None, "chat"):
        async with requests(2) as (one, two):
            one.store.left = 0  # the engine goes away between the two steps
            with pytest.raises(BackplaneUnavailable):
                await one.create(said=b"first", room=room)
            one.store.left = None
            assert await why(two.kept.find("a")) == "missing"
            assert (await two.create(said=b"second", room=room)).is_new
            assert await two.text() == "second"


async def test_a_stream_that_was_begun_for_another_room_and_got_nothing_is_begun_anew() -> None:
    async with requests() as (node,):
        node.store.left = 0
        with pytest.raises(BackplaneUnavailable):
            await node.create(room="one")
        node.store.left = None
        await eventually(lambda: node.link.is_up)
        created = await node.create(room="two")
        assert (created.is_new, node.kept.room_of(created.found)) == (True, "two")


async def test_a_stream_of_the_application_is_left_alone() -> None:
    async with requests() as (node,):
        begun, stream, _ = await node.asking.begin("a", "chat")
        assert begun is not None
        for room in (None, "chat"):
            assert await why(node.create(room=room)) == "conflict"
        assert await why(node.append(b"text")) == "fixed"
        assert await why(node.forks.delete("a")) == "fixed"
        assert (await node.asking.look("a")).writer == stream.writer


async def test_others_that_create_and_delete_it_each_time_are_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "TRIES", 3)
    async with requests() as (node,):

        async def refused(*_: object) -> None:
            return None

        monkeypatch.setattr(node.durable, "_append", refused)
        with pytest.raises(BackplaneUnavailable, match="at the same time"):
            await node.create()


# --- appending


@pytest.mark.parametrize("seed", range(5))
async def test_what_many_write_on_two_nodes_is_there_once_and_in_the_order_of_each(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "PAUSE", 0.01)
    chance = random.Random(seed)
    async with requests(2) as nodes:
        await nodes[0].create()

        async def write(writer: str) -> None:
            for number in range(12):
                while True:
                    node = chance.choice(nodes)
                    await eventually(lambda node=node: node.link.is_up)  # type: ignore[misc]
                    node.store.unsure = chance.random() < 0.1
                    try:
                        await node.append(f"{writer}{number},".encode(), producer=Producer(writer, 0, number))
                        break
                    except BackplaneUnavailable:
                        continue

        await asyncio.gather(*[write(writer) for writer in "abcd"])
        await eventually(lambda: nodes[1].link.is_up)  # as the last answer may have been lost
        said = re.findall(r"(\w)(\d+),", await nodes[1].text())
        assert len(said) == len(set(said))
        for writer in "abcd":
            assert [int(number) for who, number in said if who == writer] == list(range(12))


async def test_what_others_write_while_nobody_knows_whether_it_was_done_does_not_have_it_done_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "PAUSE", 0.1)
    async with requests(2) as (one, two):
        await one.create()
        await two.append(b"first,")
        one.store.unsure = True
        appending = asyncio.create_task(one.append(b"once,"))
        await eventually(lambda: not one.store.unsure)
        for said in (b"x,", b"y,"):
            await two.append(said)
        done = await appending
        assert (done.is_new, await two.text()) == (True, "first,once,x,y,")
        await one.append(b"z")
        assert await two.text() == "first,once,x,y,z"


async def test_the_answer_says_where_what_was_appended_ends() -> None:
    async with requests(2) as (one, two):
        await one.create()
        done = await asyncio.gather(*[node.append(b"x" * n) for n in range(1, 9) for node in (one, two)])
        stops = sorted(each.found.stream.length for each in done)
        assert len(set(stops)) == 16
        assert stops[-1] == len(await one.text()) == 72
        assert abs(one.kept_bytes() - note_of(await one.kept.find("a")).size) < 10


async def test_a_producer_that_sends_all_again_on_other_nodes_at_the_same_time_is_taken_once() -> None:
    async with requests(3) as nodes:
        await nodes[0].create()
        for number in range(20):
            producer = Producer("p", 1, number)
            sent = [node.append(b"%d," % number, producer=producer) for node in nodes for _ in range(3)]
            done = await asyncio.gather(*sent)
            assert [each.is_new for each in done].count(True) == 1
            assert {each.producer for each in done} == {producer}
        assert await nodes[2].text() == "".join(f"{number}," for number in range(20))
        assert await why(nodes[1].append(b"x", producer=Producer("p", 1, 21))) == "hole"
        assert await why(nodes[1].append(b"x", producer=Producer("p", 0, 20))) == "stale"
        again = await nodes[1].append(b"x", producer=Producer("p", 1, 3))
        assert (again.is_new, again.producer) == (False, Producer("p", 1, 19))


async def test_what_a_producer_sends_again_is_never_taken_twice_however_many_there_are() -> None:
    async with requests(2) as (one, two):
        await one.create()
        for number in range(100):
            await one.append(b"x", producer=Producer(str(number), 0, 0))
        assert await why(two.append(b"new", producer=Producer("new", 0, 0))) == "conflict"
        assert not (await two.append(b"again", producer=Producer("0", 0, 0))).is_new
        assert (await two.append(b"y", producer=Producer("0", 0, 1))).is_new
        one.advance(23 * 3600)
        assert await why(two.append(b"new", producer=Producer("new", 0, 0))) == "conflict"
        one.advance(3600)
        assert (await two.append(b"z", producer=Producer("new", 0, 0))).is_new
        assert not (await one.append(b"again", producer=Producer("0", 0, 0))).is_new  # which wrote after the others
        assert await one.text() == "x" * 100 + "yz"


async def test_what_the_engine_did_not_say_whether_it_was_done_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "PAUSE", 0.5)
    async with requests() as (node,):
        await node.create()
        for _ in range(2):
            node.store.unsure = True
            await node.append(b"same,")
        assert await node.text() == "same,same,"
        monkeypatch.setattr(durable, "PAUSE", 0.0)  # it is not there again by then
        node.store.unsure = True
        with pytest.raises(BackplaneUnavailable) as caught:
            await node.append(b"unsure", producer=Producer("p", 0, 0))
        assert caught.value.outcome == "unknown"
        await eventually(lambda: node.link.is_up)
        assert not (await node.append(b"unsure", producer=Producer("p", 0, 0))).is_new  # as its producer finds out
        assert await node.text() == "same,same,unsure"


async def test_an_append_that_is_never_first_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "TRIES", 3)
    async with requests(2) as (one, two):
        await one.create()

        def again() -> Awaitable[object]:
            one.store.before = again
            return two.append(b"first,")

        one.store.before = again
        with pytest.raises(BackplaneUnavailable, match="each time before this one"):
            await one.append(b"never")
        one.store.before = None
        assert await one.text() == "first," * 3


async def test_what_cannot_be_said_is_found_out_before_it_is_sent() -> None:
    async with requests() as (node,):
        await node.create(said=b"a")
        appends = node.store.calls.count("append")
        assert await why(node.append(b"x", type_="text/html")) == "conflict"

        def refuse(*_: object) -> object:
            raise Problem("invalid", "no")

        assert await why(node.forks.append("a", Post("text/plain"), refuse)) == "invalid"  # type: ignore[arg-type]
        assert node.store.calls.count("append") == appends
        await node.append(b"b", seq="5")
        assert await why(node.append(b"c", seq="5")) == "conflict"
        await node.append(b"c")
        assert await why(node.append(b"d", seq="5")) == "conflict"  # one without leaves it as it is
        await node.append(b"d", seq="6")
        assert await node.text() == "abcd"


# --- what is known from the last append


async def test_who_appends_again_on_a_node_costs_the_engine_one_call() -> None:
    async with requests() as (node,):
        await node.create()
        await node.append(b"a")
        node.store.calls.clear()
        for _ in range(5):
            await node.append(b"b")
        assert node.store.calls == ["append"] * 5


async def test_what_is_known_here_of_a_stream_that_was_deleted_elsewhere_refuses_nothing() -> None:
    async with requests(2) as (one, two):
        await one.create()
        producer = Producer("p", 3, 0)
        await one.append(b"old", producer=producer, seq="9")
        await two.forks.delete("a")
        await two.create(meta=Meta("text/html", "f" * 16))
        done = await one.append(b"new", type_="text/html", producer=producer, seq="1")
        assert done.is_new
        assert await two.text() == "new"
        await two.forks.delete("a")
        assert await why(one.append(b"x", type_="text/html", producer=producer)) == "missing"
        assert await why(one.append(b"x", type_="text/html")) == "missing"


async def test_a_node_knows_so_many_streams_and_none_with_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "CACHED", 2)
    async with requests() as (node,):
        for name in "abc":
            await node.create(name)
            await node.append(b"x", name)
        assert list(node.durable._cache) == ["b", "c"]
        await node.create("d", meta=Meta("text/plain", TAG, ttl=60))
        await node.append(b"x", "d")
        assert list(node.durable._cache) == ["b", "c"]
        assert not node.durable._turns


# --- closing


async def test_a_stream_is_closed_once_and_has_nothing_behind_its_end() -> None:
    async with requests(3) as nodes:
        await nodes[0].create()
        producer = Producer("p", 0, 0)
        closing = [nodes[0].append(b"last", producer=producer, is_closing=True) for _ in range(3)]
        others = [node.append(b"%d," % n) for n in range(5) for node in nodes]
        done = await asyncio.gather(*closing, *others, return_exceptions=True)
        assert [getattr(each, "is_new", None) for each in done[:3]].count(True) == 1
        taken = [each for each in done[3:] if not isinstance(each, BaseException)]
        assert all(isinstance(each, Problem) and each.why == "closed" for each in done[3:] if each not in taken)
        text = await nodes[1].text()
        assert text.endswith("last")
        assert len(text) == 4 + 2 * len(taken)
        assert (await nodes[1].kept.find("a")).stream.end == "done"
        assert not (await nodes[2].append(None, is_closing=True)).is_new
        assert await why(nodes[2].append(b"", is_closing=True)) == "closed"


async def test_two_that_close_at_the_same_time_have_both_closed_it() -> None:
    async with requests(2) as nodes:
        await nodes[0].create(said=b"text")
        done = await asyncio.gather(*[node.append(None, is_closing=True) for node in nodes])
        assert sorted(each.is_new for each in done) == [False, True]
        assert await nodes[0].text() == "text"


async def test_a_stream_may_be_closed_as_it_is_created() -> None:
    async with requests() as (node,):
        created = await node.create(said=b"all", is_closed=True)
        assert created.found.stream.end == "done"
        assert not (await node.create(said=b"all", is_closed=True)).is_new
        assert await why(node.append(b"more")) == "closed"


@pytest.mark.parametrize("room", [None, "chat"])
async def test_a_stream_that_the_application_cancels_is_closed_and_still_the_clients(room: str | None) -> None:
    async with requests(2) as (one, two):
        await one.create(said=b"text", room=room)
        await one.append(b"!")
        before = (await two.kept.find("a")).note
        assert before is not None
        assert await two.asking.cancel("a")
        found = await one.kept.find("a")
        assert (found.stream.end, note_of(found).meta) == ("cancelled", before.meta)
        assert await why(one.append(b"more")) == "closed"
        assert await one.text() == "text!"
        await one.forks.delete("a")
        assert (await one.create("a" if room is None else "b", room=room)).is_new


async def test_a_cancellation_that_comes_beside_appends_ends_the_stream_behind_them() -> None:
    async with requests(2) as (one, two):
        await one.create()
        results = await asyncio.gather(
            *[one.append(b"x") for _ in range(20)], two.asking.cancel("a"), return_exceptions=True
        )
        assert results[-1] is True
        taken = [each for each in results[:-1] if not isinstance(each, BaseException)]
        assert len(await two.text()) == len(taken)
        assert (await two.kept.find("a")).stream.end == "cancelled"


# --- deleting


@pytest.mark.parametrize("other", ["room", "another room"])
async def test_the_id_of_a_deleted_stream_of_a_room_is_free_when_no_member_goes_on_with_it(other: str) -> None:
    async with requests(2) as (one, two):
        await one.create(said=b"text", room="room")
        await two.forks.delete("a")
        assert await why(one.create(said=b"other", room=other)) == "conflict"
        assert await why(one.kept.find("a")) == "missing"
        assert (await two.create(said=b"of no room")).is_new  # which no member reads
        await two.forks.delete("a")
        one.advance(599)
        assert await why(one.create(said=b"other", room=other)) == "conflict"
        one.advance(2)
        assert (await two.create(said=b"other", room=other)).is_new
        assert await one.text() == "other"


async def test_the_id_of_a_deleted_stream_that_said_nothing_is_free_at_once() -> None:
    async with requests() as (node,):
        await node.create(room="room")
        await node.forks.delete("a")
        assert (await node.create(said=b"text", room="room")).is_new


@pytest.mark.parametrize("room", [None, "room"])
async def test_the_id_of_a_stream_that_outlived_its_limit_is_free_where_no_member_has_some(room: str | None) -> None:
    for seconds in (5, 11, 400):  # with and without the engine's own word
        async with requests() as (node,):
            await node.create(said=b"text", meta=Meta("text/plain", TAG, ttl=5), room=room)
            node.advance(seconds)
            if room is None:
                assert (await node.create(said=b"other")).is_new
            else:
                assert await why(node.create(said=b"other", room=room)) == "conflict"


async def test_who_reads_a_stream_that_is_deleted_is_told_of_an_end() -> None:
    async with requests() as (node,):
        await node.create(said=b"text")
        node.took.clear()
        await node.forks.delete("a")
        assert node.took == ["a"]  # the end
        assert await why(node.forks.delete("a")) == "missing"
        await node.create(is_closed=True)
        node.took.clear()
        await node.forks.delete("a")
        assert node.took == []


async def test_a_stream_that_is_begun_anew_has_nothing_of_the_old_one() -> None:
    async with requests(2) as (one, two):
        for number in range(5):
            await one.create(said=b"%d" % number)
            await two.append(b"!")
            assert await one.text() == f"{number}!"
            await (one if number % 2 else two).forks.delete("a")


# --- how much


async def test_neither_a_request_nor_a_stream_is_larger_than_it_may_be() -> None:
    async with requests(limit=1000) as (node,):
        assert await why(node.create(said=b"x" * 1001)) == "large"
        await node.create(said=b"x" * 600)
        assert await why(node.append(b"x" * 300)) == "large"
        await node.append(b"x" * 200)
        assert await why(node.append(b"x" * 30)) == "large"
        await node.append(None, is_closing=True)
        assert await node.text() == "x" * 800
    async with requests(limit=1 << 30) as (node,):
        await node.create()
        most = node.link.max_payload - 1000
        assert await why(node.append(b"x" * (most + 1000))) == "large"
        await node.append(b"x" * most, producer=Producer("p", 1, 0))
        assert (await node.kept.find("a")).stream.length == most


async def test_what_is_kept_of_producers_counts_as_what_is_said() -> None:
    async with requests(limit=64 * 1024) as (node,):
        await node.create()
        sent = [node.append(b"x", producer=Producer(f"{number:03d}" + "p" * 200, 0, 0)) for number in range(50)]
        done = await asyncio.gather(*sent, return_exceptions=True)
        refused = [each for each in done if isinstance(each, Problem)]
        assert 10 < len(refused) < 40
        assert {each.why for each in refused} == {"large"}
        note = note_of(await node.kept.find("a"))
        assert abs(node.kept_bytes() - note.size) < 10
        assert node.kept_bytes() <= 64 * 1024
        await node.append(None, is_closing=True)  # which a stream that is full still may be


@pytest.mark.parametrize("room", [None, "r" * 256])
async def test_a_request_may_have_what_the_engine_takes_beside_the_note(room: str | None) -> None:
    async with requests(limit=1 << 30) as (node,):
        await node.create(room=room)
        for number in range(100):
            await node.append(b"x", producer=Producer(f"{number:03d}" + "\xe4" * 253, 0, 0))
        large = b"x" * (node.link.max_payload - 30_000)
        assert await why(node.append(large)) == "large"  # and not that the engine cannot be asked now
        with pytest.raises(Problem, match=r"one request may have (\d+) bytes") as caught:
            await node.append(large)
        most = int(re.findall(r"\d+", str(caught.value))[0])
        assert await why(node.append(b"x" * (most + 1))) == "large"
        await node.append(b"x" * most)
        assert (await node.kept.find("a")).stream.length == 100 + most


async def test_an_application_has_no_note_to_fill() -> None:
    async with requests() as (node,):
        await node.asking.begin("a", "chat")
        assert await node.durable.fill(await node.kept.find("a"), NOTHING, is_all=True) is None


async def test_an_engine_that_refuses_says_why() -> None:
    async with requests() as (node,):
        await node.create()
        found = await node.kept.find("a")
        said = data(b"x" * (node.link.max_payload + 1))
        with pytest.raises(BackplaneUnavailable):
            await node.durable.fill(found, said, is_all=True)
