"""A place for embedded engines, which is empty of them when a test is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE
from tests.support.embedded import servers


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the files of the engines are; nothing runs there when the test is over."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / "velocity-ws"
    yield directory
    deadline = time.monotonic() + DEADLINE
    while servers(directory):
        assert time.monotonic() < deadline, "a server is left running"
        time.sleep(0.005)
