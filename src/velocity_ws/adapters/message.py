"""Message: the parts of one UI message under way, as the chunks that say them. Pure.

Source: ``UIMessageChunk`` of the AI SDK (``ai`` of npm, 5.0 to 7.0), in its ``ui-message-stream/ui-message-chunks.ts``.
What is in chunks here has been in all of these versions.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from velocity_ws.adapters.halves import Halves

__all__ = ["Chunk", "Kind", "Message"]

Chunk = dict[str, Any]
Kind = Literal["text", "reasoning"]


class Message:
    """The parts of one message. Each call gives the chunks that say what has come.

    A writer has one part open at a time: who says something else ends it. Several may write at once.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[Kind, str]] = {}
        self._parts = 0
        self._calls: dict[str, str] = {}
        self._is_in_step = False
        self._halves = Halves()

    def start_step(self) -> list[Chunk]:
        """A model is asked; what it was asked before is over."""
        return [*self.end_step(), self._step()]

    def _step(self) -> Chunk:
        self._is_in_step = True
        return {"type": "start-step"}

    def end_step(self) -> list[Chunk]:
        """What a model said is over, and so are the tools that it called."""
        if not self._is_in_step:
            return []
        self._is_in_step = False
        return [*self.close(), {"type": "finish-step"}]

    def say(self, writer: str, kind: Kind, delta: str) -> list[Chunk]:
        """More text of a writer."""
        delta = self._halves.join(f"{kind} {writer}", delta)
        if not delta:
            return []
        chunks: list[Chunk] = []
        if self._open.get(writer, ("",))[0] != kind:
            chunks += self.close(writer)
            self._parts += 1
            self._open[writer] = (kind, f"{kind}-{self._parts}")
            chunks.append({"type": f"{kind}-start", "id": self._open[writer][1]})
        return [*chunks, {"type": f"{kind}-delta", "id": self._open[writer][1], "delta": delta}]

    def close(self, writer: str | None = None) -> list[Chunk]:
        """End the part of a writer, or those of all."""
        writers = list(self._open) if writer is None else [writer]
        parts = [self._open.pop(each) for each in writers if each in self._open]
        return [{"type": f"{kind}-end", "id": id_} for kind, id_ in parts]

    def call(self, writer: str, id_: str, name: str, delta: str) -> list[Chunk]:
        """More of the input with which a tool is called, which is JSON in pieces."""
        chunks: list[Chunk] = []
        if id_ not in self._calls:
            self._calls[id_] = ""
            chunks = [*self.close(writer), {"type": "tool-input-start", "toolCallId": id_, "toolName": name}]
        delta = self._halves.join(f"call {id_}", delta)
        self._calls[id_] += delta
        return [*chunks, {"type": "tool-input-delta", "toolCallId": id_, "inputTextDelta": delta}] if delta else chunks

    def called(self, id_: str, name: str) -> list[Chunk]:
        """The input of a call is complete: all that `call` was given."""
        text = self._calls.get(id_, "")
        try:
            return self.tool(id_, name, json.loads(text or "{}"))
        except (ValueError, RecursionError):
            what = {"toolCallId": id_, "toolName": name, "input": text, "errorText": "The input is no JSON."}
            return [{"type": "tool-input-error", **what}]

    def tool(self, id_: str, name: str, given: Any) -> list[Chunk]:
        """The input of a tool, as a whole."""
        self._calls.setdefault(id_, "")
        return [{"type": "tool-input-available", "toolCallId": id_, "toolName": name, "input": given}]

    def knows(self, id_: str) -> bool:
        """Whether a call has been told of."""
        return id_ in self._calls

    def output(self, id_: str, output: Any) -> list[Chunk]:
        """What a tool has returned."""
        return [{"type": "tool-output-available", "toolCallId": id_, "output": output}]

    def failed(self, id_: str, text: str) -> list[Chunk]:
        """What is told of a tool that has failed."""
        return [{"type": "tool-output-error", "toolCallId": id_, "errorText": text}]

    def finish(self, reason: str | None = None) -> list[Chunk]:
        """All of the message is there, and why it has ended, where that is known."""
        return [*self.end_step(), *self.close(), {"type": "finish"} | ({"finishReason": reason} if reason else {})]
