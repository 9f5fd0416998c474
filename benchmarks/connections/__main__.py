"""``python -m benchmarks.connections``: measure what connections cost, and write a section of RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import line, selected
from benchmarks.connections.coming import PEERS
from benchmarks.connections.report import render
from benchmarks.connections.scenarios import SCENARIOS, Scenario
from benchmarks.connections.sizes import FULL, QUICK, Sizes
from benchmarks.document import CONNECTIONS, with_part
from benchmarks.process import raise_file_limit
from benchmarks.targets import Results

RESULTS = Path(__file__).parent.parent / "RESULTS.md"


class Measurement:
    """Every chosen scenario, in turns."""

    def __init__(self, keys: Sequence[str], sizes: Sizes) -> None:
        self._scenarios = [scenario for scenario in SCENARIOS if scenario.key in keys]
        self._sizes = sizes
        self.results: Results = {
            scenario.key: {name: [] for name in scenario.names(sizes)} for scenario in self._scenarios
        }
        self.failed: dict[tuple[str, str], str] = {}

    async def run(self, rounds: int) -> None:
        """Measure."""
        for number in range(rounds):
            for scenario in self._scenarios:
                names = list(scenario.names(self._sizes))
                turn = number % len(names)
                names = names[turn:] + names[:turn]
                for together in [names] if scenario.is_together else [[name] for name in names]:
                    await self._measure(scenario, together, f"{number + 1}/{rounds}")

    async def _measure(self, scenario: Scenario, names: Sequence[str], prefix: str) -> None:
        """Measure one scenario once; where it fails, its rows say so."""
        key = scenario.key
        try:
            for name, figures in (await scenario.measure(names, self._sizes)).items():
                self.results[key][name].append(figures)
                print(f"{prefix} {key}: {name}: {line(figures)}", flush=True)
        except (RuntimeError, TimeoutError, OSError) as error:
            for name in names:
                self.failed[key, name] = f"{type(error).__name__}: {error}"
                print(f"{prefix} {key}: {name}: failed: {error!r}", flush=True)

    def is_at_fault(self) -> bool:
        """Whether something of ours was not as it should be, or could not be measured."""
        ours = [rows for by_name in self.results.values() for name, rows in by_name.items() if name not in PEERS]
        return any(figures.faults for rows in ours for figures in rows) or any(
            name not in PEERS for _, name in self.failed
        )


def main() -> int:
    """Run it; 1 where something of ours was not as it should be, or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connections", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 5")
    parser.add_argument("--scenario", help="scenarios: " + ",".join(scenario.key for scenario in SCENARIOS))
    parser.add_argument("--out", type=Path, help="the file whose section is written; by default RESULTS.md, if all ran")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    sizes = QUICK if quick else FULL
    keys = selected(arguments.scenario, [scenario.key for scenario in SCENARIOS])
    raise_file_limit()
    load_average = os.getloadavg()[0]
    measurement = Measurement(keys, sizes)
    asyncio.run(measurement.run(arguments.rounds or (1 if quick else 5)))
    command = " ".join(["python -m benchmarks.connections", *sys.argv[1:]])
    report = render(measurement.results, measurement.failed, sizes, command, load_average)
    print(f"\n{report}")
    partial = bool(quick or arguments.scenario)
    out: Path | None = arguments.out or (None if partial else RESULTS)
    if out is not None:
        out.write_text(with_part(out.read_text() if out.exists() else "", CONNECTIONS, report))
    return int(measurement.is_at_fault())


if __name__ == "__main__":
    sys.exit(main())
