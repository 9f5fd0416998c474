"""Logs in Redis and Valkey: what they keep there and for how long, scripts that go, servers that are none to ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import NoScriptError, ReadOnlyError

from tests.support import eventually
from tests.support.configured import configured
from tests.support.engines import ENGINES, Engine, engine
from tests.support.redis_servers import OneShard, cluster, order, tell
from velocity_ws.backplane import create_backplane
from velocity_ws.history.entries import Entry
from velocity_ws.history.items import MAX_REMOVED, Append, Limits, Log, Lookup, Query, Refused, Removal, granted
from velocity_ws.history.redis import RedisHistory
from velocity_ws.history.redis_servers import _undone
from velocity_ws.testing import HistoryContract
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening, refused

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
LOG = Log("velocity.room.chat=3A7", Limits(100, 600_000, 1024**2))
SAME = b"s" * 16
NEEDED = (
    *("+evalsha", "+script|load", "+get", "+set", "+del", "+pexpire", "+time"),
    *("+rpush", "+lpop", "+llen", "+lindex", "+lrange", "+ltrim", "+hset", "+hsetnx", "+hmget", "+hlen", "+publish"),
    *("~{velocity*", "&velocity.*"),
)


@asynccontextmanager
async def keeper(url: str) -> AsyncIterator[Keeper]:
    found = Keeper(RedisHistory(url))
    try:
        await found.connect()
        yield found
    finally:
        await found.store.close()
        found.store.release()


async def follows(server: Engine, primary: Engine | None) -> None:
    """Make a server a replica, or a primary."""
    where: tuple[str | int, ...] = ("NO", "ONE") if primary is None else ("127.0.0.1", primary.port)
    assert await order(server, "REPLICAOF", *where) in (b"OK", "OK", True)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_log_has_there_is_under_one_tag_and_goes_by_itself(kind: str) -> None:
    async with engine(kind) as server, keeper(server.url) as one:
        await one.append_once(LOG, b"1", "key", SAME)
        await one.store.remove([Removal(LOG, "ann")])
        keys = sorted(await order(server, "KEYS", "*"))
        assert [key.rpartition(b"}")[2].partition(b":")[2].partition(b":")[0] for key in keys] == [
            *(b"key", b"log", b"meta", b"removals")
        ]
        assert {key_slot(key) for key in keys} == {key_slot(LOG.topic.encode())}  # which is the channel's
        left = {key.decode().split(":")[1]: await order(server, "PTTL", key.decode()) for key in keys}
        meta = LOG.limits.meta_ttl
        assert meta - 5000 < left["meta"] <= meta
        assert meta - 5000 < left["removals"] <= meta
        assert LOG.limits.ttl < left["log"] <= LOG.limits.ttl * 9 // 8 + 1
        assert 295_000 < left["key"] <= 300_000
        for key in keys:
            await order(server, "PEXPIRE", key.decode(), 50_000)
        await one.top(LOG)
        assert await order(server, "PTTL", f"{{{LOG.topic}}}:meta") > 60_000
        assert await order(server, "PTTL", f"{{{LOG.topic}}}:removals") > 60_000


@pytest.mark.parametrize("kind", KINDS)
async def test_the_expiry_of_a_list_is_set_now_and_then_and_outlives_its_entries(kind: str) -> None:
    log = Log("velocity.room.busy", Limits(1000, 400, 1024**2))
    async with engine(kind) as server, keeper(server.url) as one:
        (first,) = await one.append(log, b"0")
        count, entry = 1, first
        while count < 30 or entry.stamp.time < first.stamp.time + 150:  # in which time it is set thrice
            (entry,) = await one.append(log, b"1")
            count += 1
            left = await order(server, "PTTL", f"{{{log.topic}}}:log")
            assert left >= entry.stamp.time + 400 - (await one.top(log)).time  # less, on a machine that is busy
        said = await order(server, "INFO", "commandstats")
        metas = count - 1  # whose expiry a question sets
        assert 2 <= said["cmdstat_pexpire"]["calls"] - metas < count


@pytest.mark.parametrize("kind", KINDS)
async def test_scripts_that_are_gone_are_loaded_again(kind: str) -> None:
    async with engine(kind) as server, keeper(server.url) as one:
        await one.append(LOG, b"1")
        await order(server, "SCRIPT", "FLUSH")
        await one.append(LOG, *(b"%d" % number for number in range(2, 50)))
        await order(server, "SCRIPT", "FLUSH")
        found = await one.read(LOG)
        assert [entry.envelope for entry in found.entries] == [b"%d" % number for number in range(1, 50)]
        await order(server, "SCRIPT", "FLUSH")
        assert await one.store.removed([Lookup(LOG, "ann")]) == [0]
        await order(server, "SCRIPT", "FLUSH")
        assert (await one.store.clear(LOG)).evicted == 49
        assert one.losses == []


def test_what_was_not_done_is_not_done_behind_what_was() -> None:
    gone = NoScriptError("gone")
    assert _undone(NoScriptError, ["a", "b", "a", "a"], [gone, gone, b"done", gone]) == [1, 3]
    assert _undone(NoScriptError, ["a", "a"], [gone, gone]) == [0, 1]
    assert _undone(NoScriptError, ["a", "a"], [gone, ReadOnlyError("no")]) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replica_is_no_store_until_it_is_promoted(kind: str, tmp_path: Path) -> None:
    async with configured(kind, "--dir", str(tmp_path), "--repl-diskless-sync-delay", "0") as primary:
        copying = ("--replicaof", "127.0.0.1", str(primary.port), "--dbfilename", "replica.rdb")
        async with configured(kind, "--dir", str(tmp_path), *copying) as replica, keeper(primary.url) as one:
            await one.append(LOG, b"1")
            other = Keeper(RedisHistory(replica.url))
            assert "is a replica" in str(await refused(other.connect()))
            await other.store.close()
            await caught_up(replica)
            await follows(replica, None)
            await follows(primary, replica)
            async with keeper(replica.url) as promoted:
                (entry,) = await promoted.append(LOG, b"2")
                assert entry.stamp.position.offset == 2
            await refused(one.append(LOG, b"lost"))  # by the server, or as its role was seen before
            assert len(one.losses) == 1
            assert "replica" in str(one.losses[0])
            await refused(one.append(LOG, b"lost"))


async def caught_up(replica: Engine) -> None:
    """Wait until a replica has what its primary has."""

    async with asyncio.timeout(20):
        while True:
            said = await order(replica, "INFO", "replication")
            if said["master_link_status"] == "up" and await order(replica, "DBSIZE"):
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
async def test_with_an_append_only_file_a_killed_server_loses_nothing(kind: str, tmp_path: Path) -> None:
    # By default the server answers before it has written, where an earlier write is still on its way to the disk.
    options = ("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", "always")
    async with configured(kind, *options) as server, keeper(server.url) as one:
        entries = [entry for number in range(20) for entry in await one.append(LOG, *[b"%d" % number] * 5)]
        await one.store.keep("history.kinds", b"kept")
        await server.restart()
        await eventually(lambda: one.losses)
        await one.store.close()
        await one.connect()
        assert (await one.read(LOG)).entries == entries
        assert await one.store.kept("history.kinds") == b"kept"


@pytest.mark.parametrize("kind", KINDS)
async def test_many_removals_are_bounded(kind: str) -> None:
    async with engine(kind) as server, keeper(server.url) as one:
        for _ in range(2):
            await one.store.remove([Removal(LOG, f"user {number}") for number in range(MAX_REMOVED + 1)])
        assert await order(server, "HLEN", f"{{{LOG.topic}}}:removals") <= MAX_REMOVED + 2
        last = 2 * MAX_REMOVED + 2
        lookups = [Lookup(LOG, user) for user in ("user 0", f"user {MAX_REMOVED}", "nobody")]
        first, newest, nobody = await one.store.removed(lookups)
        assert newest == last
        assert MAX_REMOVED < nobody <= first < last


async def test_a_slot_that_moves_and_has_moved(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as servers:
        slot = key_slot(LOG.topic.encode())
        source, target = servers if slot < 8192 else servers[::-1]
        names = [(await tell(each, "MYID")).decode() for each in (source, target)]
        async with keeper(f"valkey+cluster://127.0.0.1:{servers[0].port}") as one:
            entries = await one.append(LOG, b"1")
            await tell(target, "SETSLOT", slot, "IMPORTING", names[0])
            await tell(source, "SETSLOT", slot, "MIGRATING", names[1])
            assert [await moves(one), await moves(one)] == ["moving", "moving"]
            for key in await tell(source, "GETKEYSINSLOT", slot, 10):
                await order(source, "MIGRATE", "127.0.0.1", target.port, key.decode(), 0, 5000)
            assert await moves(one) == "moving"
            (refusal,) = await one.store.read([Query(LOG)])
            assert isinstance(refusal, Refused)
            for each in (target, source):
                await tell(each, "SETSLOT", slot, "NODE", names[1])
            other = LOG._replace(topic="velocity.room.other")
            results = await one.store.append([Append(LOG, b"2"), Append(other, b"1"), Append(LOG, b"3")])
            assert [granted(result).stamp.position.offset for result in results] == [2, 1, 3]
            assert (await one.read(LOG)).entries[0] == entries[0]
            assert len(await one.store.secret(LOG.topic)) == 32
            assert one.losses == []


async def moves(one: Keeper) -> str:
    """Why nothing is appended."""
    (refusal,) = await one.store.append([Append(LOG, b"not now")])
    assert isinstance(refusal, Refused)
    return refusal.reason


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_connection_ends_it(kind: str) -> None:
    async with engine(kind) as server, keeper(server.url) as one:
        await order(server, "CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda: one.losses)
        await refused(one.append(LOG, b"1"))
        assert len(one.losses) == 1


@pytest.mark.parametrize(("policy", "most", "is_warned"), [
    ("allkeys-lru", "100mb", True), ("allkeys-lru", "0", False), ("noeviction", "100mb", False),
])  # fmt: skip
async def test_a_policy_that_evicts_any_key_is_warned_of_once(
    policy: str, most: str, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with configured("valkey", "--maxmemory", most, "--maxmemory-policy", policy) as server:
        async with keeper(server.url) as one:
            await one.store.close()
            await one.connect()
    said = [record for record in caplog.records if record.name == "velocity_ws.history"]
    assert [(record.levelno, policy in record.getMessage()) for record in said] == [(logging.WARNING, True)] * is_warned


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_login_must_be_allowed(kind: str) -> None:
    async with engine(kind) as server:
        await order(server, "ACL", "SETUSER", "chat", "on", ">secret", "resetchannels", *NEEDED)
        url = f"{server.url.partition('://')[0]}://chat:secret@127.0.0.1:{server.port}"
        async with keeper(url) as one, listening(create_backplane(server.url), [LOG.topic]) as listener:
            small = LOG._replace(limits=Limits(2, 1, 10))
            await one.append_once(LOG, b"1", "key", SAME)
            await one.append(small, b"2", b"3", b"4", b"5" * 20)
            await one.append(LOG, b"6")
            await order(server, "DEL", f"{{{LOG.topic}}}:log")
            await one.append(LOG, b"7", b"8")
            assert len((await one.read(LOG)).entries) == 2
            granted((await one.store.remove([Removal(LOG, "ann", b"out")]))[0])
            assert await one.store.removed([Lookup(LOG, "ann")]) == [1]
            await one.store.clear(LOG, b"cleared")
            assert len(await one.store.secret("velocity.secret")) == 32
            await one.store.keep("velocity.kinds", b"1")
            assert await one.store.kept("velocity.kinds") == b"1"
            await listener.messages(10)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_lacks_a_command_does_nothing_by_halves(kind: str) -> None:
    async with engine(kind) as server, keeper(server.url) as one:
        entries = await one.append(LOG, b"1")
        for lacking, without in (("LPOP", "+lpop"), ("PUBLISH", "&velocity.*"), ("GET", "~{velocity*")):
            allowed = [each for each in NEEDED if each != without]
            await order(server, "ACL", "SETUSER", lacking, "on", ">secret", "resetchannels", *allowed)
            url = f"{server.url.partition('://')[0]}://{lacking}:secret@127.0.0.1:{server.port}"
            async with keeper(url) as limited:
                if without != "~{velocity*":
                    assert (await limited.read(LOG)).entries == entries
                for result in await limited.store.append([Append(LOG, b"never"), Append(LOG, b"nor this")]):
                    assert isinstance(result, Refused)
                    assert f"the login may not {lacking}" in str(result)
                (removal,) = await limited.store.remove([Removal(LOG, "ann")])
                assert isinstance(removal, Refused)
                assert "Refused" in repr(await refused(limited.store.clear(LOG)))
        assert (await one.read(LOG)).entries == entries
        assert (await one.top(LOG)).position == entries[-1].stamp.position


async def test_an_engine_without_scripts_is_refused_with_what_it_lacks() -> None:
    async with engine("valkey") as server:
        await order(server, "ACL", "SETUSER", "chat", "on", ">secret", "+@all", "-script", "~*", "&*")
        other = Keeper(RedisHistory(f"valkey://chat:secret@127.0.0.1:{server.port}"))
        assert "takes no scripts" in str(await refused(other.connect()))
        await other.store.close()


async def test_three_shards_keep_each_log_beside_its_channel(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as servers:
        urls = [f"redis+cluster://127.0.0.1:{server.port}" for server in servers[:2]]
        logs = [Log(f"velocity.room.{number}", LOG.limits) for number in range(30)]
        async with keeper(urls[0]) as one, keeper(urls[1]) as other:
            async with listening(create_backplane(urls[0]), [log.topic for log in logs]) as listener:
                appends = [Append(logs[number % 30], b"%d" % number) for number in range(300)]
                stamps = [granted(result).stamp for result in await one.store.append(appends)]
                await listener.messages(300)
                for index, log in enumerate(logs):
                    entries = (await other.read(log)).entries
                    assert [entry.envelope for entry in entries] == [b"%d" % each for each in range(index, 300, 30)]
                    assert [entry.stamp for entry in entries] == stamps[index::30]
                    heard = [payload for topic, payload in listener.received if topic == log.topic]
                    assert [Entry.unpack(payload) for payload in heard] == entries
            tops = await other.store.remove([Removal(log, "ann") for log in logs])
            assert [granted(top).position.revision for top in tops] == [1] * 30
            assert await one.store.removed([Lookup(log, "ann") for log in logs]) == [1] * 30
            assert await one.store.secret("velocity.secret") == await other.store.secret("velocity.secret")
            assert all([await order(server, "DBSIZE") for server in servers])
            alone = Keeper(RedisHistory(f"redis://127.0.0.1:{servers[0].port}"))
            assert "redis+cluster://" in str(await refused(alone.connect()))
            await alone.store.close()
            await servers[2].kill()
            await eventually(lambda: one.losses and other.losses)
            with contextlib.suppress(OSError):
                await one.store.tops(logs)
            assert len(one.losses) == len(other.losses) == 1


@pytest.mark.soak  # a server takes two seconds to believe that it is a cluster, and each test has its own
class TestOneShard(OneShard, HistoryContract):
    async def store(self) -> RedisHistory:
        return RedisHistory(self.url)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_primary_without_the_replicas_that_it_needs_refuses(kind: str, tmp_path: Path) -> None:
    bounds = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1", "--repl-diskless-sync-delay", "0")
    async with configured(kind, "--dir", str(tmp_path), *bounds) as primary:
        copying = ("--replicaof", "127.0.0.1", str(primary.port), "--dbfilename", "replica.rdb")
        async with configured(kind, "--dir", str(tmp_path), *copying) as replica, keeper(primary.url) as one:
            async with asyncio.timeout(20):
                while isinstance((await one.store.append([Append(LOG, b"kept")]))[0], Refused):
                    await asyncio.sleep(0.05)  # a second passes until the first answer counts
            replica.freeze()
            async with asyncio.timeout(20):
                while not isinstance(found := (await one.store.append([Append(LOG, b"kept")]))[0], Refused):
                    await asyncio.sleep(0.05)
            replica.thaw()
            assert "NOREPLICAS" in str(found)
