"""Where `wstest` runs: Python 2.7 with pinned packages, built once. Knows nothing of what is tested."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-autobahn"
REQUIREMENTS = Path(__file__).with_name("requirements-py27.txt")
HOW_TO_GET_ONE = (
    "the Autobahn suite needs a Python 2.7, as `python2.7` on PATH, in pyenv (`pyenv install 2.7.18`), "
    "or named by the variable PYTHON27"
)
BUILD_SECONDS = 900
"""What building may take: some packages are compiled, on a slow network all are loaded."""


class NoPythonError(Exception):
    """There is no Python 2.7 here."""

    def __init__(self) -> None:
        super().__init__(HOW_TO_GET_ONE)


def ready() -> Path:
    """The `wstest` program, its environment built first where it is not there or made from other requirements.

    Raises:
        NoPythonError: no Python 2.7 was found to build it with.
        subprocess.CalledProcessError: it could not be built; the output of the command has gone to stderr.
    """
    wstest = PLACE / "bin" / "wstest"
    made_from = PLACE / "made-from"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if made_from.exists() and made_from.read_text() == wanted:
        return wstest
    _build(find_python())
    made_from.write_text(wanted)  # last, so that half an environment is never taken for a whole one
    return wstest


def find_python() -> str:
    """A Python 2.7 that starts.

    Raises:
        NoPythonError: there is none.
    """
    for candidate in _candidates():
        # One that is on PATH may be a mere pointer to a version that is not chosen.
        says = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if says.stdout.strip() == "2.7":
            return candidate
    raise NoPythonError


def _candidates() -> Iterator[str]:
    named = shutil.which(os.environ.get("PYTHON27", "python2.7"))
    if named:
        yield named
    roots = [Path(os.environ["PYENV_ROOT"])] if "PYENV_ROOT" in os.environ else []
    for root in [*roots, Path.home() / ".pyenv"]:
        yield from map(str, sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True))


def _build(python: str) -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as bootstrap:
        # The last virtualenv that makes environments for Python 2.7; it needs no pip there.
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", bootstrap, "virtualenv<20.22")
        own = {**os.environ, "PYTHONPATH": bootstrap}
        _run(sys.executable, "-m", "virtualenv", "--quiet", "--no-download", "--python", python, str(PLACE), env=own)
    pip = [str(PLACE / "bin" / "python"), "-W", "ignore", "-m", "pip", "install", "--quiet"]
    _run(*pip, "--no-python-version-warning", "-r", str(REQUIREMENTS))


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=env, check=True, timeout=BUILD_SECONDS, stdout=sys.stderr)
