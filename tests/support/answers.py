"""Answers whose text is a function of their id, so that a reader knows whether it is what was said. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["parts", "raises", "text"]

_WORDS = (
    "a",
    "word ",
    "1/0 = ∞, ",
    "é",
    "𝄞𝄞 ",
    "\u2028",
    "\r\n",
    "</script>",
    '"\\"',
    "\x00",
    "日本語 ",
    "0123456789 ",
)
FEWEST, MOST = 30, 60
"""Parts of an answer."""


@lru_cache(maxsize=4096)
def _parts(id_: str) -> tuple[str, ...]:
    chance = random.Random(id_)
    return tuple("".join(chance.choices(_WORDS, k=chance.randint(1, 8))) for _ in range(chance.randint(FEWEST, MOST)))


def parts(id_: str) -> Sequence[str | bytes]:
    """What its writer says, part by part; every third writer says bytes, which are cut anywhere."""
    if random.Random(f"bytes {id_}").random() > 1 / 3:
        return _parts(id_)
    data = text(id_).encode()
    count = len(_parts(id_))
    return [data[len(data) * part // count : len(data) * (part + 1) // count] for part in range(count)]


@lru_cache(maxsize=4096)
def text(id_: str) -> str:
    """All of it."""
    return "".join(_parts(id_))


def raises(id_: str) -> int | None:
    """After how many parts its writer fails; ``None`` for most, who do not."""
    chance = random.Random(f"fails {id_}")
    return chance.randrange(FEWEST) if chance.random() < 0.05 else None
