"""``python -m benchmarks``: measure everything, side by side, and write RESULTS.md and chart.svg."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import line, selected
from benchmarks.contestants import CONTESTANTS, OURS, Contestant, prepare
from benchmarks.document import PARTS, part_of, with_part
from benchmarks.process import Child, raise_file_limit
from benchmarks.report import chart, render
from benchmarks.scenarios import FULL, QUICK, SCENARIOS, SESSIONS, SLOW, Run, Scenario, Session, Sizes
from benchmarks.targets import Results

HERE = Path(__file__).parent


class Measurement:
    """Every chosen scenario for every chosen contestant, in turns."""

    def __init__(self, contestants: Sequence[Contestant], keys: Sequence[str], sizes: Sizes) -> None:
        self._contestants = [contestant for contestant in contestants if not contestant.missing()]
        self._keys = keys
        self._sizes = sizes
        self.results: Results = {key: {contestant.name: [] for contestant in contestants} for key in keys}
        self.failed: dict[tuple[str, str], str] = {}

    async def run(self, rounds: int) -> None:
        """Measure."""
        for number in range(rounds):
            turn = number % max(len(self._contestants), 1)
            for session in SESSIONS:
                for contestant in self._contestants[turn:] + self._contestants[:turn]:
                    await self._session(session, contestant, f"{number + 1}/{rounds}")

    async def _session(self, session: Session, contestant: Contestant, prefix: str) -> None:
        wanted = [
            scenario
            for scenario in session.scenarios
            if scenario.key in self._keys and scenario.key not in contestant.cannot
        ]
        if session.deflate and not contestant.deflate:
            return
        while wanted:
            wanted = await self._process(wanted, contestant, prefix, deflate=session.deflate)

    async def _process(
        self, wanted: list[Scenario], contestant: Contestant, prefix: str, *, deflate: bool
    ) -> list[Scenario]:
        """Measure with one process; what is left for the next, because this one failed."""
        command = [*contestant.command, *(["--deflate"] if deflate else [])]
        # A load of its own for each: what one contestant left behind does not slow down the next.
        load_command = [sys.executable, "-m", "benchmarks.load"]
        sizes = SLOW if contestant.slow and self._sizes is FULL else self._sizes
        done = 0
        try:
            server = Child(command, server=True, environment=contestant.environment, root=contestant.root)
            async with server as child, Child(load_command, server=False) as load:
                run = Run(contestant, child, load, sizes, deflate)
                for scenario in wanted:
                    figures = await scenario.measure(run)
                    self.results[scenario.key][contestant.name].append(figures)
                    print(f"{prefix} {scenario.key}: {contestant.name}: {line(figures)}", flush=True)
                    done += 1
        except (RuntimeError, TimeoutError, OSError) as error:
            # A peer that fails is a row that says so; the others are measured nevertheless.
            key = wanted[done].key
            self.failed[key, contestant.name] = f"{type(error).__name__}: {error}"
            print(f"{prefix} {key}: {contestant.name}: failed: {error!r}", flush=True)
        return wanted[done + 1 :]


def main() -> int:
    """Run it; 1 where one of our own deliveries was not as it should be, or we could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 5")
    parser.add_argument("--only", help="contestants: " + ",".join(c.short for c in CONTESTANTS))
    parser.add_argument("--scenario", help="scenarios: " + ",".join(s.key for s in SCENARIOS))
    parser.add_argument(
        "--out", type=Path, help="folder for RESULTS.md and chart.svg; by default this one, if all was run"
    )
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    rounds: int = arguments.rounds or (1 if quick else 5)
    names = selected(arguments.only, [contestant.short for contestant in CONTESTANTS])
    if quick and arguments.only is None:
        names = [contestant.short for contestant in CONTESTANTS if contestant.everywhere]
    keys = selected(arguments.scenario, [scenario.key for scenario in SCENARIOS])
    sizes = QUICK if quick else FULL
    contestants = [contestant for contestant in CONTESTANTS if contestant.short in names]
    raise_file_limit()
    prepare(contestants)
    load_average = os.getloadavg()[0]
    measurement = Measurement(contestants, keys, sizes)
    asyncio.run(measurement.run(rounds))
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    report = render(measurement.results, measurement.failed, sizes, command, load_average)
    print(f"\n{report}")
    partial = bool(quick or arguments.only or arguments.scenario)
    out: Path | None = arguments.out or (None if partial else HERE)
    if out is not None:
        results = out / "RESULTS.md"
        written = results.read_text() if results.exists() else ""
        for part in PARTS:
            report = with_part(report, part, part_of(written, part))
        results.write_text(report)
        (out / "chart.svg").write_text(chart(measurement.results, sizes))
    faults = sum(f.faults for by_name in measurement.results.values() for f in by_name.get(OURS.name, []))
    return int(bool(faults) or any(name == OURS.name for _, name in measurement.failed))


if __name__ == "__main__":
    sys.exit(main())
