"""UI telling: what is told of one stream as chunks of a UI message, from its start to its end. Pure.

Source: ``processUIMessageStream`` of ``ai`` 5.0 to 7.0: it passes over ``abort``, and throws at ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from velocity_ws.adapters.message import Chunk, Message

__all__ = ["Telling"]

OPENS = {"text-start": "text-end", "reasoning-start": "reasoning-end"}
CLOSES = ("text-end", "reasoning-end")


class Telling:
    """Tells one reader of a stream, in the order in which it is called."""

    def __init__(self, message_id: str, error_texts: Mapping[str, str]) -> None:
        self._id = message_id
        self._texts = error_texts
        self._message = Message()
        self._is_text: bool | None = None
        self._open: dict[str, str] = {}
        self._last = ""

    def start(self) -> Chunk:
        """What begins every message, by which the AI SDK knows that it is given from its beginning."""
        return {"type": "start", "messageId": self._id}

    def take(self, said: Any) -> list[Chunk]:
        """A part of a text, or an item. What is said first decides which of them."""
        if self._is_text is None:
            self._is_text = isinstance(said, str)
            if self._is_text:
                return [*self._message.start_step(), *self._message.say("", "text", said)]
        if self._is_text:
            return self._message.say("", "text", said)
        if not isinstance(said, dict) or not isinstance(said.get("type"), str):
            return [{"type": "data-item", "data": said}]
        return self._chunk(said)

    def _chunk(self, chunk: Chunk) -> list[Chunk]:
        kind = self._last = chunk["type"]
        if kind == "start":  # the message has an id, and has begun
            metadata = chunk.get("messageMetadata")
            return [] if metadata is None else [{"type": "message-metadata", "messageMetadata": metadata}]
        if kind in OPENS:
            self._open[chunk.get("id", "")] = OPENS[kind]
        elif kind in CLOSES:
            self._open.pop(chunk.get("id", ""), None)
        return [chunk]

    def end(self, end: str) -> list[Chunk]:
        """How the stream has ended. What was begun, and cut off, is ended before, so that nothing is taken to go on."""
        chunks: list[Chunk] = [{"type": kind, "id": id_} for id_, kind in self._open.items()]
        if end == "done":
            return chunks if self._last == "finish" else [*chunks, *self._message.finish()]
        chunks += self._message.close()
        if end in ("cancelled", "lost") and self._last != "abort":
            chunks.append({"type": "abort", "reason": end})
        if end in self._texts and self._last != "error":
            chunks.append({"type": "error", "errorText": self._texts[end]})
        return chunks
