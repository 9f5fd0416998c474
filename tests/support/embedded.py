"""The files and the processes of embedded engines, looked at and disturbed."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it has no types

from tests.support import DEADLINE

__all__ = ["leave_behind", "remove", "servers", "told", "wait_for"]


def servers(directory: Path) -> list[psutil.Process]:
    """The engines that run with a configuration from there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any(str(directory) in part for part in command):
                found.append(process)
    return found


def told(directory: Path, name: str = "default") -> dict[str, Any]:
    """What is in the file with the address; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def leave_behind(directory: Path, text: str) -> None:
    """What a process told that has died."""
    directory.mkdir(0o700)
    (directory / "default.json").write_text(text)


def wait_for(found: Callable[[], object]) -> None:
    """`eventually`, where no loop runs."""
    deadline = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def remove(directory: Path, what: str) -> None:
    """As a cleaner of old temporary files does."""
    if what == "the directory":
        shutil.rmtree(directory)
    else:
        (directory / what).unlink()
