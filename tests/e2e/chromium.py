"""Finds a Chromium to drive, or installs Debian's; knows nothing of what it is driven for."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest

FLAGS = (
    "--no-sandbox",  # its sandbox refuses to run as root, as in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


@cache
def find_chromium() -> str:
    """The path of a Chromium. Without one the test fails where `CI` is set, and is skipped elsewhere."""
    path = _installed() or _install()
    if path is None:
        reason = (
            f"no browser: none of {', '.join(NAMES)} is on PATH, $CHROMIUM names none, and apt-get cannot install it"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def _installed() -> str | None:
    named = os.environ.get("CHROMIUM")
    candidates = [named] if named else NAMES
    return next((path for name in candidates if (path := shutil.which(name))), None)


def _install() -> str | None:
    """Install Debian's package, where that is possible without asking anybody."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run([apt, "-q", *arguments], env=environment, check=False).returncode:
            return None
    return _installed()
