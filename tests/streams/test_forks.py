"""Forks: a stream that begins with another one has all of it up to there, once; what is deleted is known as such."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import eventually
from tests.support.durables import TAG, Requests, data, note_of, requests
from velocity_ws import BackplaneUnavailable
from velocity_ws.streams import durable, forks
from velocity_ws.streams.forks import BOOK, Book
from velocity_ws.streams.notes import Meta, Producer
from velocity_ws.streams.requests import Problem


async def why(call: object) -> str:
    """Why something is not done."""
    with pytest.raises(Problem) as caught:
        await call  # type: ignore[misc]
    return caught.value.why


async def books(node: Requests) -> set[str]:
    """The streams of which a book is kept."""
    assert node.store._engine is not None
    return {id_.removeprefix(BOOK) for id_ in node.store._engine.streams if id_.startswith(BOOK)}


async def source(node: Requests, id_: str = "a", count: int = 10) -> str:
    """Write a stream of so many pieces; what it has."""
    await node.create(id_)
    for number in range(count):
        await node.append(b"%03d," % number, id_)
    return await node.text(id_)


@pytest.mark.parametrize("page", [1, 100, 256 * 1024])
@pytest.mark.parametrize("at", [0, 4, 6, 39, 40])
async def test_a_fork_has_all_of_the_other_up_to_its_place_and_then_its_own(
    page: int, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "PAGE", page)
    async with requests(2) as (one, two):
        text = await source(one)
        forked = await two.fork("b", "a", at, b"own")
        assert (forked.is_new, forked.found.stream.length) == (True, at + 3)
        assert await one.text("b") == text[:at] + "own"
        assert abs(one.kept_bytes("b") - note_of(forked.found).size) < 10
        assert not note_of(forked.found).is_filling
        await one.append(b"more", "b")
        assert not (await two.fork("b", "a", at, b"own")).is_new
        await one.append(b"of the other")
        assert await two.text("b") == text[:at] + "ownmore"


async def test_a_fork_may_be_closed_and_of_a_closed_one() -> None:
    async with requests() as (node,):
        await source(node, count=2)
        await node.append(None, is_closing=True)
        forked = await node.fork("b", "a", 8, b"!", is_closed=True)
        assert forked.found.stream.end == "done"
        assert await node.text("b") == "000,001,!"
        assert not (await node.fork("b", "a", 8, b"!", is_closed=True)).is_new
        assert not (await node.fork("c", "a", 4)).found.is_closed


async def test_a_fork_that_is_interrupted_half_way_is_missing_until_it_is_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "PAGE", 100)
    monkeypatch.setattr(durable, "PAUSE", 0.0)
    async with requests(2) as (one, two):
        text = await source(one)
        left = 0
        while True:
            one.store.left = left
            try:
                done = await one.fork("b", "a", 40, b"own")
                break
            except BackplaneUnavailable:
                left += 3
            one.store.left = None
            await eventually(lambda: one.link.is_up)
            assert await why(two.forks.find("b")) == "missing"
            assert await why(two.append(b"x", "b")) == "missing"
        assert left > 6
        assert done.found.stream.length == 43
        assert await two.text("b") == text + "own"
        found = await two.forks.find("b")
        assert found.stream.length == 43


async def test_a_fork_is_no_larger_than_it_may_be() -> None:
    async with requests(limit=3000) as (node,):
        await source(node)
        assert await why(node.fork("b", "a", 8, b"x" * 3000)) == "large"
        assert await why(node.fork("b", "a", 40, b"x" * 1500)) == "large"
        assert await node.store.look(["b", BOOK + "a"]) == [None, None]  # neither it nor a book was begun
        assert (await node.fork("b", "a", 8, b"x" * 1500)).is_new  # it has but two of the pieces
        assert (await node.fork("c", "a", 40, b"x" * 1000)).is_new
        assert node.kept_bytes("c") <= 3000


async def test_a_chain_of_forks_is_no_larger_than_a_stream_may_be() -> None:
    async with requests(limit=10 * 1024) as (node,):
        await node.create(said=b"x" * 6000)
        assert await why(node.fork("b", "a", 6000, b"x" * 6000)) == "large"
        assert (await node.fork("b", "a", 6000, b"x" * 3000)).is_new
        assert await why(node.fork("c", "b", 9000, b"x" * 3000)) == "large"
        assert node.kept_bytes("b") <= 10 * 1024


async def test_what_a_fork_does_not_have_of_its_source_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PAGE", 100)
    async with requests(limit=4000) as (node,):
        await node.create()
        for number in range(10):
            await node.append(b"%03d," % number, producer=Producer("p" * 200, 0, number))
        assert node.kept_bytes() > 3000
        done = await node.fork("b", "a", 40, b"x" * 2000)  # without the producer
        assert done.found.stream.length == 2040
        assert node.kept_bytes("b") <= 4000


async def test_several_nodes_that_fork_one_stream_into_one_fill_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PAGE", 100)
    async with requests(3) as nodes:
        text = await source(nodes[0], count=20)
        done = await asyncio.gather(*[node.fork("b", "a", 77, b"own") for node in nodes for _ in range(2)])
        assert [each.is_new for each in done].count(True) == 1
        assert all(each.found.stream.length == 80 for each in done)
        assert await nodes[1].text("b") == text[:77] + "own"


async def test_half_a_fork_whose_source_was_deleted_makes_way_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PAGE", 100)
    monkeypatch.setattr(durable, "PAUSE", 0.0)
    for other in ("plain", "fork"):
        async with requests(2) as (one, two):
            await source(one)
            one.store.left = 6
            with pytest.raises(BackplaneUnavailable):
                await one.fork("b", "a", 40)
            one.store.left = None
            await eventually(lambda: one.link.is_up)
            found = await one.kept.find("b", is_filling=True)
            assert 0 < found.stream.length < 40
            await two.forks.delete("a")
            assert await why(two.forks.find("b")) == "missing"
            if other == "plain":
                assert (await two.create("b", b"new")).is_new
                assert await one.text("b") == "new"
            else:
                assert (await two.forks.is_kept("a")) is True
                await source(two, "c", 12)
                assert (await two.fork("b", "c", 44)).is_new
                assert (await one.text("b")).endswith("010,")


async def test_a_source_that_is_deleted_or_begun_anew_half_way_fails_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PAGE", 100)
    for is_anew in (False, True):
        async with requests(2) as (one, two):
            await source(one)
            found = await one.forks.find("a")
            meta = Meta("text/plain", TAG, source="a", fork="40+0", forked_at=40)
            await two.durable.delete("a")
            if is_anew:
                await two.create("a", b"n" * 60)
            assert await why(one.forks.fork("b", None, meta, found, data(b""), is_closed=False)) == "missing"
            assert await why(one.forks.find("b")) == "missing"


async def test_another_stream_that_takes_the_id_of_a_fork_meanwhile_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with requests(2) as (one, two):
        await source(one)
        fill = one.forks._fill

        async def late(*arguments: object, **more: object) -> object:
            monkeypatch.setattr(one.forks, "_fill", fill)
            await two.durable._delete((await two.kept.find("b", is_filling=True)).stream)
            await two.create("b", b"of another")
            return None

        monkeypatch.setattr(one.forks, "_fill", late)
        assert await why(one.fork("b", "a", 40)) == "conflict"
        assert await two.text("b") == "of another"


async def test_others_that_fill_it_each_time_are_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "TRIES", 3)
    async with requests() as (node,):
        await source(node)

        async def never(*_: object, **__: object) -> None:
            return None

        monkeypatch.setattr(node.durable, "fill", never)
        with pytest.raises(BackplaneUnavailable, match="at the same time"):
            await node.fork("b", "a", 40)


# --- books


async def test_what_was_deleted_while_others_began_with_it_is_gone_until_they_are() -> None:
    async with requests(2) as (one, two):
        await source(one)
        await one.fork("b", "a", 8)
        await two.fork("c", "a", 8)
        assert await books(one) == {"a"}
        assert not await one.forks.is_kept("a")
        await two.forks.delete("a")
        for node in (one, two):
            assert await why(node.forks.find("a")) == "gone"
            assert await why(node.append(b"x")) == "gone"
            assert await why(node.forks.delete("a")) == "gone"
            assert await node.forks.is_kept("a")
            assert await node.text("b") == "000,001,"
        await one.forks.delete("b")
        assert await why(two.forks.find("a")) == "gone"
        await two.forks.delete("c")
        assert await why(one.forks.find("a")) == "missing"
        assert not await two.forks.is_kept("a")
        assert await books(one) == set()
        assert (await one.create()).is_new


async def test_a_chain_of_forks_is_forgotten_from_its_last_on() -> None:
    async with requests() as (node,):
        await source(node)
        for one, two in (("a", "b"), ("b", "c"), ("c", "d")):
            await node.fork(two, one, 8)
        for id_ in "abc":
            await node.forks.delete(id_)
        for id_ in "abc":
            assert await why(node.forks.find(id_)) == "gone"
        assert await node.text("d") == "000,001,"
        await node.forks.delete("d")
        for id_ in "abcd":
            assert await why(node.forks.find(id_)) == "missing"
        assert await books(node) == set()


async def test_who_asks_for_a_deleted_stream_costs_a_few_calls_however_many_forks_it_has() -> None:
    async with requests() as (node,):
        await source(node, count=1)
        for number in range(200):
            await node.fork(f"f{number}", "a", 4)
        node.store.calls.clear()
        await node.forks.delete("a")
        assert node.store.calls.count("look") < 10
        node.store.looked.clear()
        assert await why(node.forks.find("a")) == "gone"
        assert len(node.store.looked) == 3  # it, its book, and a fork
        for number in range(1, 200):
            await node.forks.delete(f"f{number}")
        node.store.calls.clear()
        assert await why(node.forks.find("a")) == "gone"  # but for the oldest all are gone
        assert node.store.calls.count("look") < 15
        await node.forks.delete("f0")
        assert await why(node.forks.find("a")) == "missing"
        assert await books(node) == set()


async def test_a_long_chain_of_forks_of_deleted_streams_is_looked_along_as_far_as_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with requests() as (node,):
        await source(node, "0", 1)
        for number in range(400):
            await node.fork(str(number + 1), str(number), 4)
        for number in range(400):
            await node.forks.delete(str(number))
        assert await node.forks.is_kept("0")
        with monkeypatch.context() as patch:
            patch.setattr(forks, "MOST_LOOKED", 3)
            node.store.looked.clear()
            assert await node.forks.is_kept("0")
            assert len(node.store.looked) < 10
        await node.forks.delete("400")
        assert not await node.forks.is_kept("0")
        assert await books(node) == set()


async def test_streams_that_were_forked_from_each_other_are_looked_at_once() -> None:
    async with requests() as (node,):
        for one, two in ("ab", "ba"):
            await node.forks._change_book(one, lambda _, two=two: Book((two,), True))  # type: ignore[misc]
        assert not await node.forks.is_kept("a")


async def test_a_fork_that_has_outlived_its_limit_keeps_nothing_of_its_source() -> None:
    async with requests() as (node,):
        await source(node)
        meta = Meta("text/plain", TAG, ttl=10, source="a", fork="8+0", forked_at=8)
        await node.fork("b", "a", 8, meta=meta)
        await node.forks.delete("a")
        assert await node.forks.is_kept("a")
        node.advance(10)
        assert not await node.forks.is_kept("a")
        assert await books(node) == set()


async def test_a_fork_whose_id_is_another_stream_by_now_keeps_nothing_either() -> None:
    async with requests() as (node,):
        await source(node)
        await node.fork("b", "a", 8)
        await node.forks.delete("b")
        await node.create("b")
        await node.forks.delete("a")
        assert await why(node.forks.find("a")) == "missing"


async def test_a_fork_that_comes_while_its_source_is_deleted_stands_in_the_book(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with requests(2) as (one, two):
        await source(one)
        await one.fork("b", "a", 8)
        living = one.forks._living

        async def slow(*arguments: object) -> object:
            monkeypatch.setattr(one.forks, "_living", living)
            found = await living(*arguments)  # type: ignore[arg-type]
            await two.fork("c", "a", 8)
            return found

        monkeypatch.setattr(one.forks, "_living", slow)
        await one.forks.delete("a")
        await one.forks.delete("b")
        assert await two.text("c") == "000,001,"
        assert await why(two.forks.find("a")) == "gone"
        await two.forks.delete("c")
        assert await why(two.forks.find("a")) == "missing"


async def test_many_that_fork_one_stream_at_the_same_time_all_stand_in_its_book() -> None:
    async with requests(3) as nodes:
        await source(nodes[0], count=2)
        await asyncio.gather(
            *[node.fork(f"{number}-{n}", "a", 4) for n, node in enumerate(nodes) for number in range(5)]
        )
        await nodes[0].forks.delete("a")
        ids = [f"{number}-{n}" for n in range(3) for number in range(5)]
        for id_ in ids:
            assert await nodes[1].forks.is_kept("a")
            await nodes[2].forks.delete(id_)
        assert not await nodes[1].forks.is_kept("a")


async def test_a_fork_that_was_refused_keeps_nothing() -> None:
    async with requests() as (node,):
        await source(node, "b", count=1)
        await node.fork("a", "b", 4)
        assert await why(node.fork("b", "a", 4)) == "conflict"
        await node.forks.delete("b")
        assert await why(node.forks.find("b")) == "gone"
        await node.forks.delete("a")
        for id_ in "ab":
            assert await why(node.forks.find(id_)) == "missing"
            assert (await node.create(id_)).is_new


async def test_a_half_made_fork_is_deleted_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "PAUSE", 0.0)
    async with requests() as (node,):
        await source(node)
        node.store.left = 4
        with pytest.raises(BackplaneUnavailable):
            await node.fork("b", "a", 40)
        node.store.left = None
        await eventually(lambda: node.link.is_up)
        await node.forks.delete("a")
        assert await why(node.forks.find("a")) == "gone"
        await node.forks.delete("b")
        assert await why(node.forks.find("a")) == "missing"
        assert await books(node) == set()


async def test_a_book_that_is_full_takes_another_once_one_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "MOST", 3)
    async with requests() as (node,):
        await source(node, count=1)
        for fork in "bcd":
            await node.fork(fork, "a", 4)
        assert await why(node.fork("e", "a", 4)) == "conflict"
        assert await why(node.forks.find("e")) == "missing"
        assert not (await node.fork("c", "a", 4)).is_new
        await node.forks.delete("c")
        assert (await node.fork("e", "a", 4)).is_new
        assert await why(node.fork("f", "a", 4)) == "conflict"
        await node.forks.delete("a")
        for fork in "bde":
            assert await why(node.forks.find("a")) == "gone"
            await node.forks.delete(fork)
        assert await books(node) == set()


async def test_a_book_that_others_write_each_time_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "TRIES", 2)
    async with requests() as (node,):
        await source(node)
        append = node.link.append

        async def refused(appends: object) -> object:
            found = await append(appends)  # type: ignore[arg-type]
            return [each._replace(is_taken=False) for each in found]  # type: ignore[union-attr]

        monkeypatch.setattr(node.link, "append", refused)
        with pytest.raises(BackplaneUnavailable, match="fork this stream"):
            await node.fork("b", "a", 8)


async def test_where_a_piece_ends() -> None:
    async with requests() as (node,):
        await source(node, count=3)
        found = await node.forks.find("a")
        stops = [await node.forks.next_stop(found, position) for position in (0, 3, 4, 7, 11, 12, 20)]
        assert stops == [4, 4, 8, 8, 12, 12, 20]
