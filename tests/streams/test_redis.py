"""Streams in Redis and Valkey: what they keep there and for how long, what is claimed and what is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.support import eventually
from tests.support.configured import configured
from tests.support.engines import ENGINES, Engine, engine
from tests.support.redis_servers import cluster, order, tell
from tests.support.sentinels import guarded
from velocity_ws.backplane import create_backplane
from velocity_ws.history.base import MovingStore
from velocity_ws.history.items import Refused, granted
from velocity_ws.history.redis_servers import Call
from velocity_ws.streams import redis_scripts
from velocity_ws.streams.factory import create_streams
from velocity_ws.streams.items import MAX_LISTED, Begin, Query, Times, Written
from velocity_ws.streams.redis import MOST_BYTES, MOST_PIECES, RedisStreams
from velocity_ws.streams.redis_claims import topics_of
from velocity_ws.streams.redis_forms import Claim, keep_of, keys_of, pack_claim, tag_of
from velocity_ws.testing.listener import listening, refused
from velocity_ws.testing.stream_engine import Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, LONG, Pen

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
TOPIC = "velocity.room.chat=3A7"
TIMES = Times(60_000, 600_000, 6_000_000)
TAKEN, REFUSED = Written(is_taken=True), Written(is_taken=False)
NEEDED = (
    *("+evalsha", "+script|load", "+time", "+get", "+set", "+del", "+exists", "+pexpire", "+pttl", "+getrange"),
    *("+setrange", "+rpush", "+llen", "+lindex", "+lrange", "+zadd", "+zcard", "+zrem", "+zrevrange"),
    *("+zremrangebyrank", "+publish", "~{velocity*", "&velocity.*"),
)


@asynccontextmanager
async def scribe(url: str) -> AsyncIterator[Scribe]:
    found = Scribe(RedisStreams(url, prefix="velocity"))
    try:
        await found.connect()
        yield found
    finally:
        await found.store.close()
        found.store.release()


def pen(id_: str = "answer-42", topic: str = TOPIC, times: Times = TIMES) -> Pen:
    return Pen(id_, topic, "chat:7", times)


def keys(writer: Pen) -> tuple[str, str, str]:
    """The engine's keys of a stream: of what is known of it, its pieces and the topic's streams."""
    return keys_of("velocity", writer.id, writer.topic)[:3]


def claim(id_: str = "answer-42") -> str:
    """The key of an id's claim."""
    return f"{{{tag_of('velocity', id_)}}}:at"


async def left(server: Engine, *names: str) -> list[float]:
    """Seconds that keys are kept."""
    return [await order(server, "PTTL", name) / 1000 for name in names]


def about(*seconds: int) -> list[object]:
    """So long, less what a busy machine takes."""
    return [pytest.approx(each, abs=10) for each in seconds]


