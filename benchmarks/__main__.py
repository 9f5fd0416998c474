"""``python -m benchmarks``: measure everything, side by side, and write RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.process import Child, raise_file_limit
from benchmarks.report import render
from benchmarks.scenarios import Figures, Scenario, scenarios

RESULTS = Path(__file__).with_name("RESULTS.md")


async def measure(rounds: int, *, quick: bool) -> dict[Scenario, dict[str, list[Figures]]]:
    """Every scenario for every server, in turns."""
    servers = list(CONTESTANTS)
    results: dict[Scenario, dict[str, list[Figures]]] = {
        scenario: {server: [] for server in servers} for scenario in scenarios(quick=quick)
    }
    async with Child("load") as load:
        for number in range(rounds):
            turn = number % len(servers)
            for scenario, by_server in results.items():
                for server in servers[turn:] + servers[:turn]:
                    figures = await scenario.measure(server, load)
                    by_server[server].append(figures)
                    value = next(iter(figures.values.values()))
                    print(f"{number + 1}/{rounds} {scenario.title}: {server}: {value:.1f} {scenario.unit}", flush=True)
    return results


def main() -> int:
    """Run it; 1 where a delivery was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, help="by default 7")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    rounds: int = arguments.rounds or (1 if quick else 7)
    raise_file_limit()
    load_average = os.getloadavg()[0]
    results = asyncio.run(measure(rounds, quick=quick))
    report = render(results, " ".join(["python -m benchmarks", *sys.argv[1:]]), load_average)
    print(f"\n{report}")
    if not quick:
        RESULTS.write_text(report)
    return int(any(f.faults for by_server in results.values() for measured in by_server.values() for f in measured))


if __name__ == "__main__":
    sys.exit(main())
