"""Finds programs that are none of Python's, or installs Debian's package of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest

__all__ = ["find_program"]


@cache
def find_program(*names: str, package: str, is_server: bool = False) -> str:
    """The path of the first of these that is there. Without one the test fails where `CI` is set, else is skipped.

    A server is installed where `CI` is set only, as Debian starts what it installs.
    """
    is_ci = bool(os.environ.get("CI"))
    path = _installed(names)
    if path is None and (is_ci or not is_server):
        path = _install(names, package)
    if path is None:
        reason = f"none of {', '.join(names)} is on PATH, and apt-get has not installed {package}"
        if is_ci:
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def _installed(names: tuple[str, ...]) -> str | None:
    where = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])  # where servers are, for root alone
    return next((path for name in names if (path := shutil.which(name, path=where))), None)


def _install(names: tuple[str, ...], package: str) -> str | None:
    """Install Debian's package, where that is possible without asking anybody."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run([apt, "-q", *arguments], env=environment, check=False).returncode:
            return None
    return _installed(names)
