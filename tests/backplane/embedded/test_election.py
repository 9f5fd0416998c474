"""The election: one process runs the server, and what it told before it died misleads nobody."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.embedded import leave_behind, remove, servers, wait_for
from velocity_ws.backplane.embedded.election import Host


async def test_what_a_dead_process_told_is_gone_before_the_next_server_is_there(directory: Path) -> None:
    leave_behind(
        directory, json.dumps({"port": 1, "user": "velocity", "password": "old", "server_name": "old", "pid": 1})
    )
    starting, other = Host("default"), Host("default")
    try:
        assert starting.way_in() is None
        assert other.way_in() is None, "and not what is in the file"
        await eventually(starting.way_in)
        assert other.way_in() == starting.way_in()
    finally:
        starting.stop()


def test_a_server_whose_lock_another_has_is_ended(directory: Path) -> None:
    one, other = Host("default"), Host("default")
    try:
        wait_for(one.way_in)
        one.check()
        first = one.way_in()
        remove(directory, "default.json")
        one.check()
        assert other.way_in() == first, "what tells the way in is there again"
        remove(directory, "default.lock")
        one.check()
        assert other.way_in() == first, "and so is the lock"
        remove(directory, "default.lock")
        wait_for(other.way_in)
        assert other.way_in() != first
        assert len(servers(directory)) == 2
        one.check()
        assert len(servers(directory)) == 1
        assert one.way_in() == other.way_in()
        remove(directory, "the directory")
        directory.mkdir(0o700)
        directory.chmod(0o755)
        other.check()  # in which nothing can be put back
        assert len(servers(directory)) == 1
        with pytest.raises(PermissionError):
            one.way_in()
        directory.chmod(0o700)
        other.check()
        assert one.way_in() == other.way_in()
    finally:
        one.stop()
        other.stop()


async def test_a_lock_that_is_removed_before_it_is_locked_is_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, host = fcntl.flock, Host("default")

    def removed(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        remove(directory, "default.lock")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed)
    try:
        assert host.way_in() is None
        assert servers(directory) == []
        await eventually(host.way_in)
    finally:
        host.stop()
