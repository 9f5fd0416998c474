"""UI events: reads chunks of UI messages, be they objects or the server-sent events in which they are carried.

Knows no stream. Source: the HTML standard, 9.2.6 (server-sent events), and `JsonToSseTransformStream` of the AI SDK.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

from velocity_ws.adapters.message import Chunk
from velocity_ws.errors import UpstreamError

__all__ = ["DONE", "events_of"]

DONE: Final = "[DONE]"
LINE: Final = re.compile(r"(?:\r\n|\n|\r(?!\Z))")
"""The end of a line; one carriage return at the end of what there is may be the first half of one."""


async def events_of(said: AsyncIterator[Chunk | str | bytes]) -> AsyncGenerator[Chunk, None]:
    """The chunks in what a backend says.

    Raises:
        UpstreamError: it has ended without `DONE`, or an event is no JSON object.
        TypeError: it says something else.
    """
    lines = _Lines()
    is_carried = False
    async for each in said:
        if isinstance(each, dict):
            yield each
            continue
        if not isinstance(each, str | bytes):
            raise TypeError(f"chunks of a UI message are dicts, or the text that carries them, and not {each!r:.80}")
        is_carried = True
        for data in lines.take(each):
            if data == DONE:
                return
            yield _chunk(data)
    if is_carried:
        raise UpstreamError(f"the backend's response has ended without {DONE}: ask again")


def _chunk(data: str) -> Chunk:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        raise UpstreamError(f"the backend says what is no chunk of a UI message: {data!r:.80}")
    return chunk


class _Lines:
    """Puts events together, whose text may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._is_first = True
        self._data: list[str] = []

    def take(self, said: str | bytes) -> Iterator[str]:
        """The data of the events that are complete with it."""
        text = said if isinstance(said, str) else self._decoder.decode(said)
        if self._is_first and text:
            self._is_first, text = False, text.removeprefix("\ufeff")
        *lines, self._rest = LINE.split(self._rest + text)
        for line in lines:
            if not line and self._data:
                yield "\n".join(self._data)
                self._data = []
            elif line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
