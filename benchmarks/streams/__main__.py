"""``python -m benchmarks.streams``: measure what streams cost, on each engine, and write a section of RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.command import line, selected
from benchmarks.document import STREAMS, with_part
from benchmarks.process import Child, pinned, raise_file_limit
from benchmarks.streams.peers import SERVER
from benchmarks.streams.report import render
from benchmarks.streams.runs import ENGINES, FULL, QUICK, Engine, Run, Sizes
from benchmarks.streams.scenarios import SCENARIOS
from benchmarks.targets import Results
from tests.support.engines import engine
from tests.support.jetstream import storing

RESULTS = Path(__file__).parent.parent / "RESULTS.md"
LOAD = [sys.executable, "-m", "benchmarks.streams.load"]


class Measurement:
    """Every chosen scenario on every chosen engine, in turns."""

    def __init__(self, kinds: Sequence[Engine], keys: Sequence[str], sizes: Sizes) -> None:
        self._engines = list(kinds)
        self._scenarios = [scenario for scenario in SCENARIOS if scenario.key in keys]
        self._sizes = sizes
        self.results: Results = {
            scenario.key: {kind: [] for kind in kinds if kind in scenario.engines} for scenario in self._scenarios
        }
        self.failed: dict[tuple[str, str], str] = {}
        self.absent: dict[tuple[str, str], str] = {}

    async def run(self, rounds: int) -> None:
        """Measure."""
        for number in range(rounds):
            turn = number % len(self._engines)
            for kind in self._engines[turn:] + self._engines[:turn]:
                await self._processes(kind, f"{number + 1}/{rounds}")

    async def _processes(self, kind: Engine, prefix: str) -> None:
        """Measure on one engine. A scenario that fails is a row that says so; those after it are not measured."""
        key = "start"
        try:
            async with processes(kind, self._sizes) as run:
                for scenario in self._scenarios:
                    if kind in scenario.engines:
                        key = scenario.key
                        if scenario.peer is not None and (missing := scenario.peer.missing()):
                            self.absent[key, kind] = f"not installed ({missing})"
                            continue
                        figures = await scenario.measure(run)
                        self.results[key][kind].append(figures)
                        print(f"{prefix} {key}: {kind}: {line(figures)}", flush=True)
        except (RuntimeError, TimeoutError, OSError) as error:
            self.failed[key, kind] = f"{type(error).__name__}: {error}"
            print(f"{prefix} {key}: {kind}: failed: {error!r}", flush=True)


@asynccontextmanager
async def processes(kind: Engine, sizes: Sizes) -> AsyncIterator[Run]:
    """An engine, a server and its clients, for as long as the block."""
    async with AsyncExitStack() as stack:
        backplane: list[str] = []
        server = None
        if kind != "memory":
            files = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with pinned(server=False):
                made = storing(files) if kind == "nats" else engine("valkey")
                server = await stack.enter_async_context(made)
            backplane = ["--backplane", f"{kind}://127.0.0.1:{server.port}"]
        node = await stack.enter_async_context(Child([*SERVER, *backplane], server=True))
        load = await stack.enter_async_context(Child(LOAD, server=False))
        yield Run(kind, sizes, node, load, server, backplane)


def main() -> int:
    """Run it; 1 where a text was not as it should be, or something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 5")
    parser.add_argument("--only", help="engines: " + ",".join(ENGINES))
    parser.add_argument("--scenario", help="scenarios: " + ",".join(scenario.key for scenario in SCENARIOS))
    parser.add_argument("--out", type=Path, help="the file whose section is written; by default RESULTS.md, if all ran")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    kinds = [kind for kind in ENGINES if kind in selected(arguments.only, ENGINES)]
    keys = selected(arguments.scenario, [scenario.key for scenario in SCENARIOS])
    sizes = QUICK if quick else FULL
    raise_file_limit()
    load_average = os.getloadavg()[0]
    measurement = Measurement(kinds, keys, sizes)
    asyncio.run(measurement.run(arguments.rounds or (1 if quick else 5)))
    command = " ".join(["python -m benchmarks.streams", *sys.argv[1:]])
    report = render(measurement.results, measurement.failed, measurement.absent, sizes, command, load_average)
    print(f"\n{report}")
    partial = bool(quick or arguments.only or arguments.scenario)
    out: Path | None = arguments.out or (None if partial else RESULTS)
    if out is not None:
        out.write_text(with_part(out.read_text() if out.exists() else "", STREAMS, report))
    every = [figures for by_name in measurement.results.values() for rows in by_name.values() for figures in rows]
    return int(any(figures.faults for figures in every) or bool(measurement.failed))


if __name__ == "__main__":
    sys.exit(main())
