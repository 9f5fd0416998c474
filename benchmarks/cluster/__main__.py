"""``python -m benchmarks.cluster``: measure across nodes, side by side, and write a section of RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.cluster.contestants import ALONE, ENTRANTS, Entrant, emptied, engines
from benchmarks.cluster.report import render
from benchmarks.cluster.scenarios import FULL, QUICK, SCENARIOS, Run, Side, Sizes
from benchmarks.command import line, selected
from benchmarks.document import CLUSTER, with_part
from benchmarks.process import Child, raise_file_limit
from benchmarks.targets import Results

RESULTS = Path(__file__).parent.parent / "RESULTS.md"
LOAD = [sys.executable, "-m", "benchmarks.load"]


class Measurement:
    """Every chosen scenario for every chosen entrant, in turns."""

    def __init__(self, entrants: Sequence[Entrant], keys: Sequence[str], sizes: Sizes) -> None:
        self._entrants = [entrant for entrant in entrants if not entrant.contestant.missing()]
        self._scenarios = [scenario for scenario in SCENARIOS if scenario.key in keys]
        self._sizes = sizes
        self.results: Results = {
            scenario.key: {entrant.name: [] for entrant in entrants if entrant.ours or not scenario.only_ours}
            for scenario in self._scenarios
        }
        self.failed: dict[tuple[str, str], str] = {}

    async def run(self, rounds: int) -> None:
        """Measure."""
        with tempfile.TemporaryDirectory() as files:
            # Where the processes of an embedded engine find each other, and no others.
            environment = {"XDG_RUNTIME_DIR": files}
            async with engines() as urls:
                for number in range(rounds):
                    turn = number % max(len(self._entrants), 1)
                    for entrant in self._entrants[turn:] + self._entrants[:turn]:
                        await self._processes(entrant, urls[entrant.engine], environment, f"{number + 1}/{rounds}")

    async def _processes(self, entrant: Entrant, url: str, environment: Mapping[str, str], prefix: str) -> None:
        """Measure one entrant. One that fails is a row that says so; the others are measured nevertheless."""
        scenarios = [scenario for scenario in self._scenarios if entrant.ours or not scenario.only_ours]
        key = "start"
        try:
            async with AsyncExitStack() as stack:
                if entrant.engine == "valkey":
                    await emptied(url)
                # The sender comes first: an embedded engine runs where who starts it runs, beside the server's core.
                sender = await stack.enter_async_context(
                    Child(entrant.command(url), server=False, environment=environment)
                )
                framing = entrant.contestant.framing
                receiver = await _side(stack, entrant.command(url), framing, environment)
                alone = None
                if any(scenario.only_ours for scenario in scenarios):
                    alone = await _side(stack, ALONE.command, framing, environment)
                run = Run(entrant, self._sizes, sender, receiver, alone)
                for scenario in scenarios:
                    key = scenario.key
                    figures = await scenario.measure(run)
                    self.results[key][entrant.name].append(figures)
                    print(f"{prefix} {key}: {entrant.name}: {line(figures)}", flush=True)
        except (RuntimeError, TimeoutError, OSError) as error:
            self.failed[key, entrant.name] = f"{type(error).__name__}: {error}"
            print(f"{prefix} {key}: {entrant.name}: failed: {error!r}", flush=True)


async def _side(stack: AsyncExitStack, command: Sequence[str], framing: str, environment: Mapping[str, str]) -> Side:
    child = await stack.enter_async_context(Child(command, server=True, environment=environment))
    load = await stack.enter_async_context(Child(LOAD, server=False))
    return Side(child, load, framing)


def main() -> int:
    """Run it; 1 where one of our own deliveries was not as it should be, or we could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 3")
    parser.add_argument("--only", help="who: " + ",".join(entrant.contestant.short for entrant in ENTRANTS))
    parser.add_argument("--scenario", help="scenarios: " + ",".join(scenario.key for scenario in SCENARIOS))
    parser.add_argument("--out", type=Path, help="the file whose section is written; by default RESULTS.md, if all ran")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    names = selected(arguments.only, [entrant.contestant.short for entrant in ENTRANTS])
    if quick and arguments.only is None:
        names = [entrant.contestant.short for entrant in ENTRANTS if entrant.contestant.everywhere]
    keys = selected(arguments.scenario, [scenario.key for scenario in SCENARIOS])
    entrants = [entrant for entrant in ENTRANTS if entrant.contestant.short in names]
    sizes = QUICK if quick else FULL
    raise_file_limit()
    load_average = os.getloadavg()[0]
    measurement = Measurement(entrants, keys, sizes)
    asyncio.run(measurement.run(arguments.rounds or (1 if quick else 3)))
    command = " ".join(["python -m benchmarks.cluster", *sys.argv[1:]])
    report = render(measurement.results, measurement.failed, sizes, command, load_average)
    print(f"\n{report}")
    partial = bool(quick or arguments.only or arguments.scenario)
    out: Path | None = arguments.out or (None if partial else RESULTS)
    if out is not None:
        out.write_text(with_part(out.read_text() if out.exists() else "", CLUSTER, report))
    ours = {entrant.name for entrant in entrants if entrant.ours}
    faults = sum(f.faults for by_name in measurement.results.values() for n in ours for f in by_name.get(n, []))
    return int(bool(faults) or any(name in ours for _, name in measurement.failed))


if __name__ == "__main__":
    sys.exit(main())
