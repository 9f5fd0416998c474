"""``python -m benchmarks.http_streams``: measure what readers of streams over HTTP cost; a section of RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.command import line, selected
from benchmarks.document import HTTP_STREAMS, with_part
from benchmarks.http_streams.report import render
from benchmarks.http_streams.scenarios import CONTESTANTS, FULL, QUICK, WAITING, Sizes, delivery, waiting
from benchmarks.process import Child, pinned, raise_file_limit
from benchmarks.targets import Results
from tests.support.engines import engine

RESULTS = Path(__file__).parent.parent / "RESULTS.md"
LOAD = [sys.executable, "-m", "benchmarks.http_streams.load"]
KEYS = ("delivery", "waiting")


class Measurement:
    """Every chosen scenario, in turns."""

    def __init__(self, keys: Sequence[str], sizes: Sizes) -> None:
        self._keys = keys
        self._sizes = sizes
        self.results: Results = {
            "delivery": {contestant.name: [] for contestant in CONTESTANTS},
            "waiting": {name: [] for name in WAITING},
        }
        self.failed: dict[tuple[str, str], str] = {}
        self.absent: dict[tuple[str, str], str] = {}

    async def run(self, rounds: int) -> None:
        """Measure."""
        async with AsyncExitStack() as stack:
            with pinned(server=False):
                server = await stack.enter_async_context(engine("valkey"))
            backplane = ["--backplane", f"redis://127.0.0.1:{server.port}"]
            load = await stack.enter_async_context(Child(LOAD, server=False))
            for number in range(rounds):
                prefix = f"{number + 1}/{rounds}"
                if "delivery" in self._keys:
                    await self._deliver(backplane, load, number, prefix)
                if "waiting" in self._keys:
                    for name, figures in (await waiting(backplane, load, self._sizes)).items():
                        self.results["waiting"][name].append(figures)
                        print(f"{prefix} waiting: {name}: {line(figures)}", flush=True)

    async def _deliver(self, backplane: Sequence[str], load: Child, turn: int, prefix: str) -> None:
        first = turn % len(CONTESTANTS)
        for contestant in CONTESTANTS[first:] + CONTESTANTS[:first]:
            key = "delivery", contestant.name
            if missing := contestant.missing():
                self.absent[key] = f"not installed ({missing})"
                continue
            try:
                async with Child([*contestant.command, *backplane], server=True) as node:
                    figures = await delivery(contestant, node, load, self._sizes)
                    self.results["delivery"][contestant.name].append(figures)
                    print(f"{prefix} delivery: {contestant.name}: {line(figures)}", flush=True)
            except (RuntimeError, TimeoutError, OSError) as error:
                self.failed[key] = f"{type(error).__name__}: {error}"
                print(f"{prefix} delivery: {contestant.name}: failed: {error!r}", flush=True)


def main() -> int:
    """Run it; 1 where a text was not as it should be, or something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_streams", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 5")
    parser.add_argument("--scenario", help="scenarios: " + ",".join(KEYS))
    parser.add_argument("--out", type=Path, help="the file whose section is written; by default RESULTS.md, if all ran")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    sizes = QUICK if quick else FULL
    raise_file_limit()
    load_average = os.getloadavg()[0]
    measurement = Measurement(selected(arguments.scenario, KEYS), sizes)
    asyncio.run(measurement.run(arguments.rounds or (1 if quick else 5)))
    command = " ".join(["python -m benchmarks.http_streams", *sys.argv[1:]])
    report = render(measurement.results, measurement.failed, measurement.absent, sizes, command, load_average)
    print(f"\n{report}")
    partial = bool(quick or arguments.scenario)
    out: Path | None = arguments.out or (None if partial else RESULTS)
    if out is not None:
        out.write_text(with_part(out.read_text() if out.exists() else "", HTTP_STREAMS, report))
    every = [figures for by_name in measurement.results.values() for rows in by_name.values() for figures in rows]
    return int(any(figures.faults for figures in every) or bool(measurement.failed))


if __name__ == "__main__":
    sys.exit(main())
