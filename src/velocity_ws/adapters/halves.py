"""Halves: puts characters together that a model's server has cut into two, as UTF-16 has them. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Halves"]

_HALF: Final = re.compile("[\ud800-\udfff]")


class Halves:
    """The halves of characters that came at the end of a text, of which more is to come, by a name for each text."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}

    def join(self, name: str, text: str) -> str:
        """Text that is valid Unicode, with what had to wait for it; half a character at its end waits for the rest.

        A half that the other one does not follow is U+FFFD.
        """
        if name not in self._waiting and not _HALF.search(text):
            return text
        text = self._waiting.pop(name, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._waiting[name], text = text[-1], text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
