"""What velocity-ws has to reach across nodes, next to what was measured. Knows results, and not how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cluster.contestants import OURS, PEERS, REDIS
from benchmarks.cluster.scenarios import IDLE_VARIES, OVER_IDLE, P99, THROUGHPUT, TO_ALONE, TO_OWN, WAKEUPS
from benchmarks.targets import Results

__all__ = ["Outcome", "outcomes"]

NO_WAKEUP = 0.001
"""Wake-ups for a message that count as none: a probe more or less within the time of some thousand messages."""


@dataclass(frozen=True)
class Outcome:
    """One target.

    Attributes:
        target: in words.
        limit: what meets it.
        measured: ``None`` where it was not measured.
        at_least: whether more is better.
        digits: that are shown, and compared.
    """

    target: str
    limit: float | None
    measured: float | None
    at_least: bool = False
    digits: int = 2

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``."""
        if self.measured is None or self.limit is None:
            return "not measured"
        measured, limit = round(self.measured, self.digits), round(self.limit, self.digits)
        return "met" if (measured >= limit if self.at_least else measured <= limit) else "**missed**"


def _values(results: Results, key: str, name: str, column: str) -> list[float]:
    return [figures.values[column] for figures in results.get(key, {}).get(name, [])]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the rounds' own ratios: what disturbs the machine for a while disturbs both."""
    return _median([a / b for a, b in zip(mine, theirs, strict=False) if b])


def _best(rows: Sequence[list[float]], best: Callable[[Sequence[float]], float]) -> list[float]:
    """The best peer's in each round."""
    measured = [row for row in rows if row]
    return [best(values) for values in zip(*measured, strict=False)]


def _against(
    results: Results, key: str, column: str, best: Callable[[Sequence[float]], float]
) -> list[tuple[str, float | None]]:
    """Ours relative to the peers: on their engine to each of them, on the other engines to the best."""
    rows = {peer.name: _values(results, key, peer.name, column) for peer in PEERS}
    mine = _values(results, key, REDIS.name, column)
    found = [(f"{REDIS.name}, relative to {name}", _ratio(mine, theirs)) for name, theirs in rows.items()]
    theirs = _best(list(rows.values()), best)
    found += [
        (f"{ours.name}, relative to the best of them", _ratio(_values(results, key, ours.name, column), theirs))
        for ours in OURS
        if ours is not REDIS
    ]
    return found


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured."""
    found = []
    for ours in OURS:
        noise = _values(results, "elsewhere", ours.name, IDLE_VARIES)
        over = _median(_values(results, "elsewhere", ours.name, OVER_IDLE))
        title = f"a message to a room without members here, {ours.name}"
        found.append(
            Outcome(f"{title}, CPU over idle, µs (at most what idle varies by)", max(noise, default=None), over)
        )
        wakeups = _median(_values(results, "elsewhere", ours.name, WAKEUPS))
        found.append(Outcome(f"{title}, wake-ups over idle", NO_WAKEUP, wakeups, digits=3))
    for name, ratio in _against(results, "saturation", THROUGHPUT, max):
        found.append(Outcome(f"deliveries a second across nodes, {name}", 3, ratio, at_least=True))
    for name, ratio in _against(results, "paced", P99, min):
        found.append(Outcome(f"p99 across nodes, {name}", 1, ratio))
    for ours in OURS:
        title = f"CPU of a delivery that comes from another node, {ours.name}, relative to"
        own = _median(_values(results, "members", ours.name, TO_OWN))
        alone = _median(_values(results, "members", ours.name, TO_ALONE))
        found.append(Outcome(f"{title} one of the node's own", 1.15, own))
        found.append(Outcome(f"{title} one in a process that is no node", 1.15, alone))
    names = {ours.name for ours in OURS}
    mine = [f for by_name in results.values() for name, rows in by_name.items() if name in names for f in rows]
    faults = sum(figures.faults for figures in mine) if mine else None
    found.append(Outcome("deliveries of ours that were lost, duplicated or out of order", 0, faults, digits=0))
    return found
