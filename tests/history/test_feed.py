"""Feed: against an engine that loses, repeats, evicts, rewinds and begins anew, whatever is heard and read when."""

from __future__ import annotations

import random
from collections import deque

import pytest

from tests.support.feeds import LOG, Engine, Members, new_feed, settle
from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.envelopes import encode_entry, open_envelope
from velocity_ws.history.feed import Gap, Opened
from velocity_ws.history.items import Append, Appended, Query, Range
from velocity_ws.history.memory_log import MemoryLog
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import judge, view_of
from velocity_ws.messages.outbound import encode


def numbers(members: Members) -> list[int]:
    return [item for item in members.got if isinstance(item, int)]


@pytest.mark.parametrize("seed", range(200))
def test_members_get_each_message_once_and_in_order_or_are_told(seed: int) -> None:
    chance = random.Random(seed)
    engine, members = Engine(chance), Members()
    feed = new_feed(members, ring=chance.choice([0, 3000, 10**6]))
    settle(feed, engine)
    own: list[tuple[bytes, bytes]] = []
    for _ in range(80):
        match chance.choice(["other", "other", "own", "hear", "hear", "hear", "lose", "answer", "settle"]):
            case "other":
                engine.append()
            case "own":
                own.append(engine.append())
            case "hear" if engine.on_the_way:
                feed.heard(*engine.on_the_way.popleft(), frozenset())
            case "lose" if engine.on_the_way:
                engine.on_the_way.popleft()
            case "answer" if own:
                stamp, payload = own.pop(chance.randrange(len(own)))
                feed.heard(stamp, payload, frozenset(), is_own=True)
            case "settle":
                settle(feed, engine)
    while engine.on_the_way:
        feed.heard(*engine.on_the_way.popleft(), frozenset())
    feed.wants_top = True
    settle(feed, engine)
    expected = 1
    for item in members.got:
        if isinstance(item, int):
            assert item == expected
            expected += 1
        else:
            assert item.reason == "evicted"
            expected += item.missed
    assert expected == engine.said + 1


@pytest.mark.parametrize("seed", range(100))
def test_what_the_ring_says_of_a_position_is_what_the_engine_says(seed: int) -> None:
    chance = random.Random(seed)
    engine, members = Engine(chance), Members()
    feed = new_feed(members, ring=chance.choice([3000, 10**6]))
    settle(feed, engine)
    positions = [engine.log.top(engine.now).position]
    for _ in range(chance.randrange(30)):
        stamp, payload = engine.append()
        positions.append(Position.unpack(stamp))
        feed.heard(stamp, payload, frozenset())
        if not chance.randrange(5):
            feed.wants_range = True
            settle(feed, engine)
    feed.wants_top = True
    settle(feed, engine)
    for position in positions:
        view = feed.view(position)
        found = engine.log.read(Query(LOG, position.offset, 1000, 10**6), engine.now)
        said = judge(position, found.top, view_of(position, *found), removed=0, limit=1000)
        if view is not None:
            assert judge(position, feed.top, view, removed=0, limit=1000) == said
            if said is None:
                after = [frame.stamp for frame in feed.ring.after(position.offset)]
                assert after == [entry.stamp.pack() for entry in found.entries]


def test_a_log_that_began_anew_is_told_once_and_all_that_is_in_it_comes() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    for _ in range(3):
        feed.heard(*engine.append(), frozenset())
    engine.log = MemoryLog(LOG.limits, engine.now)
    for _ in range(2):
        feed.heard(*engine.append(), frozenset())
    settle(feed, engine)
    first, second, third, gap, *rest = members.got
    assert [first, second, third, *rest] == [1, 2, 3, 4, 5]
    assert (gap.missed, gap.reason) == (None, "epoch")


@pytest.mark.parametrize("is_new", [False, True])
def test_what_is_heard_of_another_life_before_the_answer_of_an_earlier_one_is_asked_for(*, is_new: bool) -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    if not is_new:
        settle(feed, engine)
        engine.log = MemoryLog(LOG.limits, engine.now)
        feed.wants_range = True
    top, asked = engine.log.top(engine.now), feed.asked()  # on its way, while the engine loses that too
    engine.log = MemoryLog(LOG.limits, engine.now)
    feed.heard(*engine.append(), frozenset())
    if is_new:
        feed.learned_top(top, asked)
    else:
        feed.learned_range(Range(top, []), Query(LOG, 0, 8, 100_000, newest=True), asked)
    assert not feed.is_settled
    settle(feed, engine)
    assert [gap.reason for gap in members.got[:-1]] == ["epoch"] * (2 - is_new)
    assert members.got[-1] == 1
    assert not feed.waits


