"""Bars as SVG, readable on a dark and on a light page. Knows numbers and names, and not what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

__all__ = ["Bar", "Panel", "draw"]

WIDTH = 760
LABEL = 210
VALUE = 90
CUT = 4
"""Bars of more than so many medians are cut, so that the others can be told apart."""
BAR, GAP = 16, 6
HEADING = 44
# Text takes the page's colour where the page can say it, and a middle grey, readable on both, where it is an image.
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; font-size: 14px }
.bar { fill: #8c959f }
.ours { fill: #1f883d }
.ours-label { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #b1bac4 } .bar { fill: #6e7681 } .ours { fill: #3fb950 } }
"""


@dataclass(frozen=True)
class Bar:
    """A name, a length, and whether it stands out."""

    name: str
    value: float
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars under one title; each panel has a scale of its own, from 0."""

    title: str
    unit: str
    bars: Sequence[Bar]


def draw(panels: Sequence[Panel]) -> str:
    """The picture: one panel under the other, the shortest bar first."""
    parts: list[str] = []
    y = 0
    for panel in panels:
        parts.append(f'<text class="title" x="0" y="{y + 22}">{escape(panel.title)}</text>')
        y += HEADING - GAP
        values = [bar.value for bar in panel.bars] or [1.0]
        longest = min(max(values), CUT * median(values)) or 1
        for bar in sorted(panel.bars, key=lambda bar: bar.value):
            length = max(1.0, min(bar.value / longest, 1) * (WIDTH - LABEL - VALUE))
            middle = y + BAR - 4
            value = f"{_number(bar.value)} {escape(panel.unit)}{', cut' if bar.value > longest else ''}"
            kind, label = ("bar ours", ' class="ours-label"') if bar.ours else ("bar", "")
            parts += [
                f'<text{label} x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>',
                f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
                f'<text{label} x="{LABEL + length + 6:.1f}" y="{middle}">{value}</text>',
            ]
            y += BAR + GAP
        y += GAP
    body = "\n".join(parts)
    title = escape("; ".join(panel.title for panel in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n{body}\n</svg>\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
