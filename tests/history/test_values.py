"""What an application gets back: a number that knows more, and tuples that are what clients are told."""

from __future__ import annotations

import copy
import pickle

import pytest

from tests.support.json_values import read
from velocity_ws.history.entries import Stamp
from velocity_ws.history.positions import Position
from velocity_ws.history.values import Entry, Joined, Sent
from velocity_ws.messages.events import joined_data
from velocity_ws.messages.outbound import encode

PLACE = Position(b"epoch.", 7, 1, b"the mark")
STAMP = Stamp(PLACE, b"previous", 1_800_000_000_000).pack()


def test_what_was_sent_is_a_number() -> None:
    sent = Sent(3)
    assert (sent, sent + 1, f"{sent}", sent.at, sent.duplicate) == (3, 4, "3", None, False)
    assert not Sent(0)


def test_what_was_sent_to_a_room_with_history_has_a_position() -> None:
    sent = Sent.of(3, STAMP, duplicate=True)
    assert (sent, sent.at, sent.duplicate) == (3, PLACE.at, True)
    assert (Sent(3).at, Sent.of(3, STAMP).duplicate) == (None, False)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda sent: pickle.loads(pickle.dumps(sent))])
def test_a_copy_knows_the_same(again: object) -> None:
    sent = again(Sent.of(3, STAMP, duplicate=True))  # type: ignore[operator]
    assert (sent, sent.at, sent.duplicate) == (3, PLACE.at, True)


def test_a_handler_can_answer_with_any_of_them() -> None:
    assert read(encode("reply", Sent.of(3, STAMP)))["data"] == 3
    assert read(encode("reply", [Entry("said", {"a": 1}, "at", 1.5)]))["data"] == [["said", {"a": 1}, "at", 1.5]]


def test_what_came_of_a_join_is_what_the_client_is_told() -> None:
    assert joined_data(*Joined("chat")) == {"room": "chat"}
    assert joined_data(*Joined("chat", "at", True, missed=0)) == {
        "room": "chat",
        "at": "at",
        "recovered": True,
        "missed": 0,
    }
    refused = Joined("chat", "at", False, "too_many")
    assert joined_data(*refused) == {"room": "chat", "at": "at", "recovered": False, "reason": "too_many"}
