"""LangChain: the events of a chain or a graph, as text, items, or chunks of UI messages. Knows them by their keys.

They are what ``astream_events(…, version="v2")`` gives, of any Runnable of LangChain and any graph of LangGraph. Tested
with langchain-core 1.8 and langgraph 1.2. Which models and tools are told of is said there: ``include_names``,
``exclude_tags``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from velocity_ws.adapters.langchain_values import plain, said_by, thought_by
from velocity_ws.adapters.message import Chunk, Message
from velocity_ws.adapters.upstream import Upstream, opened

__all__ = ["items", "text", "ui_message_chunks"]

BEGINS: Final = ("on_chat_model_start", "on_llm_start")
STREAMED: Final = ("on_chat_model_stream", "on_llm_stream")
ENDS: Final = ("on_chat_model_end", "on_llm_end")
TOLD: Final = {
    # The events of `items`, and what is kept of the data of each: the rest repeats prompts, or what was told before.
    "on_chat_model_start": (),
    "on_chat_model_stream": ("chunk",),
    "on_chat_model_end": ("output",),
    "on_llm_start": (),
    "on_llm_stream": ("chunk",),
    "on_llm_end": ("output",),
    "on_tool_start": ("input",),
    "on_tool_end": ("output",),
    "on_tool_error": ("tool_call_id",),
}
FAILED: Final = "The tool has failed."


async def text(events: Upstream) -> AsyncGenerator[str, None]:
    """The text that models say: ``source=lambda: langchain.text(graph.astream_events(…, version="v2"))``.

    What they think, and tools, are left out; what a model says that does not stream comes as a whole. From any loop,
    in a coroutine.

    Args:
        events: what ``astream_events`` gives. It is closed when the text has ended, failed, or was cancelled.

    Raises:
        Exception: what the chain, or the graph, raises.
    """
    streaming: set[str] = set()
    async with opened(events) as upstream:
        async for event in upstream:
            said = said_by(_new(event, streaming))
            if said:
                yield said


async def items(events: Upstream) -> AsyncGenerator[Any, None]:
    """What a page needs of the events, as JSON: ``event``, ``name``, ``run_id``, ``data``, and ``node`` in a graph.

    They are those of models and tools, custom ones (``adispatch_custom_event``), and the begin and the end of each node
    of a graph. A message in them has its ``type``, ``id``, ``text``, and what else it has of ``tool_calls``,
    ``tool_call_chunks``, ``tool_call_id``, ``name``, ``status``, ``usage_metadata`` and ``reasoning``. Prompts are left
    out, and what an exception says; what has no JSON form is null. From any loop, in a coroutine.

    Args:
        events: as for `text`.

    Raises:
        Exception: what the chain, or the graph, raises.
    """
    async with opened(events) as upstream:
        async for event in upstream:
            data = _data(event)
            if data is not None:
                yield _item(event, data)


async def ui_message_chunks(events: Upstream) -> AsyncGenerator[Chunk, None]:
    """What is said as chunks of a UI message of the AI SDK: text, what was thought, tools and what they return.

    Each answer of a model is a step. A custom event is a part of its own, ``data-`` and its name. From any loop, in a
    coroutine.

    Args:
        events: as for `text`.

    Raises:
        Exception: what the chain, or the graph, raises.
    """
    reader = _Reader()
    yield {"type": "start"}
    async with opened(events) as upstream:
        async for event in upstream:
            for chunk in reader.take(event):
                yield chunk
    for chunk in reader.message.finish():
        yield chunk


def _new(event: Any, streaming: set[str]) -> Any:
    """The message, or the chunk of one, in an event; ``None`` where there is none, or it was streamed before.

    Args:
        event: the event.
        streaming: the runs that stream.
    """
    kind = event["event"]
    if kind in STREAMED:
        streaming.add(event["run_id"])
        return event["data"].get("chunk")
    if kind in ENDS and event["run_id"] not in streaming:
        return event["data"].get("output")
    return None


def _data(event: Any) -> Any:
    """What is kept of the data of an event; ``None`` where the event is of no use to a page."""
    kind, data = event["event"], event["data"]
    if kind == "on_custom_event":
        return plain(data)
    if kind in TOLD:
        return {key: plain(data[key]) for key in TOLD[kind] if data.get(key) is not None}
    is_node = event["name"] == event.get("metadata", {}).get("langgraph_node")
    return {} if is_node and kind in ("on_chain_start", "on_chain_end") else None


def _item(event: Any, data: Any) -> dict[str, Any]:
    node = event.get("metadata", {}).get("langgraph_node")
    item = {"event": event["event"], "name": event["name"], "run_id": event["run_id"], "data": data}
    return item | ({"node": node} if node is not None else {})


class _Reader:
    """Makes chunks of events. Runs may be under way at the same time; each writes parts of its own."""

    def __init__(self) -> None:
        self.message = Message()
        self._streaming: set[str] = set()
        self._models: set[str] = set()
        self._calls: dict[tuple[str, Any], tuple[str, str]] = {}
        self._inputs: dict[str, Any] = {}

    def take(self, event: Any) -> list[Chunk]:
        """What an event says."""
        kind, run, data, message = event["event"], event["run_id"], event["data"], self.message
        chunks: list[Chunk] = []
        if kind in BEGINS:
            chunks += [] if self._models else message.start_step()
            self._models.add(run)
        said = _new(event, self._streaming)
        chunks += message.say(run, "reasoning", thought_by(said)) + message.say(run, "text", said_by(said))
        for piece in getattr(said, "tool_call_chunks", None) or ():
            chunks += self._piece(run, piece)
        if kind in ENDS:
            self._models.discard(run)
            chunks += message.close(run)
            for call in getattr(data.get("output"), "tool_calls", None) or ():
                chunks += message.tool(call["id"], call["name"], plain(call["args"]))
        elif kind == "on_tool_start":
            self._inputs[run] = plain(data.get("input"))
        elif kind in ("on_tool_end", "on_tool_error"):
            chunks += self._returned(event)
        elif kind == "on_custom_event":
            chunks.append({"type": f"data-{event['name']}", "data": plain(data)})
        return chunks

    def _piece(self, run: str, piece: Any) -> list[Chunk]:
        """A piece of a call: the first has its id and the tool's name."""
        key = run, piece.get("index")
        if piece.get("id") and piece.get("name"):
            self._calls[key] = piece["id"], piece["name"]
        if key not in self._calls:
            return []  # its input is told of as a whole, when the model has ended
        return self.message.call(run, *self._calls[key], piece.get("args") or "")

    def _returned(self, event: Any) -> list[Chunk]:
        """What a tool has returned, or that it has failed. One that no model has called stands under its run."""
        data, run, message = event["data"], event["run_id"], self.message
        output = data.get("output")
        id_ = getattr(output, "tool_call_id", None) or data.get("tool_call_id") or run
        given = self._inputs.pop(run, None)
        chunks = [] if message.knows(id_) else message.tool(id_, event["name"], given)
        if event["event"] == "on_tool_error":
            return chunks + message.failed(id_, FAILED)
        if getattr(output, "status", None) == "error":
            return chunks + message.failed(id_, said_by(output))
        return chunks + message.output(id_, said_by(output) if hasattr(output, "tool_call_id") else plain(output))
