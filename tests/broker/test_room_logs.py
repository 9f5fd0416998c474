"""RoomLogs: which rooms have a history, as kinds change; and what other processes are told, there and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from velocity_ws.broker import room_logs
from velocity_ws.broker.room_logs import RoomLogs, describe, find_log, read_description, refuse_dedupe
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import HistoryError
from velocity_ws.history.items import Log
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import encode, encode_bytes, make_lossy
from velocity_ws.retention import History

TOPICS = Topics("v")
ROOMS = ["chat:7", "chat:x:y", "price:eur", "plain", "plain:7", "", "chat:"]


def kinds(**histories: History | None) -> Kinds:
    """Kinds of rooms: ``name:{x}`` for each name, with its history."""
    found = Kinds()
    for name, history in histories.items():
        found.register(f"{name}:{{x}}", history=history)
    return found


def of(found: Kinds) -> RoomLogs:
    return RoomLogs(found, TOPICS)


def test_a_room_has_the_log_of_the_first_kind_that_means_it() -> None:
    logs = of(kinds(chat=History(size=7, ttl="1s", max_bytes=99), price=History(mode="latest"), plain=None))
    assert logs("chat:7") == (Log(TOPICS.room("chat:7"), History(size=7, ttl="1s", max_bytes=99).limits), False)
    found = logs("price:eur")
    assert found is not None
    assert (found[0].limits.size, found[1]) == (1, True)
    assert [logs(room) for room in ("plain:7", "other", "")] == [None, None, None]


def test_kinds_that_are_added_count_for_rooms_that_were_asked_for_before() -> None:
    found = kinds(plain=None)
    logs = of(found)
    assert logs("chat:7") is None
    found.register("chat:{x}", history=History())
    assert logs("chat:7") is not None


def test_rooms_that_are_remembered_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_logs, "MAX_REMEMBERED", 3)
    logs = of(kinds(chat=History()))
    for number in range(10):
        assert logs(f"chat:{number}") is not None
    assert len(logs._found) == 3


HISTORIES = st.none() | st.builds(
    History,
    size=st.integers(1, 1_000_000),
    ttl=st.integers(1, 10**9).map(lambda ms: ms / 1000),
    max_bytes=st.integers(1, 2**40),
    mode=st.sampled_from(["all", "latest"]),
)


@hypothesis_settings(max_examples=30)
@given(st.lists(HISTORIES, max_size=4))
def test_what_others_are_told_means_the_same_to_them(histories: list[History | None]) -> None:
    here = kinds(**dict(zip(["chat", "price", "plain", "rest"], histories, strict=False)))
    there = read_description(describe(here))
    assert [of(there)(room) for room in ROOMS] == [of(here)(room) for room in ROOMS]
    assert describe(there) == describe(here)


def test_a_time_with_milliseconds_is_the_same_there() -> None:
    here = kinds(chat=History(ttl=16615.778))
    found = of(here)("chat:7")
    assert found is not None
    assert found[0].limits.ttl == 16_615_778
    assert of(read_description(describe(here)))("chat:7") == found


def test_a_first_kind_without_history_hides_a_later_one_there_too() -> None:
    here = Kinds()
    here.register("chat:7")
    here.register("chat:{x}", history=History())
    there = of(read_description(describe(here)))
    assert there("chat:7") is None
    assert there("chat:8") is not None


@hypothesis_settings(max_examples=50)
@given(st.binary(max_size=60))
def test_what_is_no_description_means_no_room(data: bytes) -> None:
    assert of(read_description(data))("chat:7") is None


@pytest.mark.parametrize("row", [
    ("chat:{x}", 0, 0, 0, False), ("chat:{x}", -1, 1, 1, False), ("{", 10, 1000, 1000, False),
    ("chat:{x}", 10, 10**18, 1000, False), ("chat:{x}", 10, 1000, 2**60, True),
])  # fmt: skip
def test_of_a_kind_that_cannot_be_read_no_room_has_a_history_and_others_have(row: tuple[object, ...]) -> None:
    good = ("price:{x}", 10, 1000, 1000, False)
    logs = of(read_description(msgspec.msgpack.encode([row, row, good])))
    assert logs("chat:7") is None
    assert logs("price:7") is not None


def test_what_goes_to_one_room_with_history_alone_goes_to_its_log() -> None:
    logs = of(kinds(chat=History(), price=History(mode="latest"), plain=None))
    message = encode("said", 1)
    found = find_log(logs, Address("rooms", ["chat:7"]), message)
    assert found is not None
    assert found.topic == TOPICS.room("chat:7")
    for names in (["plain:7"], ["plain:7", "other"], []):
        assert find_log(logs, Address("rooms", names), message) is None
    assert find_log(logs, Address("rooms", ["chat:7"]), encode_bytes(b"x")) is None
    with pytest.raises(HistoryError, match="each of the rooms by itself"):
        find_log(logs, Address("rooms", ["plain:7", "chat:7"]), message)


def test_what_may_be_left_out_or_replaced_is_in_no_log_but_the_newest_may_be_replaced() -> None:
    logs = of(kinds(chat=History(), price=History(mode="latest")))
    volatile, keyed = encode("said", 1), encode("said", 2)
    make_lossy(volatile, volatile=True, key=None)
    make_lossy(keyed, volatile=False, key="k")
    assert find_log(logs, Address("rooms", ["price:7"]), keyed) is not None
    for room, message in (("chat:7", volatile), ("chat:7", keyed), ("price:7", volatile)):
        with pytest.raises(HistoryError, match="without volatile and key"):
            find_log(logs, Address("rooms", [room]), message)


def test_an_idempotency_key_is_for_what_is_kept() -> None:
    refuse_dedupe(None)
    with pytest.raises(HistoryError, match="leave it out"):
        refuse_dedupe("")
