"""The files by which processes find the server: read as they are written, locked by one, and never another user's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from velocity_ws.backplane.embedded.files import (
    ServerAddress,
    engine_directory,
    find_address,
    read_address,
    try_lock,
    write_address,
)


def test_an_address_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shop.json"
    assert read_address(path) is None
    write_address(path, 4222, "secret", "velocity-x", 17)
    assert read_address(path) == ServerAddress("nats://velocity:secret@127.0.0.1:4222", "velocity-x")
    assert json.loads(path.read_text()) == {
        "port": 4222,
        "user": "velocity",
        "password": "secret",
        "server_name": "velocity-x",
        "pid": 17,
    }
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"port": 4222}', '{"port": "x", "password": "y", "server_name": "z"}']
)
def test_a_file_that_is_not_all_there_has_no_address(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.json"
    path.write_text(text)
    assert read_address(path) is None


def test_an_address_is_found_only_while_its_lock_is_held(directory: Path) -> None:
    assert engine_directory() == directory
    write_address(directory / "shop.json", 4222, "secret", "velocity-x", 17)
    assert find_address("shop") is None
    descriptors = try_lock(directory, "shop")
    assert descriptors
    assert try_lock(directory, "shop") == []
    assert find_address("shop") == ServerAddress("nats://velocity:secret@127.0.0.1:4222", "velocity-x")
    for descriptor in descriptors:
        os.close(descriptor)
    assert find_address("shop") is None


def test_a_directory_that_is_open_to_others_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(PermissionError, match="nobody else can enter"):
        engine_directory()
