"""UI telling: what a reader is told of a stream is one message, and how it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from velocity_ws.adapters.ui_telling import Telling

TEXTS = {"error": "It has failed.", "lost": "It is lost."}


def told(end: str, *said: Any) -> list[Any]:
    """What is told of a stream, without its start."""
    telling = Telling("m", TEXTS)
    assert telling.start() == {"type": "start", "messageId": "m"}
    return [*[chunk for each in said for chunk in telling.take(each)], *telling.end(end)]


ABORT = {"type": "abort", "reason": "cancelled"}
LOST = [{"type": "abort", "reason": "lost"}, {"type": "error", "errorText": "It is lost."}]
ERROR = {"type": "error", "errorText": "It has failed."}
BEGUN = [{"type": "text-start", "id": "1"}, {"type": "text-delta", "id": "1", "delta": "It "}]
ENDED = {"type": "text-end", "id": "1"}


@pytest.mark.parametrize(
    ("end", "last"), [("done", [{"type": "finish"}]), ("cancelled", [ABORT]), ("error", [ERROR]), ("lost", LOST)]
)
def test_each_end_is_told_behind_parts_that_were_cut_off(end: str, last: list[Any]) -> None:
    assert told(end) == last
    assert told(end, *BEGUN) == [*BEGUN, ENDED, *last]
    assert told(end, *BEGUN, ENDED) == [*BEGUN, ENDED, *last]


@pytest.mark.parametrize(("end", "last"), [("cancelled", [ABORT]), ("error", [ERROR]), ("lost", LOST)])
def test_a_text_is_ended_however_it_ends(end: str, last: list[Any]) -> None:
    assert told(end, "It ")[-1 - len(last) :] == [{"type": "text-end", "id": "text-1"}, *last]


@pytest.mark.parametrize(
    ("end", "last"),
    [("done", {"type": "finish"}), ("cancelled", {"type": "abort"}), ("error", {"type": "error", "errorText": "x"})],
)
def test_an_end_that_was_said_is_not_told_twice(end: str, last: Any) -> None:
    assert told(end, last) == [last]


def test_the_message_has_one_start_and_one_id() -> None:
    start = {"type": "start", "messageId": "of-the-backend", "messageMetadata": {"model": "ours"}}
    metadata = {"type": "message-metadata", "messageMetadata": {"model": "ours"}}
    assert told("done", start, {"type": "start"}) == [metadata, {"type": "finish"}]


@pytest.mark.parametrize("item", [{"exporting": "orders"}, {"type": 7}, 7, None, ["a"]])
def test_an_item_that_is_no_chunk_is_data(item: Any) -> None:
    assert told("done", item, "text") == [
        {"type": "data-item", "data": item}, {"type": "data-item", "data": "text"}, {"type": "finish"},
    ]  # fmt: skip
