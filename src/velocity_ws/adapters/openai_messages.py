"""OpenAI messages: makes chunks of a UI message of what OpenAI's SDK streams, event by event. Pure.

Source: ``ChatCompletionChunk`` and ``ResponseStreamEvent`` of openai 3.57. ``reasoning_content`` is what DeepSeek, vLLM
and others send beside them.
"""

from __future__ import annotations

from typing import Any, Final

from velocity_ws.adapters.message import Chunk, Message

__all__ = ["SAID", "ChatReader", "ResponseReader", "first_choice", "text_of"]

REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}
STOPPED: Final = {"max_output_tokens": "length", "content_filter": "content-filter"}
THOUGHT: Final = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
CALLED: Final = ("response.function_call_arguments.delta", "response.function_call_arguments.done")
SAID: Final = ("response.output_text.delta", "response.refusal.delta")


def first_choice(event: Any) -> list[Any]:
    """The first choice in a chunk, where there is one, and it says something.

    Azure sends choices without a ``delta``, with what its filters have found; the SDK leaves out what is not sent.
    """
    return [
        choice for choice in event.choices or () if choice.index == 0 and getattr(choice, "delta", None) is not None
    ]


def text_of(delta: Any) -> str:
    """The text in a piece of a choice, be it a refusal."""
    return (delta.content or "") + (getattr(delta, "refusal", None) or "")


class ChatReader:
    """Reads the chunks of a chat completion, of the first choice.

    Attributes:
        reason: why the model has stopped; ``None`` where that is not known.
    """

    def __init__(self, message: Message) -> None:
        self.reason: str | None = None
        self._message = message
        self._calls: dict[int, tuple[str, str]] = {}

    def take(self, event: Any) -> list[Chunk]:
        """What a chunk says."""
        return [chunk for choice in first_choice(event) for chunk in self._choice(choice)]

    def _choice(self, choice: Any) -> list[Chunk]:
        delta, message = choice.delta, self._message
        chunks = message.say("model", "reasoning", getattr(delta, "reasoning_content", None) or "")
        chunks += message.say("model", "text", text_of(delta))
        for call in delta.tool_calls or ():
            chunks += self._call(call)
        if choice.finish_reason:
            self.reason = REASONS.get(choice.finish_reason, "other")
            chunks += message.close("model")
            for id_, name in self._calls.values():
                chunks += message.called(id_, name)
        return chunks

    def _call(self, call: Any) -> list[Chunk]:
        """A piece of a call: the first has its id and the tool's name."""
        if call.index not in self._calls:
            name = call.function.name if call.function is not None else None
            self._calls[call.index] = (call.id or f"call-{call.index}", name or "tool")
        id_, name = self._calls[call.index]
        return self._message.call("model", id_, name, (call.function.arguments if call.function else None) or "")


class ResponseReader:
    """Reads the events of a response.

    Attributes:
        reason: why the model has stopped; ``None`` where that is not known.
    """

    def __init__(self, message: Message) -> None:
        self.reason: str | None = None
        self._message = message
        self._calls: dict[str, tuple[str, str]] = {}

    def take(self, event: Any) -> list[Chunk]:
        """What an event says."""
        kind, message = event.type, self._message
        if kind in SAID:
            return message.say(event.item_id, "text", event.delta)
        if kind in THOUGHT:
            return message.say(event.item_id, "reasoning", event.delta)
        if kind == "response.output_item.added" and event.item.type == "function_call":
            self._calls[event.item.id] = event.item.call_id, event.item.name
            return message.call(event.item.id, event.item.call_id, event.item.name, event.item.arguments)
        if kind in CALLED:
            id_, name = self._calls.get(event.item_id, ("", ""))
            return self._arguments(event, id_, name) if id_ else []
        if kind == "response.output_text.annotation.added":
            return _source(event.annotation)
        if kind in ("response.output_item.done", "response.content_part.done"):
            return message.close(event.item.id if kind == "response.output_item.done" else event.item_id)
        if kind == "response.completed":
            self.reason = "tool-calls" if self._calls else "stop"
        elif kind == "response.incomplete":
            details = event.response.incomplete_details
            self.reason = STOPPED.get(details.reason if details is not None else "", "other")
        return []

    def _arguments(self, event: Any, id_: str, name: str) -> list[Chunk]:
        """More of the input of a call, or its end."""
        if event.type == CALLED[0]:
            return self._message.call(event.item_id, id_, name, event.delta)
        return self._message.called(id_, name)


def _source(annotation: Any) -> list[Chunk]:
    """The source that a text names; nothing where it is no page. Annotations are not typed (openai 3.57)."""
    found = annotation if isinstance(annotation, dict) else annotation.to_dict()
    if found.get("type") != "url_citation":
        return []
    return [{"type": "source-url", "sourceId": found["url"], "url": found["url"], "title": found.get("title") or ""}]
