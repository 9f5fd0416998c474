"""Logs in JetStream: servers that keep none, writers that race, rings that grow, servers that die, clocks, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.configured import configured
from tests.support.engines import engine
from tests.support.jetstream import STREAM, StoringNats, storing
from tests.support.log_steps import answers_as_memory_does
from velocity_ws.backplane import create_backplane
from velocity_ws.errors import SettingsError
from velocity_ws.history import nats_clock, nats_logs, nats_removals
from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Append, Limits, Log, Lookup, Query, Refused, Removal, granted
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats import NatsHistory
from velocity_ws.history.nats_head import TABLE
from velocity_ws.history.nats_messages import Message, WrongSequence
from velocity_ws.history.nats_stream import Names, check_version
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening

NAMES = Names("velocity")
LOG = Log("velocity.room.chat", Limits(100, 3600_000, 1024 * 1024))
SAME = b"s" * 16
NEEDED = (
    *("velocity+history.>", "$JS.API.STREAM.INFO.velocity-history", "$JS.API.STREAM.CREATE.velocity-history"),
    *("$JS.API.STREAM.PURGE.velocity-history", "$JS.API.DIRECT.GET.velocity-history"),
)
_names = itertools.count()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StoringNats]:
    async with storing(tmp_path) as server:
        yield server


@asynccontextmanager
async def keepers(url: str, count: int = 1, **options: str) -> AsyncIterator[Sequence[Keeper]]:
    found = [Keeper(NatsHistory(url, **options)) for _ in range(count)]  # type: ignore[arg-type]
    try:
        for each in found:
            await each.connect()
        yield found
    finally:
        for each in found:
            await each.store.close()


def sized(size: int, topic: str = LOG.topic) -> Log:
    return Log(topic, LOG.limits._replace(size=size))


def offsets(entries: Sequence[Entry]) -> list[int]:
    return [entry.stamp.position.offset for entry in entries]


# --- servers and streams that are no good


async def test_a_server_without_jetstream() -> None:
    async with engine("nats") as plain:
        with pytest.raises(SettingsError, match="start it with -js"):
            await Keeper(NatsHistory(plain.url)).connect()


def test_a_server_that_is_too_old() -> None:
    for version in ("2.11.0", "2.15.1", "2.16.0-RC.1", "3.0.0"):
        check_version(version)
    for version in ("2.10.26", "1.4.1"):
        with pytest.raises(SettingsError, match=rf"{version} is too old for history; at least 2\.11"):
            check_version(version)


async def test_an_account_without_jetstream(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(
        f'jetstream {{ store_dir: "{tmp_path}/js" }}\n'
        "accounts { A { jetstream: enabled, users: [{user: a, password: a}] }, B { users: [{user: b, password: b}] } }"
    )
    async with configured("nats", "-c", str(tmp_path / "nats.conf")) as both:
        at = both.url.partition("://")[2]
        with pytest.raises(SettingsError, match="account"):
            await Keeper(NatsHistory(f"nats://b:b@{at}")).connect()
        async with keepers(f"nats://a:a@{at}") as (one,):
            await one.append(LOG, b"1")


async def test_what_a_login_must_be_allowed(tmp_path: Path) -> None:
    users = [{"user": "admin", "password": "a"}]
    for name, publish in (("chat", NEEDED), ("other", NEEDED[:-1])):
        allowed = {"publish": publish, "subscribe": ["_INBOX.>"]}
        users.append({"user": name, "password": name[0], "permissions": allowed})  # type: ignore[dict-item]
    config = {"jetstream": {"store_dir": f"{tmp_path}/js"}, "authorization": {"users": users}}
    (tmp_path / "nats.conf").write_text(json.dumps(config))
    async with configured("nats", "-c", str(tmp_path / "nats.conf")) as server:
        at = server.url.partition("://")[2]
        async with keepers(f"nats://chat:c@{at}") as (one,):
            async with listening(create_backplane(f"nats://admin:a@{at}"), [LOG.topic]) as listener:
                await one.append_once(LOG, b"1", "key", SAME)
                await one.append(sized(1), b"2", b"3")
                assert len((await one.read(LOG)).entries) == 1
                granted((await one.store.remove([Removal(LOG, "ann", b"out")]))[0])
                assert await one.store.removed([Lookup(LOG, "ann")]) == [1]
                await one.store.clear(LOG, b"cleared")
                assert len(await one.store.secret("history.secret")) == 32
                await one.store.keep("history.kinds", b"1")
                assert await one.store.kept("history.kinds") == b"1"
                await listener.messages(5)
        async with keepers(f"nats://other:o@{at}") as (one,):
            with pytest.raises(ConnectionError, match=r"(?i)permissions violation.*DIRECT\.GET"):
                await one.append(LOG, b"1")
            await eventually(lambda: one.losses)


async def test_a_stream_that_is_there_is_used_where_it_is_good(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        await one.append(LOG, b"1")
    config = (await server.ask(f"STREAM.INFO.{STREAM}"))["config"]
    await server.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_bytes": 2**24, "description": "of the shop"})
    async with keepers(server.url) as (one,):
        assert offsets((await one.read(LOG)).entries) == [1]
    with pytest.raises(SettingsError, match="has storage 'file', which for history must be 'memory'"):
        await Keeper(NatsHistory(server.url, storage="memory")).connect()
    await server.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_age": 10**12})
    with pytest.raises(SettingsError, match="max_age 1000000000000, which for history must be 0"):
        await Keeper(NatsHistory(server.url)).connect()


async def test_a_stream_that_is_deleted_is_made_again(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        (entry,) = await one.append(LOG, b"1")
        await server.ask(f"STREAM.DELETE.{STREAM}")
        for call in (one.append(LOG, b"2"), one.read(LOG)):
            with pytest.raises(ConnectionError, match="is gone"):
                await call
        await one.store.close()
        await one.connect()
        assert await one.recover(LOG, entry.stamp.position) == "epoch"


async def test_prefixes_do_not_meet(server: StoringNats) -> None:
    async with keepers(server.url) as (one,), keepers(server.url, prefix="shop") as (shop,):
        await one.append(LOG, b"1")
        assert (await shop.read(LOG)).entries == []


# --- writers at once


async def test_a_guard_refuses_what_was_made_of_an_old_head(server: StoringNats) -> None:
    async with keepers(server.url, 2) as (one, two):
        await one.append(LOG, b"1")
        stale = one.store._logs.cached(LOG.topic)  # type: ignore[attr-defined]
        await two.append(LOG, b"2", b"3")
        logs = one.store._logs  # type: ignore[attr-defined]
        with pytest.raises(WrongSequence):
            await logs.write(LOG.topic, stale, stale.head, await logs.now(), loud=b"never heard")
        (entry,) = await one.append(LOG, b"4")
        assert entry.stamp.position.offset == 4
        assert [each.envelope for each in (await two.read(LOG)).entries] == [b"1", b"2", b"3", b"4"]


async def test_what_is_appended_to_several_logs_at_once_goes_out_in_one_write(
    server: StoringNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    appends = [Append(LOG._replace(topic=f"velocity.room.{number}"), b"1") for number in range(5)]
    async with keepers(server.url) as (one,):
        await one.store.append(appends)  # after which the store knows the logs
        client, writes = one.store._logs.stream._requests._client, list[bytes]()  # type: ignore[attr-defined]
        write = client.write

        def noted(commands: list[bytes]) -> None:
            writes.append(b"".join(commands))
            write(commands)

        monkeypatch.setattr(client, "write", noted)
        assert [granted(each).stamp.position.offset for each in await one.store.append(appends)] == 5 * [2]
        assert len(writes) == 1
        await one.store.append(appends[:1])
        assert len(writes) == 2


async def test_eight_writers_of_a_short_ring(server: StoringNats) -> None:
    async with keepers(server.url, 8) as writers:

        async def write(keeper: Keeper, who: int) -> list[Entry]:
            return [(await keeper.append(sized(3), b"%d %d" % (who, number)))[0] for number in range(10)]

        written = [
            entry
            for each in await asyncio.gather(*[write(each, who) for who, each in enumerate(writers)])
            for entry in each
        ]
        written.sort(key=lambda entry: entry.stamp.position.offset)
        assert offsets(written) == list(range(1, 81))
        marks = [entry.stamp.position.mark for entry in written]
        assert [entry.stamp.previous for entry in written[1:]] == marks[:-1]
        assert (await writers[0].read(sized(3))).entries == written[-3:]


async def test_a_key_does_not_reach_other_rooms(server: StoringNats) -> None:
    other = sized(100, "velocity.room.other")
    async with keepers(server.url) as (one,):
        for log in (LOG, other):
            assert not (await one.append_once(log, b"1", "key", SAME)).is_duplicate
        for log in (LOG, other):
            await one.append(log, b"2")  # so that what is known of the key has moved
            assert (await one.append_once(log, b"1", "key", SAME)).is_duplicate


async def test_a_key_is_known_behind_a_notice_and_a_restart(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        first = await one.append_once(LOG, b"1", "key", SAME)
        granted((await one.store.remove([Removal(LOG, "ann", b"out")]))[0])
        await server.restart()
        await one.store.close()
        await one.connect()
        again = await one.append_once(LOG, b"1", "key", SAME)
        assert (again.is_duplicate, again.stamp) == (True, first.stamp)
        (refused,) = await one.store.append([Append(LOG, b"1", "key", b"o" * 16)])
        assert isinstance(refused, Refused)
        assert refused.reason == "conflict"


# --- rings, tables and pages


async def test_a_log_longer_than_an_answer_is_read_in_pages(server: StoringNats) -> None:
    log = sized(1500)
    async with keepers(server.url) as (one,):
        for _ in range(4):
            await one.append(log, *[b"x"] * 400)
        found = granted((await one.store.read([Query(log, 0, 2000)]))[0])
        assert (offsets(found.entries), found.top.evicted) == (list(range(101, 1601)), 100)
        for newest, first in ((False, 101), (True, 401)):
            found = granted((await one.store.read([Query(log, 0, 1200, newest=newest)]))[0])
            assert offsets(found.entries) == list(range(first, first + 1200))


async def test_sizes_that_change_on_nodes_that_do_not_agree(server: StoringNats) -> None:
    rng = random.Random(13)
    async with keepers(server.url, 2) as writers:
        kept: list[Entry] = []
        for _ in range(120):
            size = rng.choice([1, 2, 3, 5, 8, 40, 60])
            keeper = rng.choice(writers)
            kept = [*kept, *(await keeper.append(sized(size), b"x" * rng.randrange(9)))][-size:]
            assert (await rng.choice(writers).read(sized(size))).entries == kept


async def test_bytes_beyond_what_the_head_knows(server: StoringNats) -> None:
    rng = random.Random(13)
    log = Log(LOG.topic, Limits(1000, 3600_000, 400))
    async with keepers(server.url, 2) as writers:
        kept: list[Entry] = []
        for number in range(3 * TABLE):
            size = 450 if number == 2 * TABLE else rng.randrange(9)
            kept += await rng.choice(writers).append(log, b"x" * size)
            while sum(len(entry.envelope) for entry in kept) > 400:
                kept.pop(0)
        found = await writers[0].read(log)
        assert found.entries == kept
        await writers[0].append(log, *[b"y"] * 300)
        found = await writers[1].read(log)
        assert sum(len(entry.envelope) for entry in found.entries) in range(392, 401)
        assert found.top.evicted == found.entries[0].stamp.position.offset - 1


async def test_slots_that_are_lost_are_no_silent_hole(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        entries = await one.append(LOG, *[b"%d" % number for number in range(1, 6)])
        assert await server.purge(NAMES.slot(LOG.topic, "100-3")) == 1
        found = await one.read(LOG)
        assert (offsets(found.entries), found.top.evicted) == ([4, 5], 3)
        assert await one.recover(LOG, entries[0].stamp.position) == "evicted"
        assert await one.recover(LOG, entries[2].stamp.position) == [b"4", b"5"]
        newest = granted((await one.store.read([Query(LOG, newest=True)]))[0])
        assert newest.entries == found.entries


async def test_clearing_takes_entries_out_of_the_stream(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        await one.append(LOG, b"1", b"2", b"3")
        await one.store.clear(LOG)
        assert (await server.ask(f"STREAM.INFO.{STREAM}"))["state"]["messages"] == 1


# --- time


async def test_time_is_the_engines(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    async with keepers(server.url, 2) as (one, two):
        (first,) = await one.append(LOG, b"1")
        monkeypatch.setattr("time.time", lambda: 0.0)  # a node whose clock is wrong
        (second,) = await two.append(LOG, b"2")
        assert 0 <= second.stamp.time - first.stamp.time < 20_000
        logs = two.store._logs  # type: ignore[attr-defined]
        logs.clock._ahead -= 3600  # or an engine whose clock is set back
        (third,) = await two.append(LOG, b"3")
        assert third.stamp.time == second.stamp.time
        assert (await one.read(LOG)).entries == [first, second, third]


async def test_the_engine_is_asked_again_what_time_it_is(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    async with keepers(server.url) as (one,):
        logs = one.store._logs  # type: ignore[attr-defined]
        logs.clock._ahead += 3600
        assert await logs.now() > (await server_time(server)) + 3000_000
        monkeypatch.setattr(nats_clock, "CLOCK_INTERVAL", 0.0)
        assert abs(await logs.now() - await server_time(server)) < 20_000


async def server_time(server: StoringNats) -> float:
    from datetime import datetime

    return datetime.fromisoformat((await server.ask(f"STREAM.INFO.{STREAM}"))["ts"]).timestamp() * 1000


async def test_a_top_that_is_asked_for_is_known_on(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        (entry,) = await one.append(LOG, b"1")
        granted((await one.store.remove([Removal(LOG, "ann")]))[0])
        logs = one.store._logs  # type: ignore[attr-defined]
        for _ in range(4):
            logs.clock._ahead += LOG.limits.meta_ttl / 1000 - 1
            assert (await one.top(LOG)).position.mark == entry.stamp.position.mark
        assert await one.store.removed([Lookup(LOG, "ann")]) == [1]
        logs.clock._ahead += 2 * LOG.limits.meta_ttl / 1000
        assert await one.store.removed([Lookup(LOG, "ann")]) == [0]
        assert (await one.top(LOG)).position.epoch != entry.stamp.position.epoch
        assert (await one.read(LOG)).entries == []


# --- servers that die, and are full


async def test_nothing_that_was_acknowledged_is_lost_with_a_killed_server(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        acknowledged: list[Entry] = []

        async def write() -> None:
            while True:
                acknowledged.extend(await one.append(sized(1000), b"%d" % len(acknowledged)))

        writing = asyncio.create_task(write())
        while len(acknowledged) < 50:
            await asyncio.sleep(0)
        await server.restart()
        with pytest.raises(ConnectionError):
            await writing
        await one.store.close()
        await one.connect()
        entries = (await one.read(sized(1000))).entries
        assert entries[: len(acknowledged)] == acknowledged
        assert len(entries) - len(acknowledged) in (0, 1)
        assert await one.recover(sized(1000), acknowledged[9].stamp.position) == [
            entry.envelope for entry in entries[10:]
        ]


@pytest.mark.soak
async def test_writers_at_once_while_the_server_is_killed_again_and_again(server: StoringNats) -> None:
    log = sized(100_000)
    acknowledged: list[Entry] = []
    async with keepers(server.url, 4) as writers:

        async def write(keeper: Keeper, who: int) -> None:
            number = 0
            while not is_over:
                try:
                    acknowledged.extend(await keeper.append(log, b"%d %d" % (who, number)))
                    number += 1
                except OSError:
                    await keeper.store.close()
                    with contextlib.suppress(OSError):
                        await keeper.connect()

        is_over = False
        writing = [asyncio.create_task(write(each, who)) for who, each in enumerate(writers)]
        for _ in range(10):
            target = len(acknowledged) + 200
            while len(acknowledged) < target:
                await asyncio.sleep(0.001)
            await server.restart()
        is_over = True
        await asyncio.gather(*writing)
    async with keepers(server.url) as (one,):
        found = granted((await one.store.read([Query(log, limit=100_000, max_bytes=2**30)]))[0])
    assert offsets(found.entries) == list(range(1, found.top.position.offset + 1))
    by_offset = dict(zip(offsets(found.entries), found.entries, strict=True))
    assert [by_offset[entry.stamp.position.offset] for entry in acknowledged] == acknowledged
    marks = [entry.stamp.position.mark for entry in found.entries]
    assert [entry.stamp.previous for entry in found.entries[1:]] == marks[:-1]
    assert len(found.entries) - len(acknowledged) <= 4 * 10  # what was stored and not confirmed


async def test_a_server_that_is_full_and_has_room_again(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        entries = await one.append(LOG, b"1", b"2")
        await server.fill()
        for result in await one.store.append([Append(LOG, b"x" * 1000)]):
            assert isinstance(result, Refused)
        (removal,) = await one.store.remove([Removal(LOG, "ann")])
        assert isinstance(removal, Refused)
        with pytest.raises(Refused):
            await one.store.clear(LOG)
        config = (await server.ask(f"STREAM.INFO.{STREAM}"))["config"]
        await server.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_bytes": -1})
        entries += await one.append(LOG, b"3")
        assert (await one.read(LOG)).entries == entries
        assert offsets(entries) == [1, 2, 3]


async def test_an_entry_that_has_no_room_beside_the_next_has_it_after(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        entries = await one.append(LOG, b"x" * 1000)
        info = await server.ask(f"STREAM.INFO.{STREAM}")
        room = {**info["config"], "max_bytes": info["state"]["bytes"] + 700}
        await server.ask(f"STREAM.UPDATE.{STREAM}", room)
        entries += await one.append(LOG, b"2")
        assert (await one.read(LOG)).entries == entries


async def test_many_removals_are_bounded(server: StoringNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_removals, "MAX_REMOVED", 3)
    async with keepers(server.url) as (one,):
        for user in "abcde":
            granted((await one.store.remove([Removal(LOG, user)]))[0])
        lookups = [Lookup(LOG, user) for user in "abcdex"]
        assert await one.store.removed(lookups) == [2, 2, 3, 4, 5, 2]


async def test_many_removals_fit_into_a_message(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(f'jetstream {{ store_dir: "{tmp_path}/js" }}\nmax_payload: 8192')
    async with configured("nats", "-c", str(tmp_path / "nats.conf")) as small, keepers(small.url) as (one,):
        assert one.store.max_payload < 8192 - nats_logs.HEADERS
        await one.append(LOG, b"x" * one.store.max_payload)
        for top in await one.store.remove([Removal(LOG, f"user {number}") for number in range(400)]):
            granted(top)
        first, last, nobody = await one.store.removed([Lookup(LOG, f"user {number}") for number in (0, 399, 400)])
        assert 200 < nobody <= first < last == 400
        await one.append(LOG, b"y" * one.store.max_payload)
        assert one.losses == []


async def test_an_answer_that_comes_in_parts(server: StoringNats) -> None:
    log = Log(LOG.topic, Limits(100, 3600_000, 2**30))
    async with keepers(server.url) as (one,):
        entries = await one.append(log, *[b"%d" % number * 300_000 for number in range(10, 50)])
        found = granted((await one.store.read([Query(log, max_bytes=2**30)]))[0])
        assert found.entries == entries


async def test_a_guarded_message_of_another_stream_user(server: StoringNats) -> None:
    async with keepers(server.url) as (one,):
        await one.append(LOG, b"1")
        stream = JetStream(NAMES.stream, NAMES.anchor)
        await stream.open([server.url], lambda _: None, lambda _: None)
        try:
            await stream.store([Message(NAMES.quiet(LOG.topic), b"no head of ours")])
        finally:
            await stream.close()
        top = await one.top(LOG)
        assert top.position.offset == 0
        assert offsets(await one.append(LOG, b"2")) == [1]


# --- as memory


@pytest.mark.parametrize("examples", [12, pytest.param(1000, marks=pytest.mark.soak)])
def test_it_answers_as_memory_does(tmp_path: Path, examples: int) -> None:
    answers_as_memory_does(storing(tmp_path), lambda running: NatsHistory(running.url), examples)
