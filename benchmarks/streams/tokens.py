"""What models are made to say, token by token; the same on both sides, so that every text can be checked. Pure."""

from __future__ import annotations

from benchmarks.scenarios import WORDS

__all__ = ["tokens_of"]

SPOKEN = (*WORDS, "Zürich", "東京", "🚂")
"""Some are more than a byte in UTF-8, and more than a code unit in UTF-16."""
LINE = f"{' '.join(WORDS)} "


def tokens_of(stream: int, count: int, size: int = 0) -> list[str]:
    """The tokens of a stream, by its number: words, or lines of a log with so many characters, all of them ASCII."""
    if not size:
        return [f" {SPOKEN[(stream + number) % len(SPOKEN)]}" for number in range(count)]
    filler = (LINE * (size // len(LINE) + 1))[:size]
    return [f"{stream:04} {number:08} {filler}"[: size - 1] + "\n" for number in range(count)]
