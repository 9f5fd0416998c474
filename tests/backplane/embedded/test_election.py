"""The election: one process runs the server, and what it wrote before it died misleads no other."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.embedded import leave_behind, remove, servers, wait_for
from velocity_ws.backplane.embedded.election import Election


async def test_what_a_dead_process_told_is_gone_before_the_next_server_is_there(directory: Path) -> None:
    leave_behind(
        directory, json.dumps({"port": 1, "user": "velocity", "password": "old", "server_name": "old", "pid": 1})
    )
    starting, other = Election("default"), Election("default")
    try:
        told = [starting.address(), other.address()]  # none where the server takes longer than we to get here
        assert [address for address in told if address is not None and address.server_name == "old"] == []
        await eventually(starting.address)
        assert other.address() == starting.address()
    finally:
        starting.stop()


def test_a_server_whose_lock_another_has_is_ended(directory: Path) -> None:
    one, other = Election("default"), Election("default")
    try:
        wait_for(one.address)
        one.check()
        first = one.address()
        remove(directory, "default.json")
        one.check()
        assert other.address() == first, "the address is there again"
        remove(directory, "default.lock")
        one.check()
        assert other.address() == first, "and so is the lock"
        remove(directory, "default.lock")
        wait_for(other.address)
        assert other.address() != first
        assert len(servers(directory)) == 2
        one.check()
        assert len(servers(directory)) == 1
        assert one.address() == other.address()
        remove(directory, "the directory")
        directory.mkdir(0o700)
        directory.chmod(0o755)
        other.check()  # in which nothing can be put back
        assert len(servers(directory)) == 1
        with pytest.raises(PermissionError):
            one.address()
        directory.chmod(0o700)
        other.check()
        assert one.address() == other.address()
    finally:
        one.stop()
        other.stop()


async def test_a_lock_that_is_removed_before_it_is_locked_is_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, election = fcntl.flock, Election("default")

    def removed(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        remove(directory, "default.lock")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed)
    try:
        assert election.address() is None
        assert servers(directory) == []
        await eventually(election.address)
    finally:
        election.stop()
