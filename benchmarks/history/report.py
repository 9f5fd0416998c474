"""What history costs as Markdown, a section of RESULTS.md, and what it may. Knows what a measurement looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.cluster.report import engine_versions
from benchmarks.cluster.targets import Outcome
from benchmarks.history.scenarios import BEFORE_RATIO, FULL, OTHERS_RATIO, RATIO, READS, SCENARIOS, Sizes, of_members
from benchmarks.process import server_core
from benchmarks.report import facts, fairness, packages
from benchmarks.scenarios import Figures
from benchmarks.tables import by_engine, targets
from benchmarks.targets import Results

__all__ = ["outcomes", "render"]

PACKAGES = ("velocity-ws", "uvicorn", "uvloop", "redis", "hiredis", "nats-py", "msgspec")
NODES = 2
"""Those that clients come back to."""

METHOD = """\
velocity-ws beside itself: a room of a kind with `History(size=1000)`, and a room of a kind without, on the same
processes and engine, in {turns} turns of each in a round; a ratio is the median of the turns' own ratios. The nodes
that are measured are {pinned}. NATS stores in files. Messages have {size} bytes,
and in a room with history 40 more, for their place.

- A message that a node sends: {sent:,} in a turn, each sent when the one before is taken, no client in the room.
- A message for a node that has members of the room: sent by another node, {per_second:g} a second; with `memory://`,
  where there is one process, the sending is in it.
- Clients that come back: {at_once} at a time until all {back:,} have connected, joined, and got their answer and what
  they have missed, over two nodes, which know nothing of the room before. The others do the same without a position,
  and miss nothing. Every answer and message is checked. Meanwhile another node says {other_per_second:g} messages a
  second in another room, which {others} clients hear. As the nodes, which share a core, are busy all the time, these
  wait whoever comes: compare both, and what it was before. The same again, spread over {seconds:g} s.
- Rooms in which nothing is said: one client is in {quiet:,} of them, for {idle:g} s from when it came in. That is when
  a node asks most often whether it has missed a last message: after 10 s, then after twice as long each time, up to 5
  minutes.

Values are the median of {rounds} rounds, with the lowest and highest.
"""


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured."""
    found = []
    for name, rows in results.get("sending", {}).items():
        found.append(Outcome(f"{name}: a message for its sender, {RATIO}", 1.5, _median(rows, RATIO)))
    for name, rows in results.get("delivering", {}).items():
        for members in FULL.members:
            limit = 1.1 if name != "memory" else None
            measured = _median(rows, of_members(members))
            found.append(Outcome(f"{name}: a message for a node with members, {of_members(members)}", limit, measured))
    for name, rows in results.get("returning", {}).items():
        title = f"{name}: clients that come back"
        found.append(Outcome(f"{title}, CPU relative to new ones", 1.3, _median(rows, RATIO)))
        reads = max([figures.values[READS] for figures in rows], default=None)
        found.append(Outcome(f"{title}, {READS} (nodes + 1)", NODES + 1, reads, digits=0))
        found += [Outcome(f"{title}, {each}", 2, _median(rows, each)) for each in (OTHERS_RATIO, BEFORE_RATIO)]
    for name, rows in results.get("spread", {}).items():
        title = f"{name}: clients that come back within {FULL.seconds:g} s"
        found += [Outcome(f"{title}, {each}", 2, _median(rows, each)) for each in (OTHERS_RATIO, BEFORE_RATIO)]
    every = [figures for by_name in results.values() for rows in by_name.values() for figures in rows]
    faults = sum([figures.faults for figures in every]) if every else None
    found.append(Outcome("messages and answers that were lost, duplicated or out of order", 0, faults, digits=0))
    return found


def _median(rows: Sequence[Figures], column: str) -> float | None:
    values = [figures.values[column] for figures in rows if column in figures.values]
    return median(values) if values else None


def render(
    results: Results, failed: Mapping[tuple[str, str], str], sizes: Sizes, command: str, load_average: float
) -> str:
    """The section."""
    rounds = max((len(rows) for by_name in results.values() for rows in by_name.values()), default=0)
    pinned = "not pinned" if server_core() is None else "pinned to a core of their own, the rest to the others"
    parts = ["## History", facts(command, load_average, [*packages(PACKAGES), *engine_versions()])]
    parts.append(METHOD.format(pinned=pinned, rounds=rounds, size=128, **asdict(sizes)))
    parts.append(f"### Targets of history\n\n{targets(outcomes(results))}")
    for scenario in SCENARIOS:
        if scenario.key in results:
            title = scenario.title.format(**asdict(sizes))
            parts.append(f"### {title}\n\n{by_engine(scenario.key, results[scenario.key], failed)}")
    parts.append(f"### Was it fair to history?\n\n{fairness(results, failed)}")
    return "\n".join(parts)
