"""`make compat`: tests of settings, protocol, uvicorn's options and engines, on the oldest versions that are declared.

The versions are the lower bounds in `pyproject.toml`, so that none is claimed and not tested. They are installed into
`.venv-oldest`, once for as long as they stay the same.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".venv-oldest"
TESTS = (
    "tests/test_settings.py",
    "tests/test_framing.py",
    "tests/e2e/test_protocol_class.py",
    "tests/e2e/test_uvicorn_options.py",
    "tests/e2e/test_connections.py",
    "tests/contract/test_backplanes.py",
    "tests/cluster/test_messages.py",
)
NOT_NEEDED = {"fastapi", "gevent", "litestar", "playwright", "pytest-cov"}
"""What of the tests' own dependencies these tests do not import."""
NEWEST_THAT_FITS = {"httpx2"}
"""What is not pinned, because its newest version asks for more than the oldest of the others."""


def floors(requirements: list[str]) -> list[str]:
    """The lower bounds of requirements, as exact versions.

    Raises:
        ValueError: a requirement has none.
    """
    if without := [requirement for requirement in requirements if ">=" not in requirement]:
        raise ValueError(f"no lower bound: {', '.join(without)}")
    return [requirement.replace(">=", "==") for requirement in requirements]


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
    oldest = floors(needed)
    taken = {name_of(requirement) for requirement in oldest} | NOT_NEEDED
    pinned = {name_of(pin): pin for pin in pins}
    for requirement in project["dependency-groups"]["test"]:
        name = name_of(requirement)
        if name not in taken:
            oldest.append(requirement if name in NEWEST_THAT_FITS else pinned[name])
    return oldest


def build(packages: list[str]) -> Path:
    """An interpreter that has these packages, and the project as it lies here."""
    made_from = PLACE / "made-from"
    python = PLACE / "bin" / "python"
    sources = "\n".join([*packages, (ROOT / "pyproject.toml").read_text()])
    digest = hashlib.sha256(sources.encode()).hexdigest()
    if made_from.exists() and made_from.read_text() == digest:
        return python
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "pip>=25.1"], check=True)
    subprocess.run([*pip, "-e", str(ROOT), *packages], check=True)
    made_from.write_text(digest)  # last, so that half an environment is never taken for a whole one
    return python


def main() -> int:
    """Build, say what is tested, and test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = wanted(project, (ROOT / "constraints.txt").read_text().split())
    python = build(packages)
    sys.stdout.write(f"on {', '.join(package.partition(';')[0] for package in packages)}\n")
    sys.stdout.flush()
    return subprocess.run([str(python), "-m", "pytest", "-q", *TESTS], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
