"""What streams cost as Markdown, a section of RESULTS.md, and what they may. Knows what a measurement looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.cluster.report import engine_versions
from benchmarks.cluster.targets import Outcome
from benchmarks.process import server_core
from benchmarks.report import facts, fairness, packages
from benchmarks.scenarios import Figures
from benchmarks.streams.peers import PEERS
from benchmarks.streams.runs import FULL, Sizes
from benchmarks.streams.scenarios import BEYOND, OTHERS, P99, RATIO, SCENARIOS, TO_BROADCAST, to_peer
from benchmarks.tables import by_engine, targets
from benchmarks.targets import Results

__all__ = ["outcomes", "render"]

PACKAGES = (
    "velocity-ws",
    "uvicorn",
    "uvloop",
    "starlette",
    "fastapi",
    "redis",
    "hiredis",
    "nats-py",
    "fastapi-resumable-stream",
    "resumable-stream",
)
LATEST = 40.0
"""Milliseconds in which a token is at its readers: `WS_STREAM_INTERVAL`, 20 ms by default, and as much again."""

METHOD = """\
`broker.streams.start` with a source that yields tokens in real time, each stream by its own clock. The server is
{pinned}. NATS stores in files. Each round has {turns} turns of each that is compared; a ratio is the median of the
turns' own ratios. Every text is compared with what was said, character by character, and where each piece says that it
begins. A token's time is from just before its source yields it until the load has read the last of it.

- Streams beside sends: the same tokens at the same times to the same number of readers, each token by one
  `broker.to_room(room).send("token", …)` to a room with `History(size=1000)`. The server's CPU is from the first token
  to the last end at a reader, sources included; what these cost by themselves stands next to it. Where tokens are late
  by more than the time of one, the server cannot keep the pace. The engine's CPU is relative to that of the sends.
- One stream with many readers: then the pieces that one of them got are sent to the same room, at the same pace, by
  `send`; CPU for each frame that is delivered.
- Beside others: CPU of the server for each token that is delivered to a reader. The three others are on uvicorn with
  httptools, and send an event for each token. fastapi-resumable-stream and resumable-stream are as their READMEs have
  them; the third is what people write by hand: a list to catch up with, a channel for each stream, and a subscription
  for each reader.
- A slow reader: {lines:,} lines of {line:,} characters, {lines_per_second:g} a second, to {fast} readers and to slow
  ones, which read {slower} times slower than these come and have a small buffer. What the kernel keeps for the server,
  up to 4 MB for each, is not its memory. Memory is the most that the server had over what it had before, less the same
  without slow readers, in fresh processes. At the end the slow ones read on, and their text is compared too.

Values are the median of {rounds} rounds, with the lowest and highest.
"""


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured."""
    found = []
    for key, limit, latest in (("sustained", 0.5, LATEST), ("many", None, None)):
        for name, rows in results.get(key, {}).items():
            title = f"{name}: {key}"
            found.append(Outcome(f"{title}, CPU {RATIO}", limit, _median(rows, RATIO)))
            found.append(Outcome(f"{title}, {P99} from token to reader", latest, _median(rows, P99)))
    for name, rows in results.get("wide", {}).items():
        found.append(Outcome(f"{name}: one stream, CPU {TO_BROADCAST}", 1.2, _median(rows, TO_BROADCAST)))
    for peer in PEERS:
        for name, rows in results.get(peer.short, {}).items():
            for streams in FULL.beside:
                target = f"{name}: CPU of a delivered token of {streams} streams, relative to {peer.name}"
                found.append(Outcome(target, 0.1, _median(rows, to_peer(streams))))
    for name, rows in results.get("slow", {}).items():
        found.append(Outcome(f"{name}: {BEYOND}", 1, _median(rows, BEYOND)))
        found.append(Outcome(f"{name}: a slow reader, {OTHERS}", 1.1, _median(rows, OTHERS)))
    every = [figures for by_name in results.values() for rows in by_name.values() for figures in rows]
    faults = sum([figures.faults for figures in every]) if every else None
    found.append(Outcome("texts and pieces that were not as they should be", 0, faults, digits=0))
    return found


def _median(rows: Sequence[Figures], column: str) -> float | None:
    values = [figures.values[column] for figures in rows if column in figures.values]
    return median(values) if values else None


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
    parts = ["## Streams", facts(command, load_average, [*packages(PACKAGES), *engine_versions()])]
    parts.append(METHOD.format(pinned=pinned, rounds=rounds, **asdict(sizes)))
    parts.append(f"### Targets of streams\n\n{targets(outcomes(results))}")
    for scenario in SCENARIOS:
        if scenario.key in results:
            title = scenario.title.format(**asdict(sizes))
            parts.append(f"### {title}\n\n{by_engine(scenario.key, results[scenario.key], {**absent, **failed})}")
    parts.append(f"### Was it fair to streams?\n\n{fairness(results, failed)}")
    return "\n".join(parts)