# --- what is kept


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_stream_has_there_is_beside_its_channel_and_goes_by_itself(kind: str) -> None:
    writer = pen()
    known, pieces, streams = keys(writer)
    async with engine(kind) as server, scribe(server.url) as one:
        await one.begin(writer)
        assert sorted(await order(server, "KEYS", "*")) == sorted(each.encode() for each in (known, streams, claim()))
        assert {key_slot(each.encode()) for each in (known, pieces, streams)} == {key_slot(TOPIC.encode())}
        assert await left(server, known, streams, claim()) == about(6660, 1260, 7320)
        await one.append(writer.say("text"), writer.say("more"))
        assert await left(server, pieces) == about(660)
        await one.renew(writer, Times(120_000, 600_000, 6_000_000))
        assert await left(server, known, pieces, streams, claim()) == about(6720, 720, 1320, 7380)
        shorter = pen(times=Times(1, 1, 1))
        assert await one.renew(shorter) == REFUSED
        assert await left(server, known, claim()) == about(6720, 7380)
        await one.append(writer.say("", "done"))
        assert await left(server, known, pieces) == about(6600, 600)
        other = pen("other")
        await one.begin(other)
        await one.end(other.end())
        assert await left(server, *keys(other)[:2]) == about(6600, 600)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_piece_but_the_first_and_the_last_sets_an_expiry(kind: str) -> None:
    writers = [pen(f"{number}", f"velocity.room.{number}") for number in range(30)]
    async with engine(kind) as server, scribe(server.url) as one:
        await one.store.begin([writer.begin() for writer in writers])
        await one.append(*[writer.say("text") for writer in writers for _ in range(10)])
        said = await order(server, "INFO", "commandstats")
        begun = 2 * len(writers)  # for the topic's streams, and the first piece
        assert said["cmdstat_pexpire"]["calls"] == begun
        assert said["cmdstat_evalsha"]["calls"] <= 3 * len(writers) + 300 / MOST_PIECES  # claims, begins; and a check


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_is_cut_by_pieces_and_by_bytes(kind: str) -> None:
    writers = [pen(f"{number}", f"velocity.room.{number % 3}") for number in range(MOST_PIECES + 10)]
    async with engine(kind) as server, scribe(server.url) as one:
        await one.store.begin([writer.begin() for writer in writers])
        sizes = [1, MOST_BYTES, 1, MOST_BYTES // 2, MOST_BYTES // 2, *[10] * len(writers)]
        appends = [writer.say("x" * size) for size, writer in zip(sizes, writers, strict=False)]
        appends += [writer.say("y") for writer in reversed(writers)]
        assert await one.append(*appends) == [TAKEN] * len(appends)
        for writer, size in zip(writers, sizes, strict=False):
            assert text_of(await one.read(writer)) == "x" * size + "y"


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_of_a_topic_that_are_gone_do_not_pile_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = redis_scripts.BEGIN.text.replace(str(2 * MAX_LISTED), "20")
    monkeypatch.setattr(redis_scripts.BEGIN, "text", small.replace(str(-2 * MAX_LISTED - 1), "-21"))
    monkeypatch.setattr(redis_scripts.BEGIN, "sha", type(redis_scripts.BEGIN)(redis_scripts.BEGIN.text).sha)
    old = pen("old")
    async with engine(kind) as server, scribe(server.url) as one:
        await one.begin(old)
        brief = [pen(f"{number}", times=Times(50, 50, 50)) for number in range(15)]
        await one.store.begin([writer.begin() for writer in brief])
        for writer in brief:
            await one.until(writer, lambda found: found is None)
        await one.store.begin([pen(f"new {number}").begin() for number in range(10)])
        assert await order(server, "ZCARD", keys(old)[2]) == 11
        assert (await one.listed(TOPIC))[-1] == "old"
        await one.store.begin([pen(f"newer {number}").begin() for number in range(20)])
        assert await order(server, "ZCARD", keys(old)[2]) == 20


@pytest.mark.parametrize("kind", KINDS)
async def test_with_an_append_only_file_a_killed_server_loses_no_piece(kind: str, tmp_path: Path) -> None:
    writer = pen()
    # Always, as with each second a busy disk makes a server wait with what it writes.
    options = ("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", "always")
    async with configured(kind, *options) as server, scribe(server.url) as one:
        await one.begin(writer)
        for _ in range(20):
            await one.append(*[writer.say("text ") for _ in range(5)])
        await one.store.mark()
        first = one.store.server_id  # type: ignore[attr-defined]
        await server.restart()
        await eventually(lambda: one.losses)
        await one.store.close()
        await one.connect()
        assert text_of(await one.read(writer)) == "text " * 100
        assert await one.append(writer.say("on", "done")) == [Written(is_taken=True, end="done")]
        assert await one.store.is_marked()
        assert first != one.store.server_id != ""  # type: ignore[attr-defined]
        assert isinstance(one.store, MovingStore)


# --- claims


@pytest.mark.parametrize("kind", KINDS)
async def test_what_claimed_an_id_and_went_has_a_stream_that_is_dead_soon(kind: str) -> None:
    gone = pen(topic="velocity.room.other", times=Times(50, HOUR, HOUR))
    writer = pen()
    async with engine(kind) as server, scribe(server.url) as one:
        await claimed(one, gone.begin())
        assert await one.look(writer.id) is None
        stream = (await one.begin(writer)).stream
        assert (stream.topic, stream.room, stream.writer) == (gone.topic, gone.room, gone.writer)
        assert (await one.begin(gone)).stream.writer == gone.writer
        await one.until_dead(gone)
        found = await one.end(gone.end("lost", is_of_dead=True))
        assert found is not None
        assert found.end == "lost"
        assert await one.append(writer.say("no")) == [REFUSED]
        again = pen()
        await claimed(one, pen("again").begin())  # by a writer that comes again, and by another of the same topic
        again.id = "again"
        assert (await one.begin(again)).stream.writer == again.writer
        assert await order(server, "PTTL", claim("again")) > TIMES.lease


async def test_a_claim_that_is_found_lasts_for_the_stream_that_begins_by_it() -> None:
    """Its maker could not begin it: its topic's server was away."""
    writer = pen(times=TIMES)
    async with engine(KINDS[0]) as server, scribe(server.url) as one:
        await claimed(one, writer.begin())
        await order(server, "PEXPIRE", claim(), 1_000_000)  # some time has passed
        await one.begin(writer)
        for_claim, for_stream = await left(server, claim(), keys(writer)[0])
        assert for_claim > for_stream


async def claimed(one: Scribe, begin: Begin) -> None:
    """Claim an id, and begin nothing."""
    tag = tag_of("velocity", begin.id)
    names = (f"{{{tag}}}:at", f"{{{tag}}}:no")
    call = Call(tag, names, (b"", pack_claim(begin), keep_of(begin.times)))
    (reply,) = await one.store.alter(redis_scripts.CLAIM, [call])  # type: ignore[attr-defined]
    assert Claim.unpack(reply[0], begin.id).begin == begin
    assert await topics_of(one.store, "velocity", [begin.id, "unknown"]) == [begin.topic, None]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_is_claimed_anew_once_though_many_find_the_claim_old(kind: str) -> None:
    async with engine(kind) as server, scribe(server.url) as one, scribe(server.url) as two:
        for number in range(10):
            old = pen(f"{number}", times=Times(20, 20, 20))
            await one.begin(old)
            await one.until(old, lambda found: found is None)
            anew = [pen(f"{number}", f"velocity.room.{index}") for index in range(6)]
            results = await asyncio.gather(*[
                each.store.begin([writer.begin() for writer in part])
                for each, part in ((one, anew[:3]), (two, anew[3:]))
            ])  # fmt: skip
            streams = [granted(result).stream for part in results for result in part]
            assert len({stream.writer for stream in streams}) == 1
            assert streams[0].writer in {writer.writer for writer in anew}


# --- what is lost


@pytest.mark.parametrize("kind", KINDS)
async def test_pieces_that_the_engine_has_lost_are_gone_and_the_stream_with_them(kind: str) -> None:
    read, written, ended = (pen(name) for name in ("read", "written", "ended"))
    async with engine(kind) as server, scribe(server.url) as one:
        async with listening(create_backplane(server.url), [TOPIC]) as listener:
            for writer in (read, written, ended):
                await one.begin(writer)
                await one.append(writer.say("1"), writer.say("2"))
                assert await order(server, "DEL", keys(writer)[1]) == 1
            part = await one.read(read)
            assert (part.stream.is_gone, part.payloads) == (True, [])
            assert await one.listed(TOPIC) == []
            assert await one.append(written.say("3")) == [Written(is_taken=False, end="lost")]
            assert await one.append(written.say("4")) == [Written(is_taken=False, end="lost")]
            assert await one.renew(written) == Written(is_taken=False, end="lost")
            found = await one.end(ended.end())
            for stream in (await one.seen(written), found):
                assert stream is not None
                assert (stream.end, stream.is_gone, stream.pieces) == ("lost", True, 2)
            await listener.backplane.publish([(TOPIC, b"last")])
            assert len(await listener.up_to(TOPIC, b"last")) == 6
            assert await order(server, "EXISTS", keys(written)[1]) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_the_engine_has_lost_begins_with_nothing(kind: str) -> None:
    writer, other = pen(), pen()
    async with engine(kind) as server, scribe(server.url) as one:
        await one.begin(writer)
        await one.append(writer.say("old"))
        assert await order(server, "DEL", keys(writer)[0]) == 1
        assert await one.look(writer.id) is None
        assert await one.append(writer.say("no")) == [REFUSED]
        assert await one.renew(writer) == REFUSED
        assert await one.listed(TOPIC) == []
        assert (await one.begin(other)).stream.pieces == 0
        await one.append(other.say("new"))
        assert text_of(await one.read(other)) == "new"
        assert await one.listed(TOPIC) == [other.id]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_writer_does_not_die_because_the_engine_is_full(kind: str) -> None:
    writer = pen()
    async with engine(kind) as server, scribe(server.url) as one:
        await one.begin(writer)
        await order(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await order(server, "CONFIG", "SET", "maxmemory", "100kb")
        assert await one.renew(writer, LONG) == TAKEN
        assert (await one.seen(writer)).left > TIMES.lease
        (result,) = await one.store.append([writer.say("text")])
        assert isinstance(result, Refused)
        assert "OOM" in str(result)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_piece_behind_one_that_is_refused_is_refused_with_it(kind: str) -> None:
    writer, other = pen(), pen("other")
    async with engine(kind) as server, scribe(server.url) as one:
        await one.store.begin([writer.begin(), other.begin()])
        large = writer.say("x" * (one.store.max_payload + 1))
        refusal, unclear, done = await one.store.append([large, writer.say("behind"), other.say("text")])
        assert isinstance(refusal, Refused)
        assert unclear is refusal  # a writer that is told that it is the writer no more gives up
        assert done == TAKEN


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_of_somebody_else_stops_one_stream_and_no_other(kind: str) -> None:
    writers = [pen(name) for name in ("a", "b", "c")]
    async with engine(kind) as server, scribe(server.url) as one:
        await one.store.begin([writer.begin() for writer in writers])
        await order(server, "SET", keys(writers[1])[1], "not a list")
        first, second, third = await one.store.append([writer.say("text") for writer in writers])
        assert (first, third) == (TAKEN, TAKEN)
        assert isinstance(second, Refused)
        assert "WRONGTYPE" in str(second)
        assert one.losses == []


# --- servers


@pytest.mark.parametrize("kind", KINDS)
async def test_scripts_of_streams_that_are_gone_are_loaded_again(kind: str) -> None:
    writers = [pen(f"{number}") for number in range(250)]
    async with engine(kind) as server, scribe(server.url) as one:
        await order(server, "SCRIPT", "FLUSH")
        await one.store.begin([writer.begin() for writer in writers])
        await order(server, "SCRIPT", "FLUSH")
        assert await one.append(*[writer.say("text") for writer in writers]) == [TAKEN] * 250
        await order(server, "SCRIPT", "FLUSH")
        assert text_of(await one.read(writers[0])) == "text"
        await order(server, "SCRIPT", "FLUSH")
        assert await one.renew(writers[0]) == TAKEN
        assert one.losses == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_primary_that_has_become_a_replica_is_left(kind: str, tmp_path: Path) -> None:
    writer = pen()
    async with configured(kind, "--dir", str(tmp_path)) as primary, engine(kind) as other, scribe(primary.url) as one:
        await one.begin(writer)
        await order(primary, "REPLICAOF", "127.0.0.1", other.port)
        await refused(no_more(one, writer))
        await eventually(lambda: one.losses)
        await refused(one.append(writer.say("lost")))
        assert len(one.losses) == 1


async def no_more(one: Scribe, writer: Pen) -> None:
    """Append until that is refused: by the server, or as its role was seen before."""
    while True:
        await one.append(writer.say("text"))


async def test_a_slot_that_moves_and_has_moved_takes_its_streams_with_it(tmp_path: Path) -> None:
    writer, other = pen(), pen("other", "velocity.room.other")
    async with cluster(tmp_path, 2) as servers:
        slot = key_slot(TOPIC.encode())
        source, target = servers if slot < 8192 else servers[::-1]
        names = [(await tell(each, "MYID")).decode() for each in (source, target)]
        async with scribe(f"valkey+cluster://127.0.0.1:{servers[0].port}") as one:
            await one.store.begin([writer.begin(), other.begin()])
            await one.append(writer.say("1"), other.say("1"))
            await tell(target, "SETSLOT", slot, "IMPORTING", names[0])
            await tell(source, "SETSLOT", slot, "MIGRATING", names[1])
            assert await one.append(writer.say("2")) == [TAKEN]  # nothing of it has moved yet
            await order(source, "MIGRATE", "127.0.0.1", target.port, keys(writer)[0], 0, 5000)
            third, fourth = writer.say("3"), writer.say("4")
            for moving in await one.store.append([third, fourth]):
                assert isinstance(moving, Refused)
                assert moving.reason == "moving"
            (moving_read,) = await one.store.read([Query(writer.id, TOPIC)])
            assert isinstance(moving_read, Refused)
            for key in await tell(source, "GETKEYSINSLOT", slot, 10):
                await order(source, "MIGRATE", "127.0.0.1", target.port, key.decode(), 0, 5000)
            for each in (target, source):
                await tell(each, "SETSLOT", slot, "NODE", names[1])
            assert await one.append(third, other.say("2"), fourth) == [TAKEN] * 3
            assert text_of(await one.read(writer)) == "1234"
            assert await one.listed(TOPIC) == [writer.id]
            assert one.losses == []


async def test_three_shards_keep_each_stream_beside_its_channel(tmp_path: Path) -> None:
    topics = [f"velocity.room.{number}" for number in range(30)]
    writers = [pen(f"{number}", topics[number % 30]) for number in range(60)]
    async with cluster(tmp_path, 3) as servers:
        urls = [f"redis+cluster://127.0.0.1:{server.port}" for server in servers[:2]]
        async with scribe(urls[0]) as one, scribe(urls[1]) as two:
            async with listening(create_backplane(urls[1]), topics) as listener:
                await one.store.begin([writer.begin() for writer in writers])
                elsewhere = [pen(f"{number}", "velocity.room.elsewhere") for number in range(60)]
                for result, writer in zip(
                    await two.store.begin([each.begin() for each in elsewhere]), writers, strict=True
                ):
                    assert granted(result).stream[:4] == (writer.id, writer.topic, writer.room, writer.writer)
                said = [writer.say(f"{step} ") for step in range(5) for writer in writers]
                assert await one.append(*said) == [TAKEN] * 300
                await listener.messages(300)
                for writer in writers:
                    part = await two.read(writer)
                    assert text_of(part) == "0 1 2 3 4 "
                    heard = [payload[5:] for _, payload in listener.received if payload[5:] in part.payloads]
                    assert heard != []
                assert sorted(await two.listed(topics[7])) == ["37", "7"]
                looked = await two.store.look([writer.id for writer in writers])
                assert all(not isinstance(each, Refused) and each and each.pieces == 5 for each in looked)
            assert all([await order(server, "DBSIZE") for server in servers])
            alone = Scribe(RedisStreams(f"redis://127.0.0.1:{servers[0].port}"))
            assert "redis+cluster://" in str(await refused(alone.connect()))
            await alone.store.close()


async def test_behind_sentinels_streams_go_on_with_the_next_primary(tmp_path: Path) -> None:
    writer = pen()
    async with guarded(tmp_path, count=2) as servers:
        async with scribe(servers.url) as one:
            await one.begin(writer)
            await one.append(writer.say("before"))
            await servers.settled()
            await servers.fail_over()
            await eventually(lambda: one.losses, within=60)
            async with asyncio.timeout(60):
                while True:
                    await one.store.close()
                    try:
                        await one.connect()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
            assert await one.append(writer.say(" and after", "done")) == [Written(is_taken=True, end="done")]
            assert text_of(await one.read(writer)) == "before and after"


# --- logins


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_login_must_be_allowed_for_streams(kind: str) -> None:
    writer, other = pen(), pen("other")
    async with engine(kind) as server:
        await order(server, "ACL", "SETUSER", "chat", "on", ">secret", "resetchannels", *NEEDED)
        async with scribe(f"{server.url.partition('://')[0]}://chat:secret@127.0.0.1:{server.port}") as one:
            await one.store.begin([writer.begin(), other.begin()])
            await one.append(writer.say("text"), writer.say("more"), writer.say("", "done"))
            assert text_of(await one.read(writer, 1)) == "textmore"
            assert await one.renew(other) == TAKEN
            assert await one.listed(TOPIC) == [other.id, writer.id]
            found = await one.end(other.end())
            assert found is not None
            assert found.end == "cancelled"
            await order(server, "DEL", keys(other)[0])
            assert await one.listed(TOPIC) == [writer.id]
            await one.store.forbid(["never"], 1000)
            await one.store.mark()
            assert await one.store.is_marked()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_lacks_a_command_leaves_no_stream_by_halves(kind: str) -> None:
    writer = pen()
    async with engine(kind) as server, scribe(server.url) as one:
        await one.begin(writer)
        for lacking, without in (("SETRANGE", "+setrange"), ("PUBLISH", "&velocity.*"), ("PTTL", "+pttl")):
            allowed = [each for each in NEEDED if each != without]
            await order(server, "ACL", "SETUSER", lacking, "on", ">secret", "resetchannels", *allowed)
            async with scribe(
                f"{server.url.partition('://')[0]}://{lacking}:secret@127.0.0.1:{server.port}"
            ) as limited:
                results = [
                    *await limited.store.append([writer.say("no")]),
                    *await limited.store.begin([pen("new").begin()]),
                    *await limited.store.end([writer.end()]),
                ]
                for result in results:
                    assert isinstance(result, Refused)
                    assert f"the login may not {lacking}" in str(result)
        assert (await one.seen(writer))[4:7] == (0, 0, "")
        assert await one.look("new") is None


async def test_a_policy_that_evicts_streams_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with configured("valkey", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with scribe(server.url):
            pass
    (said,) = [record for record in caplog.records if record.name == "velocity_ws.history"]
    assert (said.levelno, "and so streams" in said.getMessage()) == (logging.WARNING, True)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "redis+cluster"])
def test_the_factory_makes_it_of_a_url(scheme: str) -> None:
    assert isinstance(create_streams(f"{scheme}://127.0.0.1:6379", "velocity"), RedisStreams)
