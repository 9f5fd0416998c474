"""Runs cases of the Autobahn suite against the class and says how they went. Knows `wstest`, and no test runner."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.autobahn.environment import ROOT

PARTS = {
    "1+2+3+4+5+6+7+10": 247,
    "9": 54,
    **{f"12.{number}": 18 for number in range(1, 6)},
    **{f"13.{number}": 18 for number in range(1, 8)},
}
"""What is run at a time: first numbers of cases, and how many cases those are, so that none goes missing unseen."""
QUICK = ("1+2+3+4+5+6+7+10",)
MOST_NON_STRICT = 8
"""Cases where the order of what is right is not the suite's favourite."""
PROTOCOL = "velocity_ws.uvicorn:WebSocketProtocol"
AGENT = "velocity-ws"
START_SECONDS = 30.0
"""What starting or stopping the server may take."""


@dataclass(frozen=True)
class Report:
    """How the cases went.

    Attributes:
        expected: how many cases there should be.
        results: case number to its behaviour, and how its connection was closed, as `wstest` calls them.
        seconds: how long they took.
    """

    expected: int
    results: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        """How many cases behaved in which way."""
        return Counter(behaviour for behaviour, _ in self.results.values())

    @property
    def problems(self) -> list[str]:
        """What must not be, in words."""
        found = []
        if len(self.results) != self.expected:
            found.append(f"{len(self.results)} cases were run, not {self.expected}")
        for case, (behaviour, close) in _sorted(self.results):
            if behaviour not in ("OK", "NON-STRICT", "INFORMATIONAL") or close not in ("OK", "INFORMATIONAL"):
                found.append(f"{case}: {behaviour}, closed: {close}")
        if self.counts["NON-STRICT"] > MOST_NON_STRICT:
            found.append(f"{self.counts['NON-STRICT']} are non-strict, more than {MOST_NON_STRICT}")
        return found

    def __str__(self) -> str:
        counts = self.counts
        failed = len(self.results) - counts["OK"] - counts["NON-STRICT"] - counts["INFORMATIONAL"]
        lines = [
            f"{case}: {behaviour}, closed: {close}"
            for case, (behaviour, close) in _sorted(self.results)
            if (behaviour, close) != ("OK", "OK")
        ]
        lines.append(
            f"Autobahn: {len(self.results)} of {self.expected} cases: {counts['OK']} OK, {counts['NON-STRICT']} "
            f"non-strict, {counts['INFORMATIONAL']} informational, {failed} failed, {self.seconds:.0f} s"
        )
        return "\n".join(lines)


def run(wstest: Path, parts: Sequence[str], *, jobs: int, within: float, keep: Path | None = None) -> Report:
    """Run some parts of the suite against a server of their own.

    Args:
        wstest: the program.
        parts: keys of `PARTS`.
        jobs: how many of them are run at once.
        within: seconds any one of them may take.
        keep: where to leave the pages that `wstest` makes for each case; nowhere by default.

    Raises:
        subprocess.SubprocessError: `wstest` failed, or took longer.
        RuntimeError: the server failed.
    """
    began = time.monotonic()
    results: dict[str, tuple[str, str]] = {}
    with contextlib.ExitStack() as stack:
        place = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(_server())
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for found in pool.map(lambda part: _test(wstest, url, part, place / part, within), parts):
            results |= found
    return Report(sum(PARTS[part] for part in parts), results, time.monotonic() - began)


def _test(wstest: Path, url: str, part: str, place: Path, within: float) -> dict[str, tuple[str, str]]:
    """Run one part; the behaviour of each case and how its connection was closed."""
    place.mkdir(parents=True, exist_ok=True)
    spec = {
        "outdir": str(place),
        "servers": [{"agent": AGENT, "url": url}],
        "options": {"failByDrop": False},
        "cases": [f"{prefix}.*" for prefix in part.split("+")],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (place / "spec.json").write_text(json.dumps(spec))
    with _log(place / "wstest.log") as log:
        subprocess.run(
            [str(wstest.with_name("python")), "-W", "ignore", str(wstest), "-m", "fuzzingclient", "-s", "spec.json"],
            cwd=place,
            stdout=log,
            stderr=log,
            check=True,
            timeout=within,
        )
    report: dict[str, dict[str, str]] = json.loads((place / "index.json").read_text())[AGENT]
    return {case: (result["behavior"], result["behaviorClose"]) for case, result in report.items()}


@contextlib.contextmanager
def _log(path: Path) -> Iterator[IO[bytes]]:
    """A file for what a program says, repeated where something fails."""
    try:
        with path.open("wb") as log:
            yield log
    except BaseException:
        sys.stderr.write(path.read_text(errors="replace")[-4000:])
        raise


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The echo application behind the real command; its URL."""
    command = [sys.executable, "-m", "uvicorn", "tests.autobahn.echo:app", "--ws", PROTOCOL, "--port", "0"]
    with tempfile.TemporaryDirectory() as place, _log(Path(place) / "server.log") as log:
        server = subprocess.Popen(
            [*command, "--lifespan", "off", "--no-access-log", "--log-level", "info"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield f"ws://127.0.0.1:{_port(server, Path(log.name))}/"
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}")
        finally:
            server.terminate()
            server.wait(START_SECONDS)


def _port(server: subprocess.Popen[bytes], log: Path) -> int:
    """The port the server says it listens on."""
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        if found := re.search(r"running on http://[\d.]+:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)  # the pause between two looks, not the wait
    raise RuntimeError("the server did not start")


def _sorted(results: dict[str, tuple[str, str]]) -> list[tuple[str, tuple[str, str]]]:
    """The cases in the order of their numbers."""
    return sorted(results.items(), key=lambda item: [int(number) for number in item[0].split(".")])
