"""What velocity-ws has to reach, as ratios of what was measured. Knows the results, and not how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contestants import BASELINE, OURS
from benchmarks.scenarios import Figures

__all__ = ["Outcome", "Results", "outcomes"]

Results = dict[str, dict[str, list[Figures]]]
"""By the scenario's key and the contestant's name."""

CPU = "CPU, µs"
MEMORY = "just connected, KiB"
P99 = "p99, µs"


@dataclass(frozen=True)
class Outcome:
    """One target.

    Attributes:
        target: in words.
        limit: the most that meets it.
        measured: the median over rounds; ``None`` where it was not measured.
    """

    target: str
    limit: float
    measured: float | None

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``."""
        if self.measured is None:
            return "not measured"
        return "met" if round(self.measured, 2) <= self.limit else "**missed**"


def _values(results: Results, key: str, name: str, column: str) -> list[float]:
    return [figures.values[column] for figures in results.get(key, {}).get(name, [])]


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the rounds' own ratios: what disturbs the machine for a while disturbs both."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=False) if b]
    return median(ratios) if ratios else None


def _against(key: str, name: str) -> Callable[[Results], float | None]:
    return lambda results: _ratio(_values(results, key, OURS.name, CPU), _values(results, key, name, CPU))


def _burst(results: Results) -> float | None:
    return _ratio(_values(results, "burst", OURS.name, CPU), _values(results, "fanout", OURS.name, CPU))


def _memory(key: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        values = _values(results, key, OURS.name, MEMORY)
        return median(values) if values else None

    return measure


def _latency(results: Results) -> float | None:
    """Against the best of the peers. The floor is no peer: it does nothing else."""
    ours = _values(results, "fanout", OURS.name, P99)
    peers = {
        name: median(figures.values[P99] for figures in rows)
        for name, rows in results.get("fanout", {}).items()
        if rows and not name.startswith((OURS.name, "C, "))
    }
    return median(ours) / min(peers.values()) if ours and peers else None


TARGETS: tuple[tuple[str, float, Callable[[Results], float | None]], ...] = (
    ("one room, plain, CPU relative to Starlette `send_text`", 0.5, _against("fanout", BASELINE.name)),
    ("one room, plain, CPU relative to Starlette `send_json`", 0.25, _against("fanout", "Starlette send_json loop")),
    ("one room, plain, CPU relative to python-socketio", 0.1, _against("fanout", "python-socketio")),
    ("one room, plain, CPU relative to `ws` on Node", 0.7, _against("fanout", "Node ws")),
    ("one room, plain, CPU relative to picows", 1.05, _against("fanout", "picows")),
    ("one room, plain, CPU relative to the floor", 1.35, _against("fanout", "C, ready bytes (the floor)")),
    ("one room, with deflate, CPU relative to Starlette `send_text`", 0.25, _against("deflate", BASELINE.name)),
    ("bursts of 20, CPU relative to single messages", 0.35, _burst),
    ("echo, CPU relative to Starlette", 0.35, _against("echo", BASELINE.name)),
    ("echo, CPU relative to picows with a JSON handler", 0.7, _against("echo", "picows")),
    ("connect and close, CPU relative to Starlette", 0.6, _against("churn", BASELINE.name)),
    ("idle connection, plain, KiB", 15, _memory("idle")),
    ("idle connection, deflate negotiated, KiB", 18, _memory("idle_deflate")),
    ("p99 of delivery at half load, relative to the best peer", 1.0, _latency),
)


def outcomes(results: Results) -> list[Outcome]:
    """Every target, and what was measured."""
    return [Outcome(target, limit, measure(results)) for target, limit, measure in TARGETS]
