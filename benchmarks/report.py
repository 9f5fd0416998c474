"""The results as Markdown. Knows what a measurement looks like, and not how it was made."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from benchmarks.chart import Bar, Panel, draw
from benchmarks.contestants import BASELINE, CONTESTANTS, NODE, OURS
from benchmarks.process import server_core
from benchmarks.scenarios import SCENARIOS, Figures, Sizes
from benchmarks.targets import Results, outcomes

__all__ = ["chart", "facts", "fairness", "number", "packages", "render", "row"]

PACKAGES = (
    "velocity-ws",
    "uvicorn",
    "starlette",
    "websockets",
    "uvloop",
    "httptools",
    "picows",
    "aiohttp",
    "python-socketio",
    "channels",
    "litestar",
)

METHOD = """\
Every server is a program of its own, {pinned}. Servers in Python run on
uvloop, those on uvicorn with httptools and its default WebSocket class (velocity-ws with its own two classes). None
sends keepalive pings. `ws` and Socket.IO on Node are told to compress messages under 1,024 bytes too, as the others do.
Broadcasts, echo and churn without compression share a process, fresh in every round; the others have one each.
Contestants take turns, in rotated order. Django Channels gets a fifth of the messages and of the idle connections: its
in-memory layer looks at every channel for each message, and would take longer than all others together.

The cost of a message is the server process's user and system CPU, read from outside, from before the first broadcast to
after the last delivery, divided by deliveries; connecting and warming up are not in it, encoding is. The kernel's part
includes delivering over the loopback interface, which is the same for all. The split into user and system is the
kernel's, in ticks, and less exact than their sum.

Latency is from just before the server encodes a message until the load has read it. The pace is the same for all, about
half of what the baseline can do on this kind of machine; who cannot keep it is late, and its latency is that of a queue
that grows.

Values are the median of {rounds} rounds, with the lowest and highest; a ratio is the median of the rounds' own ratios.
Where the spread is wide, other programs were running, and the lowest values are the ones to compare. Memory is the
server's resident memory over that of the same process without connections. All clients are raw sockets in one process,
which keeps what arrives and checks every message afterwards.
"""


def render(
    results: Results, failed: Mapping[tuple[str, str], str], sizes: Sizes, command: str, load_average: float
) -> str:
    """Everything that was measured, and where and how."""
    rounds = max((len(figures) for by_name in results.values() for figures in by_name.values()), default=0)
    core = server_core()
    pinned = "not pinned" if core is None else "pinned to one core, the load to the others"
    parts = ["# Results", facts(command, load_average, _versions()), METHOD.format(pinned=pinned, rounds=rounds)]
    parts.append(f"## Targets\n\n{_targets(results)}")
    for scenario in SCENARIOS:
        if scenario.key in results:
            title = scenario.title.format(**asdict(sizes))
            parts.append(f"## {title}\n\n{_table(scenario.key, results[scenario.key], failed)}")
    parts.append(f"## Was it fair?\n\n{fairness(results, failed)}")
    return "\n".join(parts)


CHARTED = {
    "fanout": "CPU for each delivery, one room of {clients:,}, 128 bytes",
    "deflate": "CPU for each delivery, one room of {clients:,}, 400 bytes, permessage-deflate",
    "echo": "CPU for each round trip, echo of 64 bytes of JSON",
}


def chart(results: Results, sizes: Sizes) -> str:
    """The medians of some scenarios as bars, in SVG."""
    panels = []
    for key, title in CHARTED.items():
        bars = [
            Bar(name, median(figures.values["CPU, µs"] for figures in rows), ours=name == OURS.name)
            for name, rows in results.get(key, {}).items()
            if rows
        ]
        if bars:
            panels.append(Panel(title.format(**asdict(sizes)), "µs", bars))
    return draw(panels)


def _targets(results: Results) -> str:
    lines = [row(["Target of velocity-ws", "at most", "measured", ""]), row(["---", "---:", "---:", "---"])]
    for outcome in outcomes(results):
        measured = "" if outcome.measured is None else f"{outcome.measured:.2f}"
        lines.append(row([outcome.target, f"{outcome.limit:g}", measured, outcome.verdict]))
    return "".join(lines)


def facts(command: str, load_average: float, versions: Sequence[str]) -> str:
    """What was run, when, where, and with what."""
    found = {
        "Command": f"`{command}`",
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Software": ", ".join([f"{platform.python_implementation()} {platform.python_version()}", *versions]),
        "Machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Other load": f"load average {load_average:.2f} before the run (0 is an idle machine)",
    }
    return "\n" + "".join(f"- {name}: {fact}\n" for name, fact in found.items())


def packages(names: Sequence[str]) -> list[str]:
    """Those that are installed, and their versions."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _versions() -> list[str]:
    found = packages(PACKAGES)
    on_node = [NODE / "node_modules" / name / "package.json" for name in ("ws", "socket.io")]
    found += [f"{path.parent.name} {json.loads(path.read_text())['version']}" for path in on_node if path.exists()]
    if node := shutil.which("node"):
        said = subprocess.run([node, "--version"], check=True, capture_output=True, text=True)
        found.append(f"Node {said.stdout.strip()}")
    return found


