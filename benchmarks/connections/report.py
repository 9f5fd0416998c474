"""What connections cost as Markdown, a section of RESULTS.md, and what they may. Knows no process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median, quantiles

from benchmarks.cluster.targets import Outcome
from benchmarks.connections.coming import ANNOTATIONS, BY_HAND, CONTESTANTS, CPU, OTHERS, OURS, PEERS, STORM
from benchmarks.connections.growth import COLD, HELD, HOT, UP
from benchmarks.connections.scenarios import SCENARIOS
from benchmarks.connections.sizes import ROOM, Sizes
from benchmarks.process import server_core
from benchmarks.report import facts, fairness, packages
from benchmarks.tables import table, targets
from benchmarks.targets import Results

__all__ = ["outcomes", "render"]

PACKAGES = ("velocity-ws", "uvicorn", "uvloop", "httptools", "starlette", "websockets", "pydantic")
MANY = 20_000
"""Connections that were to be looked at."""
METHOD = """\
The server is {pinned}. velocity-ws has its usual settings, but for pings and the number of connections.

- Clients that come: each shows an origin and a token, and names a room; it gets a welcome, which is compared. Beside
  velocity-ws with `authenticate`, `WS_ALLOWED_ORIGINS`, a `join_room` and a `client.send` in `on_connect` there is a
  Starlette endpoint that does these four by hand, on uvicorn's classes (httptools, websockets). The server's CPU is
  from the first handshake to when the last client has left.
- Clients that come all after a restart: evenly spread over the time, whatever the server does; they stay. The CPU is
  from when the first comes to the last welcome, with what {others} other clients say meanwhile, each a message every
  {milliseconds:g} ms, which is echoed. How long an echo takes is counted from when its message was due. A late start is
  one that the load began 20 ms after its time. What CPython's collector of garbage takes meanwhile is the difference
  to the same endpoint without it, which no application would have.
- An echo by a handler whose data is a TypedDict, and by one whose data is a pydantic model; {turns} turns of each in a
  round.
- What grows: servers of all sizes are there at once and take {turns} turns in a round. A delivery is one of a message
  to a room of {room}; joins and leaves are of a room of which nobody else is; clients that connect do so as above.
  Those messages go to the same room, and to the same {room} users, whatever the size; beside these are figures of the
  same for every room and every user in turn, whose objects the processor does not have in its caches by then.
  {fitted}
- How long the loop was held up: how late a timer of 1 ms was at most, and how much of that the loop's thread was at
  work; what is beyond is other programs' doing, and so is some of what is not, on a machine that is a virtual one:
  compare with the smallest server. While the clients came, {at_once} at a time; for {idle:g} s in which
  nothing was said, with keepalive pings every {interval:g} s; during {broadcasts} broadcasts to all; and while all was
  done that is looked at above.

Values are the median of {rounds} rounds, with the lowest and highest; a ratio is the median of the rounds' own ratios.
"""


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured; of ratios, with the quarters of the rounds."""
    ours = [rows for by_name in results.values() for name, rows in by_name.items() if name not in PEERS]
    faults = sum([figures.faults for rows in ours for figures in rows]) if any(ours) else None
    wrong = Outcome("welcomes and messages of ours that were not as they should be", 0, faults, digits=0)
    return [*_of_coming(results), *_of_growth(results), *_of_held(results), wrong]


def _of_coming(results: Results) -> list[Outcome]:
    found = []
    for name in CONTESTANTS:
        if name in PEERS:
            continue
        enter, storm, others = (0.75, 0.6, 50) if name == OURS.name else (None, None, None)
        for key, column, what, limit in (
            ("enter", CPU, "a client that comes and goes", enter),
            ("storm", STORM, "one of a storm", storm),
        ):
            ratios = _ratios(results, key, name, BY_HAND.name, column)
            found.append(_ratio(f"{name}: {what}, CPU relative to Starlette", limit, ratios))
        waits = _values(results, "storm", name, OTHERS)
        found.append(Outcome(f"{name}: {OTHERS}, during a storm", others, _median(waits), digits=1))
    plain, model = ANNOTATIONS
    ratios = _ratios(results, "models", model, plain, CPU)
    return [*found, _ratio("an echo by a model, CPU relative to a TypedDict", 1.35, ratios)]


def _of_growth(results: Results) -> list[Outcome]:
    """The largest relative to the smallest."""
    found = []
    for key in ("connections", "rooms"):
        if by_name := results.get(key):
            smallest, *_, largest = by_name
            for column in (*HOT, *COLD):
                title = f"{column.removesuffix(', µs')}: {largest} relative to {smallest.partition(' ')[0]}"
                limit = 1.3 if column in HOT else None
                found.append(_ratio(title, limit, _ratios(results, key, largest, smallest, column)))
    return found


def _of_held(results: Results) -> list[Outcome]:
    """In each phase of the largest."""
    names = list(results.get("held", {}))[-len(HELD) :]
    return [Outcome(f"{name}: {UP}", 5, _median(_values(results, "held", name, UP)), digits=1) for name in names]


def _values(results: Results, key: str, name: str, column: str) -> list[float]:
    return [figures.values[column] for figures in results.get(key, {}).get(name, [])]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _ratios(results: Results, key: str, mine: str, theirs: str, column: str) -> list[float]:
    both = zip(_values(results, key, mine, column), _values(results, key, theirs, column), strict=False)
    return [a / b for a, b in both if b]


def _ratio(title: str, limit: float | None, ratios: Sequence[float]) -> Outcome:
    if len(ratios) > 1:
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        title += f" (quarters {low:.2f} to {high:.2f})"
    return Outcome(title, limit, _median(ratios))


def render(
    results: Results, failed: Mapping[tuple[str, str], str], sizes: Sizes, command: str, load_average: float
) -> str:
    """The section."""
    rounds = max((len(rows) for by_name in results.values() for rows in by_name.values()), default=0)
    pinned = "not pinned" if server_core() is None else "pinned to a core of its own, the clients to the others"
    parts = ["## Connections", facts(command, load_average, packages(PACKAGES))]
    words = {**asdict(sizes), "milliseconds": sizes.every * 1e3, "fitted": _fitted(sizes), "room": ROOM}
    parts.append(METHOD.format(pinned=pinned, rounds=rounds, **words))
    parts.append(f"### Targets of connections\n\n{targets(outcomes(results))}")
    for scenario in SCENARIOS:
        if scenario.key in results:
            title = scenario.title.format(**asdict(sizes))
            parts.append(f"### {title}\n\n{table(scenario.key, results[scenario.key], failed)}")
    parts.append(f"### Was it fair to connections?\n\n{fairness(results, failed)}")
    return "\n".join(parts)


def _fitted(sizes: Sizes) -> str:
    most = max([spot.clients for spot in sizes.connections.values()])
    if most >= MANY:
        return ""
    return f"There were to be {MANY:,} connections; the run, or the limit of descriptors, has room for {most:,}."