def test_a_log_that_went_back_tells_a_gap_and_what_is_new() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    for _ in range(3):
        feed.heard(*engine.append(), frozenset())
    before = engine.log.read(Query(LOG, 0, 10), engine.now).entries
    engine.log._entries = deque([before[0].pack()])  # as an engine that has lost what it had not saved
    engine.log._offset, engine.log._mark = 1, before[0].stamp.position.mark
    feed.heard(*engine.append(), frozenset())
    settle(feed, engine)
    assert numbers(members) == [1, 2, 3, 4]
    assert [item.reason for item in members.got if isinstance(item, Gap)] == ["epoch"]
    assert members.back == [(feed.epoch, [2, 3])]
    assert feed.position == engine.log.top(engine.now).position


@pytest.mark.parametrize("count", [1, 3, 5])
def test_what_is_new_in_a_log_that_went_back_is_seen_where_it_is_not_known_what_was_there(count: int) -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    for _ in range(5):
        feed.heard(*engine.append(), frozenset())
    mark = engine.log._mark
    saved = engine.log._offset, engine.log._revision
    engine.log.clear()
    feed.noticed(engine.log.notice(engine.now).pack(), cleared=True)  # so that the node keeps none of them
    engine.log._offset, engine.log._revision = saved[0] - 3, saved[1] + 1
    engine.log._mark = bytes(reversed(mark))  # that of an entry which nobody knows any more
    for _ in range(count):
        feed.heard(*engine.append(), frozenset())
        settle(feed, engine)
    assert numbers(members) == [*range(1, 6), *range(6, 6 + count)]
    assert [item.reason for item in members.got if isinstance(item, Gap)] == ["epoch"]


def test_a_log_that_went_back_to_where_its_members_came_gives_them_what_is_new() -> None:
    engine, members = Engine(random.Random(1)), Members()
    engine.append()
    feed = new_feed(members)
    settle(feed, engine)  # it has not the entry that is there, and only knows what the next one came after
    for _ in range(2):
        feed.heard(*engine.append(), frozenset())
    before = engine.log.read(Query(LOG, 0, 10), engine.now).entries
    engine.log._entries = deque([before[0].pack()])
    engine.log._offset, engine.log._mark = 1, before[0].stamp.position.mark
    feed.heard(*engine.append(), frozenset())
    settle(feed, engine)
    assert numbers(members) == [2, 3, 4]
    assert [item.reason for item in members.got if isinstance(item, Gap)] == ["epoch"]


def test_the_last_message_that_was_lost_shows_when_the_end_is_asked_for() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    engine.append()
    feed.learned_top(engine.log.top(engine.now), feed.asked())
    settle(feed, engine)
    assert members.got == [1]


def test_an_answer_older_than_what_is_known_changes_nothing() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    asked, top = feed.asked(), engine.log.top(engine.now)
    feed.heard(*engine.append(), frozenset())
    feed.learned_top(top, asked)
    assert feed.is_settled
    assert members.got == [1]


def test_a_position_of_before_a_removal_is_known_by_its_revision() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    feed.heard(*engine.append(), frozenset())
    position = feed.position
    engine.log.remove("uann")
    feed.noticed(engine.log.notice(engine.now).pack(), cleared=False)
    assert feed.position.revision == position.revision + 1
    assert not feed.is_repeat(Stamp(feed.position._replace(revision=9), feed.position.mark, 1).pack())


def test_what_was_cleared_is_not_in_the_ring_any_more() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    position = feed.position
    feed.heard(*engine.append(), frozenset())
    engine.log.clear()
    feed.noticed(engine.log.notice(engine.now).pack(), cleared=True)
    view = feed.view(position)
    assert view is not None
    assert judge(position, feed.top, view, removed=0, limit=9) == "evicted"


def test_an_entry_of_a_version_to_come_is_a_gap_of_one() -> None:
    engine, members = Engine(random.Random(1)), Members()
    feed = new_feed(members)
    settle(feed, engine)
    assert isinstance(engine.log.append(Append(LOG, b"of another version"), engine.now), Appended)
    feed.wants_top = True
    settle(feed, engine)
    engine.append()
    feed.wants_top = True
    settle(feed, engine)
    gap, said = members.got
    assert (gap.missed, said) == (1, 1)


def test_entries_are_read_back_as_they_were_said() -> None:
    payload = encode("said", {"n": 1}).payload
    entry = Entry(
        Stamp(Position(b"e" * 6, 1, 0, b"m" * 8), b"p" * 8, 1), encode_entry("a" * 11, "x", payload, frozenset())
    )
    assert open_envelope(entry.envelope) == Opened(payload, frozenset(), "")
    assert open_envelope(b"nothing of ours") is None