def _table(key: str, by_name: Mapping[str, Sequence[Figures]], failed: Mapping[tuple[str, str], str]) -> str:
    measured = [figures for figures in by_name.values() if figures]
    if not measured:
        return "Nothing was measured.\n"
    columns = list(measured[0][0].values)
    header = [columns[0], "lowest to highest", "ratio", *columns[1:], "load busy", "late", "faults"]
    lines = [row(["Server", *header]), row(["---", *["---:"] * len(header)])]
    base = [figures.values[columns[0]] for figures in by_name.get(BASELINE.name, [])]
    by_contestant = {contestant.name: contestant for contestant in CONTESTANTS}
    for name, rows in by_name.items():
        if not rows:
            contestant = by_contestant[name]
            missing = contestant.missing()
            why = f"not installed ({missing})" if missing else failed.get((key, name), "does not have it")
            lines.append(row([name, why.replace("|", "/").partition("\n")[0], *[""] * (len(header) - 1)]))
            continue
        main = [figures.values[columns[0]] for figures in rows]
        ratios = [mine / theirs for mine, theirs in zip(main, base, strict=False) if theirs]
        cells = [f"**{number(median(main))}**", f"{number(min(main))} to {number(max(main))}"]
        cells.append(f"{median(ratios):.2f}" if ratios else "")
        cells += [number(median(figures.values[column] for figures in rows)) for column in columns[1:]]
        cells.append(f"{median(figures.busy for figures in rows):.0%}")
        cells += [str(sum(figures.late for figures in rows)), str(sum(figures.faults for figures in rows))]
        lines.append(row([name, *cells]))
    return "".join(lines)


def number(value: float) -> str:
    """With as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def fairness(results: Results, failed: Mapping[tuple[str, str], str]) -> str:
    """What was checked, and whether the load kept up."""
    every = [figures for by_name in results.values() for rows in by_name.values() for figures in rows]
    faults = {
        f"{name} ({key}): {count}"
        for key, by_name in results.items()
        for name, rows in by_name.items()
        if (count := sum(figures.faults for figures in rows))
    }
    busy = [figures.busy for figures in every] or [0.0]
    deliveries = sum(figures.deliveries for figures in every)
    total = sum(figures.faults for figures in every)
    where = f" {'; '.join(sorted(faults))}." if faults else ""
    failures = [f"- Failed: {name} ({key}): {why}".partition("\n")[0] for (key, name), why in failed.items()]
    return (
        f"- {deliveries:,} deliveries, each one checked: {total} lost, duplicated or out of order.{where}\n"
        f"- The load's process was {median(busy):.0%} busy while messages came (at most {max(busy):.0%}).\n"
        + "".join(f"{failure}\n" for failure in failures)
    )


def row(cells: Sequence[str]) -> str:
    """Of a table."""
    return f"| {' | '.join(cells)} |\n"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
