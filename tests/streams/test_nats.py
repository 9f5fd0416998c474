"""Streams in JetStream: servers that keep none, what is left of those that are gone, long ones, many of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.configured import configured
from tests.support.engines import engine
from tests.support.jetstream import StoringNats, storing
from velocity_ws.backplane import create_backplane
from velocity_ws.errors import SettingsError
from velocity_ws.history.items import granted
from velocity_ws.streams import nats as nats_streams
from velocity_ws.streams import nats_connection, nats_engine, nats_reading, nats_sweeping
from velocity_ws.streams.factory import create_streams
from velocity_ws.streams.items import MAX_LISTED, Begin, Query, Times, Written
from velocity_ws.streams.nats import NatsStreams
from velocity_ws.streams.nats_names import Names
from velocity_ws.streams.nats_state import STRIDE
from velocity_ws.streams.nats_sweeping import sweep
from velocity_ws.testing.listener import DEADLINE, listening
from velocity_ws.testing.stream_engine import Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, LONG, Pen

NAMES = Names("velocity", "velocity")
STREAM = "velocity-streams"
TOPIC = "velocity.room.chat"
TAKEN = Written(is_taken=True)
NEEDED = (
    *("velocity+streams.>", "$JS.API.STREAM.INFO.velocity-streams", "$JS.API.STREAM.CREATE.velocity-streams"),
    *("$JS.API.STREAM.PURGE.velocity-streams", "$JS.API.DIRECT.GET.velocity-streams"),
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StoringNats]:
    async with storing(tmp_path) as server:
        yield server


@asynccontextmanager
async def scribes(url: str, count: int = 1) -> AsyncIterator[Sequence[Scribe]]:
    found = [Scribe(NatsStreams(url)) for _ in range(count)]
    try:
        for each in found:
            await each.connect()
        yield found
    finally:
        for each in found:
            await each.store.close()


async def subjects(server: StoringNats) -> dict[str, int]:
    """How many messages there are of each subject, but for the turn of sweeping."""
    state = (await server.ask(f"STREAM.INFO.{STREAM}", {"subjects_filter": ">"}))["state"]
    found: dict[str, int] = state.get("subjects", {})
    return {subject: count for subject, count in found.items() if subject != NAMES.turn}


def all_subjects(pen: Pen) -> list[str]:
    key = NAMES.key(pen.id)
    return sorted([NAMES.record(key), NAMES.pieces(key, pen.topic), NAMES.index(pen.topic, key)])


# --- servers and streams that are no good


async def test_a_server_without_jetstream_keeps_no_streams() -> None:
    async with engine("nats") as plain:
        with pytest.raises(SettingsError, match="keeps no streams without JetStream; start it with -js"):
            await Scribe(NatsStreams(plain.url)).connect()


async def test_what_a_login_must_be_allowed_for_streams(tmp_path: Path) -> None:
    users = [
        {"user": "admin", "password": "a"},
        {"user": "chat", "password": "c", "permissions": {"publish": NEEDED, "subscribe": ["_INBOX.>"]}},
    ]
    config = {"jetstream": {"store_dir": f"{tmp_path}/js"}, "authorization": {"users": users}}
    (tmp_path / "nats.conf").write_text(json.dumps(config))
    async with configured("nats", "-c", str(tmp_path / "nats.conf")) as server:
        at, pen = server.url.partition("://")[2], Pen("answer", TOPIC, times=Times(HOUR, 1, HOUR))
        async with scribes(f"nats://chat:c@{at}") as (one,):
            async with listening(create_backplane(f"nats://admin:a@{at}"), [TOPIC]) as listener:
                await one.begin(pen)
                await one.append(pen.say("text"))
                assert await one.renew(pen) == TAKEN
                await one.end(pen.end())
                await one.store.forbid(["other"], 1000)
                await one.store.mark()
                await listener.messages(2)
            await one.until_gone(pen)
            await sweep(one.store._engine)  # type: ignore[attr-defined]
            assert one.losses == []


async def test_a_stream_that_is_there_is_used_where_it_is_good(server: StoringNats) -> None:
    pen = Pen("answer", TOPIC)
    async with scribes(server.url) as (one,):
        await one.begin(pen)
    config = (await server.ask(f"STREAM.INFO.{STREAM}"))["config"]
    await server.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_bytes": 2**24, "description": "of the shop"})
    async with scribes(server.url) as (one,):
        assert (await one.seen(pen)).left > 0
    await server.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_msgs_per_subject": 5})
    with pytest.raises(SettingsError, match="has max_msgs_per_subject 5, which for streams must be -1; remove it"):
        await Scribe(NatsStreams(server.url)).connect()


async def test_streams_that_are_deleted_are_known_no_more(server: StoringNats) -> None:
    pen = Pen("answer", TOPIC)
    async with scribes(server.url) as (one,):
        await one.begin(pen)
        await one.append(pen.say("1"))
        await server.ask(f"STREAM.DELETE.{STREAM}")
        for call in one.calls(pen):
            with pytest.raises(ConnectionError, match="is gone"):
                await call
        await one.store.close()
        await one.connect()
        assert await one.append(pen.say("2")) == [Written(is_taken=False)]


async def test_applications_do_not_meet(server: StoringNats) -> None:
    shop = Scribe(create_streams(f"{server.url}?prefix=shop", "velocity"))
    await shop.connect()
    async with scribes(server.url) as (one,):
        await one.begin(Pen("answer", TOPIC))
        assert await shop.look("answer") is None
        await shop.begin(Pen("answer", TOPIC))
    names = await server.ask("STREAM.NAMES")
    assert sorted(names["streams"]) == ["shop-streams", STREAM]
    await shop.store.close()


# --- what is left of those that are gone


async def test_what_is_gone_is_removed_and_nothing_else(server: StoringNats) -> None:
    done = Pen("done", TOPIC, times=Times(HOUR, 1, HOUR))
    dead, empty = (Pen(name, TOPIC, times=Times(2500, 1, HOUR)) for name in ("dead", "empty"))  # once they have said it
    alive, ended = Pen("alive", TOPIC), Pen("ended", TOPIC)
    forgotten = Pen("forgotten", TOPIC, times=Times(1, 1, 1))
    elsewhere = Pen("forgotten", "velocity.room.other")
    async with scribes(server.url) as (one,):
        for pen in (done, dead, empty, alive, ended, forgotten):
            await one.begin(pen)
        for pen in (done, dead, alive, ended, forgotten):
            await one.append(*[pen.say(text) for text in ("some", " ", "text")])
        await one.append(done.say("", "done"), ended.say("", "done"))
        await one.until(forgotten, lambda found: found is None)
        await one.begin(elsewhere)
        await one.append(elsewhere.say("new"))
        for pen in (done, dead, empty):
            await one.until_gone(pen)
        left = [NAMES.record(NAMES.key(pen.id)) for pen in (done, dead, empty)]
        for pen in (alive, ended, elsewhere):
            left += all_subjects(pen)
        async with asyncio.timeout(DEADLINE):
            while len(await subjects(server)) > len(left):  # what has just gone is let be for half a second
                await server.purge(NAMES.turn, STREAM)
                await sweep(one.store._engine)  # type: ignore[attr-defined]
        assert sorted(await subjects(server)) == sorted(left)
        for pen, end, length in ((done, "done", 9), (dead, "", 9), (empty, "", 0)):
            found = await one.seen(pen)
            assert (found.end, found.length, found.is_gone, found.left) == (end, length, True, 0)
            assert (await one.read(pen)).payloads == []
            assert not (await one.append(pen.say("more")))[0].is_taken
            assert not (await one.renew(pen, LONG)).is_taken
        for pen, text in ((alive, "some text"), (ended, "some text"), (elsewhere, "new")):
            assert text_of(await one.read(pen)) == text


async def test_a_store_removes_what_is_gone_by_itself(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_streams, "INTERVAL", 0.0)
    monkeypatch.setattr(nats_sweeping, "INTERVAL", 1.0)
    async with scribes(server.url) as (one,):
        gone = Pen("gone", TOPIC, times=Times(1, 1, HOUR))
        await one.begin(gone)
        await one.append(gone.say("text"))
    async with scribes(server.url) as (other,), asyncio.timeout(DEADLINE):
        pen = Pen("there", TOPIC)
        await other.begin(pen)
        while NAMES.pieces(NAMES.key("gone"), TOPIC) in await subjects(server):
            assert await other.renew(pen) == TAKEN


async def test_one_node_of_all_removes_what_is_gone(server: StoringNats) -> None:
    async with scribes(server.url, 2) as (one, two):
        gone = Pen("gone", TOPIC, times=Times(1000, 1, HOUR))
        await one.begin(gone)
        await one.append(gone.say("text"))
        await one.until_gone(gone)
        before = await subjects(server)
        await sweep(two.store._engine)  # type: ignore[attr-defined]
        assert await subjects(server) == before


async def test_what_is_said_anew_takes_no_room(server: StoringNats) -> None:
    pen = Pen("answer", TOPIC)
    async with scribes(server.url) as (one,):
        await one.begin(pen)
        for _ in range(20):
            assert await one.renew(pen) == TAKEN
            await one.store.forbid(["other"], HOUR)
            await one.store.mark()
    counts = await subjects(server)
    assert len(counts) == 4
    assert set(counts.values()) == {1}


async def test_the_engine_forgets_by_itself(server: StoringNats) -> None:
    pen = Pen("answer", TOPIC, times=Times(1, 1, 1))
    async with scribes(server.url) as (one,):
        await one.begin(pen)
        await one.store.forbid([pen.id], 1)
    async with asyncio.timeout(DEADLINE):
        while len(await subjects(server)) > 1:
            pass  # each asks the server; in a second they are gone


# --- writers


async def test_a_writer_that_comes_back_on_another_connection(server: StoringNats) -> None:
    pen = Pen("answer", TOPIC)
    async with scribes(server.url, 2) as (one, two), listening(create_backplane(server.url), [TOPIC]) as listener:
        await one.begin(pen)
        first, second, third = pen.say("1"), pen.say("2"), pen.say("3")
        assert await one.append(first) == [TAKEN]
        assert await two.append(first, second) == [TAKEN, TAKEN]
        assert await one.append(second, third) == [TAKEN, TAKEN]
        assert await two.append(second) == [Written(is_taken=False)]  # it is not the last one
        assert await two.append(pen.say("4", "done")) == [Written(is_taken=True, end="done")]
        assert text_of(await one.read(pen)) == "1234"
        assert [payload[-1:] for _, payload in await listener.messages(4)] == [b"1", b"2", b"3", b"4"]


async def test_leases_are_renewed_while_pieces_are_written(server: StoringNats) -> None:
    pens = [Pen(f"answer {number}", TOPIC, times=Times(1, HOUR, HOUR)) for number in range(20)]
    async with scribes(server.url, 2) as (one, two):
        await one.store.begin([pen.begin() for pen in pens])

        async def write() -> None:
            for number in range(50):
                assert await one.append(*[pen.say(f"{number} ") for pen in pens]) == [TAKEN] * 20

        writing = asyncio.create_task(write())
        while not writing.done():
            assert await one.store.renew([pen.renew() for pen in pens]) == [TAKEN] * 20
            assert await one.store.renew([pen.renew(LONG) for pen in pens]) == [TAKEN] * 20
            ends = await two.store.end([pen.end("lost", is_of_dead=True) for pen in pens])
            assert {granted(each).end for each in ends} == {""}  # type: ignore[union-attr]
        await writing
        for pen in pens:
            found = await two.read(pen)
            assert found.stream.pieces == 50
            assert found.stream.left > 1000


async def test_ids_that_begin_again_and_again(server: StoringNats) -> None:
    """What the last writer has known of an id does not let it write into the next stream of that id."""
    async with scribes(server.url, 2) as (one, two):
        for number in range(10):
            old, new = Pen("answer", TOPIC, times=Times(1, 1, 1)), Pen("answer", TOPIC)
            await two.begin(old)
            if number % 2:
                await two.append(old.say("old"))
            await one.until(old, lambda found: found is None)
            assert (await one.store.begin([Begin(*new.begin())])) != []
            assert not (await two.append(old.say("no")))[0].is_taken
            assert await one.append(new.say("new", "done")) == [Written(is_taken=True, end="done")]
            assert text_of(await two.read(new)) == "new"
            await server.purge(">", STREAM)


# --- long ones, and many


async def test_a_long_stream_is_read_from_everywhere(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_reading, "HOPS", 3)
    monkeypatch.setattr(nats_reading, "MOST", 100)
    monkeypatch.setattr(nats_engine, "HINTS", 1)
    count = 10 * STRIDE + 7
    pens = [Pen(f"answer {number}", TOPIC) for number in range(2)]
    async with scribes(server.url, 2) as (one, two):
        for pen in pens:
            await one.begin(pen)
        text = ""
        for number in range(count):
            said = f"{number} \U0001f600"
            text += said
            writer = (one, two)[number // 100 % 2]  # whoever goes on knows where earlier pieces are
            assert await writer.append(*[pen.say(said) for pen in pens]) == [TAKEN, TAKEN]
        for after in [*range(0, len(text), 97), len(text) - 1, len(text)]:
            for pen in pens:
                assert text_of(await two.read(pen, after), after) == text[after:]
        read = ["", ""]
        while len(read[1]) < len(text):  # two readers, of whom only one place is known
            for index, pen in enumerate(pens):
                part = await one.read(pen, len(read[index]), 1000)
                assert 0 < sum(map(len, part.payloads)) <= 1000
                read[index] += text_of(part, len(read[index]))
        assert read == [text, text]


async def test_pieces_that_are_lost_are_told_of(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_reading, "TRIES", 3)
    pen = Pen("answer", TOPIC)
    async with scribes(server.url) as (one,):
        await one.begin(pen)
        await one.append(*[pen.say(f"{number} ") for number in range(10)])
        config = (await server.ask(f"STREAM.INFO.{STREAM}"))["config"]
        assert config["name"] == STREAM
        await server.ask(f"STREAM.MSG.DELETE.{STREAM}", {"seq": (await last_sequence(server)) - 5})
        (found,) = await one.store.read([Query(pen.id, pen.topic)])
        assert "are lost" in str(found)
        assert text_of(await one.read(pen, 16), 16) == "8 9 "


async def last_sequence(server: StoringNats) -> int:
    number: int = (await server.ask(f"STREAM.INFO.{STREAM}"))["state"]["last_seq"]
    return number


async def test_large_last_pieces_of_many_streams(server: StoringNats) -> None:
    pens = [Pen(f"answer {number}", TOPIC) for number in range(24)]
    async with scribes(server.url) as (one,):
        await one.store.begin([pen.begin() for pen in pens])
        for pen in pens:
            await one.append(pen.say("x" * 700_000))
        looked = [granted(each) for each in await one.store.look([pen.id for pen in pens])]
        assert [each.length for each in looked if each] == [700_000] * 24
        assert await one.listed(TOPIC) == [pen.id for pen in pens][::-1]


async def test_more_streams_than_a_server_answers_at_once(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "MOST_AT_ONCE", 500)
    assert nats_connection.FILTERS < MAX_LISTED
    pens = [Pen(f"answer {number}", TOPIC) for number in range(MAX_LISTED + 300)]
    async with scribes(server.url) as (one,):
        for result in await one.store.begin([pen.begin() for pen in pens]):
            granted(result)
        assert await one.listed(TOPIC) == [pen.id for pen in pens][: -MAX_LISTED - 1 : -1]
        looked = await one.store.look([pen.id for pen in pens])
        assert [granted(each).id for each in looked if each] == [pen.id for pen in pens]


async def test_time_is_the_engines(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    pen = Pen("answer", TOPIC, times=Times(60_000, HOUR, HOUR))
    async with scribes(server.url) as (one,):
        await one.begin(pen)
        monkeypatch.setattr("time.time", lambda: 0.0)  # a node whose clock is wrong
        async with scribes(server.url) as (two,):
            found = await two.seen(pen)
            assert 30_000 < found.left <= 60_000
            assert found.age < 30_000
            ended = await two.end(pen.end("lost", is_of_dead=True))
            assert ended is not None
            assert (ended.end, ended.left > 30_000) == ("", True)
