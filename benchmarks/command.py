"""What both measurements do as commands: choose by name, and say a figure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scenarios import Figures

__all__ = ["line", "selected"]


def selected(names: str | None, all_names: Sequence[str]) -> list[str]:
    """The names of an argument, parted by commas; all where it was not given."""
    if names is None:
        return list(all_names)
    chosen = names.split(",")
    if unknown := set(chosen) - set(all_names):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(all_names)}")
    return chosen


def line(figures: Figures) -> str:
    """One measurement, for the terminal."""
    values = ", ".join(f"{name} {value:.2f}" for name, value in figures.values.items())
    faults = f", {figures.faults} faults" if figures.faults else ""
    return f"{values}, load {figures.busy:.0%} busy{faults}"
