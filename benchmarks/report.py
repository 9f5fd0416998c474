"""The results as Markdown. Knows what a measurement looks like, and not how it was made."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.contestants import BASELINE
from benchmarks.process import server_core
from benchmarks.scenarios import WARM_UP, Figures, Scenario

__all__ = ["Results", "render"]

Results = Mapping[Scenario, Mapping[str, Sequence[Figures]]]
PACKAGES = ("velocity-ws", "uvicorn", "starlette", "websockets", "uvloop", "httptools")

METHOD = """\
How it was measured: every server runs under uvicorn (`websockets-sansio`, uvloop, httptools, no keepalive pings, the
same `ws_per_message_deflate`), in a fresh process for each measurement, {pinned}.
Servers take turns in every round, in rotated order. The cost of a message is the server process's user and system CPU
from before the first broadcast to after the last delivery, divided by deliveries; connecting and {warm_up} messages of
warming up are not included, encoding is. The kernel's part includes delivering over the loopback interface, which is
the same for all.

Values are the median of {rounds} rounds, with the lowest and highest; a ratio is the median of the rounds' own ratios.
Where the spread is wide, other programs were running, and the lowest values are the ones to compare. Memory is the
server's resident memory over that of the same process without connections. All clients are raw sockets in one process,
which keeps what arrives and checks every message afterwards.
"""


def render(results: Results, command: str, load_average: float) -> str:
    """Everything that was measured, and where and how."""
    rounds = len(next(iter(next(iter(results.values())).values())))
    core = server_core()
    pinned = "not pinned" if core is None else "pinned to one core, the clients to the others"
    parts = ["# Results", _facts(command, load_average), METHOD.format(pinned=pinned, rounds=rounds, warm_up=WARM_UP)]
    for scenario, by_server in results.items():
        parts.append(f"## {scenario.title}\n\n{_table(by_server, scenario.unit)}")
    parts.append(f"## Was it fair?\n\n{_fairness(results)}")
    return "\n".join(parts)


def _facts(command: str, load_average: float) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    facts = {
        "Command": f"`{command}`",
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Software": f"{platform.python_implementation()} {platform.python_version()}, {versions}",
        "Machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Other load": f"load average {load_average:.2f} before the run (0 is an idle machine)",
    }
    return "\n" + "".join(f"- {name}: {fact}\n" for name, fact in facts.items())


def _table(by_server: Mapping[str, Sequence[Figures]], unit: str) -> str:
    names = list(next(iter(by_server.values()))[0].values)
    main = names[0]
    header = [f"{name}, {unit}" if "bytes" not in name else name for name in names]
    lines = [_row(["Server", header[0], "lowest to highest", f"relative to {BASELINE}", *header[1:]])]
    lines.append(_row(["---", *["---:"] * (len(header) + 2)]))
    for server, measured in by_server.items():
        column = [figures.values[main] for figures in measured]
        base = [figures.values[main] for figures in by_server[BASELINE]]
        ratio = median(mine / theirs for mine, theirs in zip(column, base, strict=True))
        rest = [f"{median(figures.values[name] for figures in measured):.1f}" for name in names[1:]]
        spread = f"{min(column):.1f} to {max(column):.1f}"
        lines.append(_row([server, f"**{median(column):.1f}**", spread, f"{ratio:.2f}", *rest]))
    return "".join(lines)


def _fairness(results: Results) -> str:
    every = [figures for by_server in results.values() for measured in by_server.values() for figures in measured]
    busy = [figures.busy for figures in every]
    deliveries = sum(figures.deliveries for figures in every)
    faults = sum(figures.faults for figures in every)
    late = sum(figures.late for figures in every)
    return (
        f"- {deliveries:,} deliveries, each one checked: {faults} lost, duplicated or out of order.\n"
        f"- The clients' process was {median(busy):.0%} busy while messages came (at most {max(busy):.0%}).\n"
        f"- Broadcasts that began late, because the server was too slow or did not get its core: {late}.\n"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
