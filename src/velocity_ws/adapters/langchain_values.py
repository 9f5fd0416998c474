"""LangChain values: what is in its events, as JSON that a page can use. Pure.

Source: the messages of langchain-core 1.8, which are pydantic models whose content is text or a list of blocks.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["plain", "said_by", "thought_by"]

KEPT: Final = ("id", "name", "status", "tool_calls", "tool_call_chunks", "tool_call_id", "usage_metadata")
"""What is kept of a message, where it has it, beside its type and its text."""


def plain(value: Any) -> Any:
    """A value as JSON has it: messages are reduced, and what has no JSON form is ``None``."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_hook)


def _hook(value: Any) -> Any:
    if _is_message(value):
        return _message(value)
    if hasattr(value, "model_dump"):  # any other model of pydantic, as a tool may return
        return value.model_dump()
    if isinstance(value, str):
        return "".join(value)  # a class of its own, as `TextAccessor`
    return None


def _is_message(value: Any) -> bool:
    return hasattr(value, "content") and hasattr(value, "additional_kwargs")


def _message(message: Any) -> dict[str, Any]:
    kept = {name: plain(found) for name in KEPT if (found := getattr(message, name, None))}
    thought = thought_by(message)
    return {"type": message.type, "text": said_by(message), **kept} | ({"reasoning": thought} if thought else {})


def said_by(message: Any) -> str:
    """The text of a message, or of a chunk of one; empty where it has none, or there is no message."""
    content = getattr(message, "content", None)
    if content is None:
        return _plain_text_of(message)
    if isinstance(content, str):
        return content
    return "".join([block if isinstance(block, str) else _text_of(block) for block in content])


def _plain_text_of(said: Any) -> str:
    """The text of a chunk, or of the result, of a model that is no chat model."""
    if isinstance(said, str):  # where the model is called by nothing else (langchain-core 1.8)
        return said
    if isinstance(said, dict):
        return "".join([each["text"] for generations in said.get("generations") or () for each in generations[:1]])
    return getattr(said, "text", None) or ""


def _text_of(block: Any) -> str:
    return block.get("text") or "" if block.get("type") == "text" else ""


def thought_by(message: Any) -> str:
    """What a model has thought, where a message has it in the form that langchain-core gives it, or DeepSeek's."""
    content = getattr(message, "content", None)
    if content is None:
        return ""
    if isinstance(content, str):
        return message.additional_kwargs.get("reasoning_content") or ""
    blocks = getattr(message, "content_blocks", ())
    return "".join([block.get("reasoning") or "" for block in blocks if block.get("type") == "reasoning"])
