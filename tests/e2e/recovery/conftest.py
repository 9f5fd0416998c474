"""The tests of what is recovered: nodes on every kind of engine, a few in every run and all of them in long ones."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE
from tests.support.stages import Stage, Staging, staged


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staging:
    """Sets up nodes on an engine of a kind: `staged` without what a test has anyway."""
    # Who is to say where it stopped, or who may come in, does so, and is waited for as long as a busy machine needs.
    monkeypatch.setattr("velocity_ws.history.resuming.PATIENCE", DEADLINE)
    monkeypatch.setattr("velocity_ws.sessions.permission.AUTHORIZE_TIMEOUT", DEADLINE)

    def stage(kind: str, **options: Any) -> AbstractAsyncContextManager[Stage]:
        return staged(kind, tmp_path, monkeypatch, **options)

    return stage
