"""``python -m benchmarks.before CHECKOUT``: what a change costs, beside an older checkout of this project.

Both run with this interpreter and its packages, round by round in turns, so that whatever else the machine does falls
on both. A ratio is of two measurements of one round; a change is worth believing where the quarters agree.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from pathlib import Path
from statistics import median, quantiles

from benchmarks.__main__ import Measurement
from benchmarks.command import selected
from benchmarks.contestants import CONTESTANTS, OURS, Contestant
from benchmarks.process import raise_file_limit
from benchmarks.scenarios import FULL, QUICK, SCENARIOS
from benchmarks.targets import Results

__all__ = ["main", "rows"]


def rows(results: Results, pairs: list[tuple[Contestant, Contestant]]) -> list[str]:
    """One line for each scenario and pair: both medians, the median of the rounds' ratios, and its quarters."""
    lines = []
    for key, by_name in results.items():
        for after, before in pairs:
            both = list(zip(by_name[after.name], by_name[before.name], strict=False))
            if not both:
                continue
            column = next(iter(both[0][0].values))
            now = [figures.values[column] for figures, _ in both]
            then = [figures.values[column] for _, figures in both]
            ratios = [mine / theirs for mine, theirs in zip(now, then, strict=True)]
            low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
            lines.append(
                f"{key}: {after.name}: {column} {median(then):.2f} -> {median(now):.2f}, "
                f"ratio {median(ratios):.3f} ({low:.3f} to {high:.3f}, {len(ratios)} rounds)"
            )
    return lines


def main() -> None:
    """Measure, and say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the older state of the project")
    parser.add_argument("--quick", action="store_true", help="a few seconds that show that it works, no figures")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default=OURS.short, help="contestants of this project")
    parser.add_argument("--scenario", help="scenarios: " + ",".join(s.key for s in SCENARIOS))
    arguments = parser.parse_args()
    names = selected(arguments.only, [contestant.short for contestant in CONTESTANTS])
    keys = selected(arguments.scenario, [scenario.key for scenario in SCENARIOS])
    root: Path = arguments.checkout.resolve()
    pairs = [
        (contestant, dataclasses.replace(contestant, name=f"{contestant.name}, before", root=root))
        for contestant in CONTESTANTS
        if contestant.short in names
    ]
    raise_file_limit()
    measurement = Measurement([each for pair in pairs for each in pair], keys, QUICK if arguments.quick else FULL)
    print(f"load average {os.getloadavg()[0]:.2f}")
    asyncio.run(measurement.run(arguments.rounds))
    print("\n".join(["", *rows(measurement.results, pairs)]))
    for (key, name), error in measurement.failed.items():
        print(f"{key}: {name}: failed: {error}")


if __name__ == "__main__":
    main()
