"""Streams on the embedded engine do what the contract says; on disk they outlive its process."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.embedded import servers
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.items import granted
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.embedded import EmbeddedStreams
from velocity_ws.streams.factory import create_streams
from velocity_ws.testing import StreamContract
from velocity_ws.testing.listener import refused
from velocity_ws.testing.stream_engine import Scribe, text_of
from velocity_ws.testing.stream_pen import Pen

_names = itertools.count()


class TestEmbedded(StreamContract):
    @pytest.fixture(autouse=True)
    def name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        self.directory = tmp_path / "velocity-ws"
        self.url = f"embedded://streams-{next(_names)}"

    async def store(self, prefix: str) -> StreamStore:
        return EmbeddedStreams(self.url, prefix=prefix)

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)


async def test_streams_on_disk_outlive_their_server_and_in_memory_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for url, texts in ((f"embedded://disk?store={tmp_path / 'kept'}", ["once", "once"]), ("embedded://gone", ["once"])):
        pen = Pen("answer", "velocity.room.chat")
        found: list[str] = []
        for _ in range(2):
            scribe = Scribe(EmbeddedStreams(url))
            await scribe.connect()
            if await scribe.look(pen.id) is None and not found:
                await scribe.begin(pen)
                await scribe.append(pen.say("once"))
            if await scribe.look(pen.id) is not None:
                found.append(text_of(await scribe.read(pen)))
            await scribe.store.close()
            scribe.store.release()
            assert not servers(tmp_path / "velocity-ws")
        assert found == texts


async def test_a_server_that_is_killed_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    pen, scribe = Pen("answer", "velocity.room.chat"), Scribe(EmbeddedStreams("embedded://killed"))
    await scribe.connect()
    await scribe.begin(pen)
    (server,) = servers(tmp_path / "velocity-ws")
    server.kill()
    await asyncio.to_thread(server.wait)
    await eventually(lambda: scribe.losses)
    await refused(scribe.append(pen.say("x")))
    await scribe.store.close()
    await scribe.connect()
    (written,) = await scribe.store.append([pen.say("x")])
    assert not granted(written).is_taken  # it is not known
    await scribe.store.close()
    scribe.store.release()


async def test_only_looking_for_the_server_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store = create_streams("embedded://nobody?prefix=shop", "shop.name=x", is_node=False)
    with pytest.raises(ConnectionError, match="no process of this user runs"):
        await store.connect(lambda _: None)
    store.release()
