"""Finds a Chromium to drive, or installs Debian's; knows nothing of what it is driven for."""

from __future__ import annotations

import os

from tests.support.debian import find_program

FLAGS = (
    "--no-sandbox",  # its sandbox refuses to run as root, as in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def find_chromium() -> str:
    """The path of a Chromium. Without one the test fails where `CI` is set, and is skipped elsewhere."""
    named = os.environ.get("CHROMIUM")
    names = (named,) if named else ("chromium", "chromium-browser", "google-chrome")
    return find_program(*names, package="chromium")
