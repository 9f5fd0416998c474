"""Logs on the embedded engine do what the contract says; in memory they are gone with its process, on disk not."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import DEADLINE, eventually
from tests.support.embedded import servers
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.embedded import EmbeddedHistory
from velocity_ws.history.items import Limits, Log
from velocity_ws.testing import HistoryContract
from velocity_ws.testing.history_engine import Keeper

LOG = Log("velocity.room.chat", Limits(100, 3600_000, 1024 * 1024))
ROOT = Path(__file__).parents[2]
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


# --- on disk


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for logs, which is not there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "logs"


def mode(path: Path, new: int | None = None) -> int:
    """The permissions of a directory, once they are changed."""
    if new is not None:
        path.chmod(new)
    return path.stat().st_mode & 0o777


@asynccontextmanager
async def process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process on the engine; it runs the server where no other does."""
    command = (sys.executable, "-m", "tests.programs.embedded", url, "all")
    pipe = asyncio.subprocess.PIPE
    found = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    try:
        assert found.stdout is not None
        while (line := await found.stdout.readline()) != b"connected\n":
            assert line
        yield found
    finally:
        if found.returncode is None:
            found.kill()
        assert found.stdout is not None
        await found.stdout.read()
        await found.wait()


@asynccontextmanager
async def keeper(url: str, *, may_run: bool = True) -> AsyncIterator[Keeper]:
    found = Keeper(EmbeddedHistory(url, may_run=may_run))
    try:
        await found.connect()
        yield found
    finally:
        await found.store.close()
        found.store.release()


async def connected_again(one: Keeper) -> None:
    """Once its server is gone, the next one."""
    await eventually(lambda: one.losses)
    await one.store.close()
    async with asyncio.timeout(3 * DEADLINE):  # a server may have to read its logs first
        while True:
            try:
                return await one.connect()
            except ConnectionError:
                await one.store.close()
                await asyncio.sleep(0.01)


async def test_logs_on_disk_go_on_whoever_is_killed(place: Path) -> None:
    url = f"embedded://shop?store={place}"
    async with process(url) as runs, keeper(url) as one:
        assert mode(place) == 0o700
        await one.store.keep("history.kinds", b"kept")
        entries = await one.append(LOG, b"1", b"2")
        runs.kill()  # and with it the server
        await connected_again(one)  # to one that this process runs
        entries += await one.append(LOG, b"3")
        (server,) = servers(place.parent / "velocity-ws")
        server.kill()
        one.losses.clear()
        await connected_again(one)
        assert (await one.read(LOG)).entries == entries
    assert not servers(place.parent / "velocity-ws")
    async with process(url), keeper(url) as one:  # after all of them had ended
        entries += await one.append(LOG, b"4")
        found = await one.read(LOG)
        assert found.entries == entries
        assert [entry.stamp.position.offset for entry in entries] == [1, 2, 3, 4]
        assert {entry.stamp.position.epoch for entry in entries} == {found.top.position.epoch}
        assert await one.recover(LOG, entries[0].stamp.position) == [b"2", b"3", b"4"]
        assert await one.store.kept("history.kinds") == b"kept"


async def test_processes_that_do_not_agree_where_the_logs_are(place: Path) -> None:
    url = f"embedded://shop?store={place}"
    async with process(url):
        for other in ("embedded://shop", f"embedded://shop?store={place}-2"):
            with pytest.raises(ConnectionError, match="same URL, or this one another name"):
                async with keeper(other):
                    pass
        with pytest.raises(ConnectionError, match="another name"):
            async with keeper(f"embedded://shop?store={place}-2", may_run=False):
                pass
        async with keeper("embedded://shop", may_run=False) as one, keeper(f"{url}/") as two:  # it runs none
            entries = await one.append(LOG, b"1")
            assert (await two.read(LOG)).entries == entries
            with pytest.raises(ConnectionError, match="has no store"):
                async with keeper("embedded://shop"):
                    pass


async def test_a_directory_has_one_server_which_is_this_users(place: Path) -> None:
    url = f"embedded://shop?store={place}"
    async with process(url):
        with pytest.raises(ConnectionError, match="another embedded engine keeps its logs in"):
            async with keeper(f"embedded://other?store={place}"):
                pass
    mode(place, 0o750)
    with pytest.raises(PermissionError, match="nobody else can enter"):
        async with keeper(url):
            pass
    assert not servers(place.parent / "velocity-ws")
    with pytest.raises(FileNotFoundError):
        async with keeper(f"embedded://shop?store={place}/a/b"):
            pass
