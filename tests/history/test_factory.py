"""What a URL names: a store on the engine of the backplane that it names, for topics with the same prefix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engines import engine
from tests.support.jetstream import storing
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import ALONE, split_url
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import SettingsError
from velocity_ws.history.embedded import EmbeddedHistory
from velocity_ws.history.factory import create_history
from velocity_ws.history.items import Limits, Log
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.history.nats import NatsHistory
from velocity_ws.history.redis import RedisHistory
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening

LIMITS = Limits(100, 3600_000, 1024 * 1024)
WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
import velocity_ws
from velocity_ws.history.factory import create_history
try:
    create_history(sys.argv[2])
except velocity_ws.SettingsError as error:
    print(error)
"""


async def heard_and_kept(url: str) -> list[int]:
    """The offsets of what is appended to a log by one store and read by another, while a backplane hears it."""
    log = Log(Topics(split_url(url)[1]).room("chat"), LIMITS)
    writer, reader = Keeper(create_history(url)), Keeper(create_history(url))
    try:
        for keeper in (writer, reader):
            await keeper.connect()
        async with listening(create_backplane(url), [log.topic]) as listener:
            await writer.append(log, b"1", b"2")
            await listener.messages(2)
        return [entry.stamp.position.offset for entry in (await reader.read(log)).entries]
    finally:
        for keeper in (writer, reader):
            await keeper.store.close()
            keeper.store.release()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", MemoryHistory),
        ("memory://shared?prefix=shop", MemoryHistory),
        ("embedded://", EmbeddedHistory),
        ("embedded://shop?store=/var/lib/shop&prefix=shop", EmbeddedHistory),
        ("nats://u:p@a:1,b:2?prefix=shop", NatsHistory),
        ("tls://a", NatsHistory),
        *((f"{scheme}://h", RedisHistory) for scheme in ("redis", "rediss", "valkey", "valkeys")),
        *((f"{scheme}+cluster://h", RedisHistory) for scheme in ("redis", "rediss", "valkey", "valkeys")),
        ("unix:///run/redis.sock?db=1", RedisHistory),
    ],
)
def test_each_scheme_has_a_store(url: str, kind: type) -> None:
    assert type(create_history(url)) is kind


async def test_logs_within_a_process_are_shared_by_name_and_not_by_those_that_are_alone() -> None:
    assert await heard_and_kept("memory://factory") == [1, 2]
    assert await heard_and_kept("memory://?prefix=factory") == [1, 2]
    log = Log("velocity.room.chat", LIMITS)
    alone = [Keeper(create_history(ALONE)) for _ in range(2)]
    for keeper in alone:
        await keeper.connect()
        (entry,) = await keeper.append(log, b"1")
        assert entry.stamp.position.offset == 1
    for keeper in alone:
        keeper.store.release()


async def test_databases_and_prefixes_of_one_redis_are_apart() -> None:
    async with engine("valkey") as server:
        for more in ("", "/1", "?prefix=shop", "/1?prefix=shop", "/?db=2&prefix=shop"):
            assert await heard_and_kept(server.url + more) == [1, 2], more


async def test_each_prefix_on_nats_has_a_stream(tmp_path: Path) -> None:
    async with storing(tmp_path) as server:
        for more in ("", "?prefix=shop"):
            assert await heard_and_kept(server.url + more) == [1, 2], more
        names = (await server.ask("STREAM.NAMES"))["streams"]
        assert sorted(names) == ["shop-history", "velocity-history"]


async def test_only_a_node_runs_the_embedded_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    keeper = Keeper(create_history("embedded://factory", is_node=False))
    with pytest.raises(ConnectionError, match="no process of this user runs"):
        await keeper.connect()
    keeper.store.release()
    assert await heard_and_kept("embedded://factory?prefix=shop") == [1, 2]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gopher://h", "no backplane for gopher://"),
        ("redis://", "where is it?"),
        ("redis://:s3cret@localhost?socket_connect_timeout=hunter2", "it cannot be used: ValueError"),
        ("nats://u:1,2s3cret@h", "%2C"),
    ],
)
def test_what_cannot_be_used_is_said_without_passwords(url: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        create_history(url)
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("redis", "redis+cluster://localhost", "velocity-ws[redis]"),
        ("nats", "tls://localhost", "velocity-ws[nats]"),
        ("nats", "embedded://", "velocity-ws[embedded]"),
    ],
)
def test_what_is_not_installed_is_named(module: str, url: str, extra: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, module, url], capture_output=True, text=True, check=True)
    assert extra in done.stdout
