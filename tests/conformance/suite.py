"""Runs the public suite of the Durable Streams protocol against our server, and says how it went. Knows no pytest."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.support.node_tools import find_node, install, node_environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSED = 332
"""How many cases there are, so that none goes missing unseen; a newer suite has others."""
SKIPPED = 6
"""How many are not for us: those of what the protocol reserves for subscriptions, which we do not offer."""
NOT_OFFERED = "Reserved subscription APIs"
TIMED = re.compile(r"TTL|Expir|SSE|live|long-?poll", re.IGNORECASE)
"""What the names of cases have in them that count on a machine with nothing else to do: a stream of two seconds is
looked at after one and a half, and events that have not come after two are taken for none."""
START_SECONDS = 60.0
"""What starting the server may take, on a machine that does other things."""


class Case(msgspec.Struct, frozen=True):
    """How a case went.

    Attributes:
        name: what it is about, with the names of the groups it is in.
        state: as vitest calls it.
        retries: how often it was tried again.
        seconds: how long it took.
        errors: of each time that it failed.
    """

    name: str
    state: str
    retries: int = 0
    seconds: float = 0.0
    errors: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """How the cases went.

    Attributes:
        cases: all of them.
        errors: what went wrong beside them.
    """

    cases: Sequence[Case]
    errors: Sequence[str] = ()

    @property
    def counts(self) -> Counter[str]:
        """How many cases ended in which way."""
        return Counter(case.state for case in self.cases)

    @property
    def problems(self) -> list[str]:
        """What must not be, in words."""
        found = [f"beside the cases: {error}" for error in self.errors]
        for case in self.cases:
            why = "\n    ".join(["", *case.errors])
            if case.state not in ("passed", "skipped"):
                found.append(f"{case.name}: {case.state}{why}")
            elif case.retries and not TIMED.search(case.name):
                found.append(f"{case.name}: it does not wait for anything, and passed at a later try only{why}")
            elif case.state == "skipped" and not case.name.startswith(NOT_OFFERED):
                found.append(f"{case.name}: skipped")
        for state, expected in (("passed", PASSED), ("skipped", SKIPPED)):
            if self.counts[state] != expected:
                found.append(f"{self.counts[state]} cases were {state}, not {expected}")
        return found

    def __str__(self) -> str:
        """One line, and one for each case that was tried again."""
        told = ", ".join(f"{self.counts[state]} {state}" for state in ("passed", "failed", "skipped"))
        again = [f"tried again: {case.name} ({case.retries})" for case in self.cases if case.retries]
        return "\n".join([told, *again])


async def run(url: str, *, within: float, retries: int = 0, long_poll: float | None = None) -> Report:
    """Run all cases.

    Args:
        url: of the engine.
        within: seconds that they may take.
        retries: how often a case that fails is tried again.
        long_poll: seconds that a request waits for something to come; ``None`` for what users have.

    Raises:
        TimeoutError: it took longer.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(await asyncio.to_thread(install, HERE))
        for script in HERE.glob("*.mjs"):
            shutil.copy(script, folder)
        async with serving(url, "" if long_poll is None else str(long_poll)) as address:
            process = await asyncio.create_subprocess_exec(
                *(find_node(), "run.mjs", address, "report.json", str(retries)),
                cwd=folder,
                env=node_environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(within):
                    said, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with the process that vitest runs the cases in
                    await process.wait()
        if process.returncode or not (folder / "report.json").exists():
            return Report((), [said.decode()])
        report = json.loads((folder / "report.json").read_bytes())
    return Report(msgspec.convert(report["cases"], tuple[Case, ...]), report["errors"])


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[str]:
    """A server of `tests.programs.durable` until the end of the block; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.programs.durable", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
        process.stdin.close()
        async with asyncio.timeout(START_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
