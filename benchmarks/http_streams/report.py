"""What readers of streams over HTTP cost as Markdown, a section of RESULTS.md, and what they may. Knows no process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.cluster.report import engine_versions
from benchmarks.cluster.targets import Outcome
from benchmarks.http_streams.scenarios import CONTESTANTS, CPU, MEMORY, WAITING, Sizes, ratio
from benchmarks.process import server_core
from benchmarks.report import facts, fairness, number, packages, row
from benchmarks.scenarios import Figures
from benchmarks.tables import targets
from benchmarks.targets import Results

__all__ = ["outcomes", "render"]

PACKAGES = (
    "velocity-ws", "uvicorn", "uvloop", "starlette", "fastapi", "redis", "hiredis", "rakaia-streams",
    "fastapi-resumable-stream",
)  # fmt: skip
METHOD = """\
The server is {pinned}. All are on uvicorn with httptools and uvloop; velocity-ws has its own classes.

- A stream with {readers} readers of events: {tokens} tokens of {size} bytes, {per_second:g} a second. Those of
  velocity-ws and of rakaia-streams, which speak the same protocol, come by a request each; fastapi-resumable-stream has
  its source in the server, as its README has it. rakaia-streams keeps streams in its memory; the others in
  Valkey. The server's CPU is from the first token to the last end at a reader, for each KiB of text that a reader has
  got; it has the requests of the writer in it, each of which costs as much whatever it says: at fewer tokens a second,
  or with fewer readers, a KiB is dearer. Each text is compared, character by character.
- {waiting:,} clients that wait for what is never said, of each kind in a fresh server: its resident memory over that
  before they came.

They take turns in each of {rounds} rounds; values are medians, with the lowest and highest.
"""


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured."""
    found = []
    delivery, waiting = results["delivery"], results["waiting"]
    for peer in CONTESTANTS[1:]:
        measured = ratio(delivery.get(CONTESTANTS[0].name, []), delivery.get(peer.name, []), CPU)
        found.append(Outcome(f"CPU of a delivered KiB, relative to {peer.name}", 0.3, measured))
    socket, *others = (waiting.get(name, []) for name in WAITING)
    for name, rows in zip(list(WAITING)[1:], others, strict=True):
        more = [mine.values[MEMORY] - own.values[MEMORY] for mine, own in zip(rows, socket, strict=False)]
        target = f"memory of {name} that waits, over an idle WebSocket, KiB"
        found.append(Outcome(target, 4, median(more) if more else None))
    every = [figures for by_name in results.values() for rows in by_name.values() for figures in rows]
    found.append(Outcome("texts that were not as they should be", 0, sum(each.faults for each in every), digits=0))
    return found


def render(
    results: Results,
    failed: Mapping[tuple[str, str], str],
    absent: Mapping[tuple[str, str], str],
    sizes: Sizes,
    command: str,
    load_average: float,
) -> str:
    """The section; of what failed and of what is not installed, why."""
    rounds = max((len(rows) for by_name in results.values() for rows in by_name.values()), default=0)
    pinned = "not pinned" if server_core() is None else "pinned to a core of its own, the rest to the others"
    return "\n".join(
        [
            "## Streams over HTTP",
            facts(command, load_average, [*packages(PACKAGES), *engine_versions()]),
            METHOD.format(pinned=pinned, rounds=rounds, **asdict(sizes)),
            f"### Targets of streams over HTTP\n\n{targets(outcomes(results))}",
            f"### Readers of one stream\n\n{_table('delivery', results, {**absent, **failed})}",
            f"### Readers that wait\n\n{_table('waiting', results, {**absent, **failed})}",
            f"### Was it fair to streams over HTTP?\n\n{fairness(results, failed)}",
        ]
    )


def _table(key: str, results: Results, failed: Mapping[tuple[str, str], str]) -> str:
    by_name = results[key]
    columns = next((list(rows[0].values) for rows in by_name.values() if rows), [])
    header = ["", *columns[:1], "lowest to highest", *columns[1:], "late", "faults"]
    lines = [row(header), row(["---", *["---:"] * (len(header) - 1)])]
    for name, rows in by_name.items():
        if not rows:
            lines.append(row([name, failed.get((key, name), "not measured").partition("\n")[0]]))
            continue
        main = [figures.values[columns[0]] for figures in rows]
        cells = [name, f"**{number(median(main))}**", f"{number(min(main))} to {number(max(main))}"]
        cells += [f"{median(_column(rows, column)):.2f}" for column in columns[1:]]
        cells += [str(sum(figures.late for figures in rows)), str(sum(figures.faults for figures in rows))]
        lines.append(row(cells))
    return "".join(lines)


def _column(rows: Sequence[Figures], column: str) -> list[float]:
    return [figures.values[column] for figures in rows]
