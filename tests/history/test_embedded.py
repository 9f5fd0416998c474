"""Logs on the embedded engine do what the contract says, and are gone with the process that runs it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.support.embedded import servers
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.embedded import EmbeddedHistory
from velocity_ws.history.items import Limits, Log
from velocity_ws.testing import HistoryContract
from velocity_ws.testing.history_engine import Keeper

LOG = Log("velocity.room.chat", Limits(100, 3600_000, 1024 * 1024))
_names = itertools.count()


class TestEmbedded(HistoryContract):
    @pytest.fixture(autouse=True)
    def name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        self.directory = tmp_path / "velocity-ws"
        self.url = f"embedded://history-{next(_names)}"

    async def store(self) -> HistoryStore:
        return EmbeddedHistory(self.url)

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)

    async def restart_empty(self) -> None:
        for process in servers(self.directory):
            process.kill()
            await asyncio.to_thread(process.wait)


async def test_logs_are_gone_with_the_last_that_used_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    epochs = set()
    for _ in range(2):
        keeper = Keeper(EmbeddedHistory("embedded://gone"))
        await keeper.connect()
        (entry,) = await keeper.append(LOG, b"1")
        epochs.add(entry.stamp.position.epoch)
        assert entry.stamp.position.offset == 1
        await keeper.store.close()
        keeper.store.release()
        assert not servers(tmp_path / "velocity-ws")
    assert len(epochs) == 2


async def test_only_looking_for_the_server_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    keeper = Keeper(EmbeddedHistory("embedded://nobody", may_run=False))
    with pytest.raises(ConnectionError, match="no process of this user runs"):
        await keeper.connect()
    keeper.store.release()
