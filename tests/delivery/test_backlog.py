"""Backlog: what has a key replaces what waits, keeps its place where that changes no order, and takes little room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.delivery.backlog import Backlog
from velocity_ws.messages.outbound import PreparedMessage, encode


def message(key: str | None = None, event: str = "e", data: object = None) -> PreparedMessage:
    made = encode(event, data)
    made.set_lossy(volatile=False, key=key)
    return made


def filled(*messages: PreparedMessage) -> Backlog:
    backlog = Backlog()
    for one in messages:
        backlog.add(one)
    return backlog


def drained(backlog: Backlog) -> list[PreparedMessage]:
    return [backlog.pop() for _ in range(len(backlog))]


def test_a_replacement_keeps_the_place_among_messages_with_keys() -> None:
    a, b, newer = message("a"), message("b"), message("a")
    assert drained(filled(a, b, newer)) == [newer, b]


def test_a_replacement_never_overtakes_a_message_without_a_key() -> None:
    old, snapshot, newer, newest = message("a"), message(), message("a"), message("a")
    backlog = filled(old, snapshot, newer)
    assert len(backlog) == 2
    backlog.add(newest)
    assert drained(backlog) == [snapshot, newest]


def test_only_the_same_event_and_key_are_replaced() -> None:
    all_kept = [message("a"), message("b"), message("a", event="other"), message(), message()]
    assert drained(filled(*all_kept)) == all_kept


def test_a_binary_message_replaces_a_binary_one() -> None:
    old, newer, text = (
        PreparedMessage(b"1", is_text=False),
        PreparedMessage(b"2", is_text=False),
        message("a", "binary"),
    )
    for each in (old, newer):
        each.set_lossy(volatile=False, key="a")
    assert drained(filled(old, text, newer)) == [newer, text]


def test_what_has_left_is_replaced_by_nothing() -> None:
    first, second = message("a"), message("a")
    backlog = filled(first)
    assert backlog.waiting(("e", "a", None)) is first
    assert backlog.pop() is first
    assert backlog.waiting(("e", "a", None)) is None
    backlog.add(second)
    assert drained(backlog) == [second]
    with pytest.raises(IndexError):
        backlog.pop()


def test_what_moves_to_the_end_again_and_again_leaves_nothing_behind() -> None:
    backlog = filled(message(), *[message(str(number)) for number in range(100)])
    for _ in range(100):
        backlog.add(message())
        for number in range(100):
            backlog.add(message(str(number)))
            assert len(backlog._line) <= 2 * len(backlog) + 1
    assert len(backlog) == 201
    assert len(backlog._places) == 100


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcdef"), st.just("pop")), max_size=80))
def test_it_does_what_a_plain_list_would_do(script: list[str | None]) -> None:
    backlog = Backlog()
    model: list[PreparedMessage] = []
    for key in script:
        if key == "pop":
            if model:
                assert backlog.pop() is model.pop(0)
            continue
        new = message(key)
        old = [index for index, one in enumerate(model) if key is not None and one.key == key]
        assert backlog.waiting(("e", key or "", None)) is (model[old[0]] if old else None)
        if old and all(one.key is not None for one in model[old[0] :]):
            model[old[0]] = new
        else:
            model[:] = [one for index, one in enumerate(model) if index not in old] + [new]
        backlog.add(new)
        assert len(backlog) == len(model)
        assert bool(backlog) == bool(model)
    assert drained(backlog) == model
