"""Tables of what velocity-ws is measured beside itself: targets, and a row for each engine. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.cluster.targets import Outcome
from benchmarks.report import number, row
from benchmarks.scenarios import Figures

__all__ = ["by_engine", "table", "targets"]


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
    return table(key, by_name, failed, heading="Engine", name="{}://", written=_number)


def table(
    key: str,
    by_name: Mapping[str, Sequence[Figures]],
    failed: Mapping[tuple[str, str], str],
    *,
    heading: str = "",
    name: str = "{}",
    written: Callable[[float], str] = number,
) -> str:
    """One scenario: a row for each that was measured, with the medians of its rounds.

    Args:
        key: of the scenario.
        by_name: the rounds of each.
        failed: why there are none, by scenario and name.
        heading: of the names.
        name: how they are written.
        written: how figures are.
    """
    measured = [figures for figures in by_name.values() if figures]
    if not measured:
        reasons = [f" {each}: {failed[key, each]}".partition("\n")[0] for each in by_name if (key, each) in failed]
        return f"Nothing was measured.{';'.join(reasons)}\n"
    columns = list(measured[0][0].values)
    header = [heading, columns[0], "lowest to highest", *columns[1:], "load busy", "late", "faults"]
    lines = [row(header), row(["---", *["---:"] * (len(header) - 1)])]
    for each, rows in by_name.items():
        if not rows:
            lines.append(row([name.format(each), failed.get((key, each), "not measured").partition("\n")[0]]))
            continue
        main = [figures.values[columns[0]] for figures in rows]
        cells = [f"**{written(median(main))}**", f"{written(min(main))} to {written(max(main))}"]
        cells += [written(median([figures.values[column] for figures in rows])) for column in columns[1:]]
        cells.append(f"{median([figures.busy for figures in rows]):.0%}")
        cells += [str(sum([figures.late for figures in rows])), str(sum([figures.faults for figures in rows]))]
        lines.append(row([name.format(each), *cells]))
    return "".join(lines)


def _number(value: float) -> str:
    return number(value) if abs(value) >= 10 else f"{value:.2f}"
