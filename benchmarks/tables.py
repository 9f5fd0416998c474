"""Tables of what velocity-ws is measured beside itself: targets, and a row for each engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.cluster.targets import Outcome
from benchmarks.report import number, row
from benchmarks.scenarios import Figures

__all__ = ["by_engine", "targets"]


def targets(found: Sequence[Outcome]) -> str:
    """What was to be reached, and whether it was; without a limit, only what was measured."""
    lines = [row(["Target of velocity-ws", "", "measured", ""]), row(["---", "---:", "---:", "---"])]
    for outcome in found:
        limit = "" if outcome.limit is None else f"at most {outcome.limit:g}"
        measured = "" if outcome.measured is None else f"{outcome.measured:.{outcome.digits}f}"
        verdict = outcome.verdict if outcome.limit is not None else ""
        lines.append(row([outcome.target, limit, measured, verdict]))
    return "".join(lines)


def by_engine(key: str, by_name: Mapping[str, Sequence[Figures]], failed: Mapping[tuple[str, str], str]) -> str:
    """One scenario: a row for each engine, with the medians of its rounds."""
    measured = [figures for figures in by_name.values() if figures]
    if not measured:
        reasons = [f" {name}: {failed[key, name]}".partition("\n")[0] for name in by_name if (key, name) in failed]
        return f"Nothing was measured.{';'.join(reasons)}\n"
    columns = list(measured[0][0].values)
    header = ["Engine", columns[0], "lowest to highest", *columns[1:], "load busy", "late", "faults"]
    lines = [row(header), row(["---", *["---:"] * (len(header) - 1)])]
    for name, rows in by_name.items():
        if not rows:
            lines.append(row([f"{name}://", failed.get((key, name), "not measured").partition("\n")[0]]))
            continue
        main = [figures.values[columns[0]] for figures in rows]
        cells = [f"**{_number(median(main))}**", f"{_number(min(main))} to {_number(max(main))}"]
        cells += [_number(median([figures.values[column] for figures in rows])) for column in columns[1:]]
        cells.append(f"{median([figures.busy for figures in rows]):.0%}")
        cells += [str(sum([figures.late for figures in rows])), str(sum([figures.faults for figures in rows]))]
        lines.append(row([f"{name}://", *cells]))
    return "".join(lines)


def _number(value: float) -> str:
    return number(value) if abs(value) >= 10 else f"{value:.2f}"
