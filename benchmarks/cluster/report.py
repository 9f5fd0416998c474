"""What was measured across nodes as Markdown, a section of RESULTS.md. Knows what a measurement looks like."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.cluster.contestants import ENTRANTS
from benchmarks.cluster.scenarios import SCENARIOS, WINDOW, Sizes
from benchmarks.cluster.targets import Outcome, outcomes
from benchmarks.process import server_core
from benchmarks.report import facts, fairness, number, packages, row
from benchmarks.scenarios import Figures
from benchmarks.targets import Results
from tests.support.engines import ENGINES

__all__ = ["engine_versions", "render"]

PACKAGES = (
    "velocity-ws",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "redis",
    "hiredis",
    "nats-py",
    "python-socketio",
    "channels",
    "channels-redis",
)

METHOD = """\
Two processes of the same server, and an engine between them, which is the same Valkey for all that use Redis: one sends
and has no clients, the other has all the clients and is {pinned}. All are served by
uvicorn on uvloop, velocity-ws with its own two classes; everything else is as above. channels_redis is measured with
both of its layers. Who is measured takes turns, in rotated order, each with fresh processes. Messages have 128 bytes.

- A room that the node has no members in: its one client is in another room. Its CPU while so many messages are sent
  ({peers:,} for the peers), less that of an equal time in which nothing is, and its wake-ups (voluntary context
  switches) likewise. Idle are {idle:g} s before and {idle:g} s after; by how much these two differ is what idle varies
  by, for each message. Next to it, what a message costs the same node that has one member in the room.
- Latency is from just before the sender encodes a message until the clients' process has read it. Of so few messages
  p99 is the slowest one of each round: other load on the machine shows there first, and in what is late.
- As fast as it goes: one task sends and awaits each message, with at most {window} on their way, for {seconds:g} s;
  deliveries a second are from the first message until the last delivery. Where the receiver is not busy all the time,
  the sender, the engine and the clients' process, which share a core on a machine of two, were the limit.
- A delivery from another node: the receiving process's CPU for each of {members} members, {pace:g} messages a second,
  from the other node, from the node itself (which also gives it to the engine), and in a process that is no node; in
  turns. What a node does anyway, such as proving that it hears, is in it.

Values are the median of {rounds} rounds, with the lowest and highest; a ratio is the median of the rounds' own ratios.
"""


def render(
    results: Results, failed: Mapping[tuple[str, str], str], sizes: Sizes, command: str, load_average: float
) -> str:
    """The section."""
    rounds = max((len(figures) for by_name in results.values() for figures in by_name.values()), default=0)
    pinned = "not pinned" if server_core() is None else "pinned to a core of its own, the rest to the others"
    method = METHOD.format(
        pinned=pinned,
        rounds=rounds,
        window=WINDOW,
        peers=sizes.elsewhere_of_peers,
        idle=sizes.idle,
        seconds=sizes.seconds,
        members=sizes.members,
        pace=sizes.member_per_second,
    )
    parts = ["## Across nodes", facts(command, load_average, [*packages(PACKAGES), *engine_versions()]), method]
    parts.append(f"### Targets across nodes\n\n{_targets(outcomes(results))}")
    for scenario in SCENARIOS:
        if scenario.key in results:
            title = scenario.title.format(**asdict(sizes))
            parts.append(f"### {title}\n\n{_table(scenario.key, results[scenario.key], failed)}")
    parts.append(f"### Was it fair across nodes?\n\n{fairness(results, failed)}")
    return "\n".join(parts)


def engine_versions() -> list[str]:
    """Those of the engines that `engines` starts."""
    found = []
    for kind, name in (("valkey", "Valkey"), ("nats", "nats-server")):
        command = [ENGINES[kind](0)[0], "--version"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        version = next(word for word in said.split() if word.startswith("v"))
        found.append(f"{name} {version.removeprefix('v').removeprefix('=')}")
    return found


def _targets(found: Sequence[Outcome]) -> str:
    lines = [row(["Target of velocity-ws", "", "measured", ""]), row(["---", "---:", "---:", "---"])]
    for outcome in found:
        limit = "" if outcome.limit is None else f"{round(outcome.limit, 3):g}"
        measured = "" if outcome.measured is None else f"{outcome.measured:.{outcome.digits}f}"
        how = "at least" if outcome.at_least else "at most"
        lines.append(row([outcome.target, f"{how} {limit}", measured, outcome.verdict]))
    return "".join(lines)


def _table(key: str, by_name: Mapping[str, Sequence[Figures]], failed: Mapping[tuple[str, str], str]) -> str:
    measured = [figures for figures in by_name.values() if figures]
    if not measured:
        return "Nothing was measured.\n"
    columns = list(measured[0][0].values)
    header = [columns[0], "lowest to highest", *columns[1:], "load busy", "late", "faults"]
    lines = [row(["Server", *header]), row(["---", *["---:"] * len(header)])]
    missing = {entrant.name: entrant.contestant.missing() for entrant in ENTRANTS}
    for name, rows in by_name.items():
        if not rows:
            why = failed.get((key, name)) or failed.get(("start", name), "not measured")
            if missing[name]:
                why = f"not installed ({missing[name]})"
            lines.append(row([name, why.replace("|", "/").partition("\n")[0], *[""] * (len(header) - 1)]))
            continue
        main = [figures.values[columns[0]] for figures in rows]
        cells = [f"**{_number(median(main))}**", f"{_number(min(main))} to {_number(max(main))}"]
        cells += [_number(median(figures.values[column] for figures in rows)) for column in columns[1:]]
        cells.append(f"{median(figures.busy for figures in rows):.0%}")
        cells += [str(sum(figures.late for figures in rows)), str(sum(figures.faults for figures in rows))]
        lines.append(row([name, *cells]))
    return "".join(lines)


def _number(value: float) -> str:
    """A figure that may be close to nothing."""
    return number(value) if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"
