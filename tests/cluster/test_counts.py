"""Counts: every loss between two messages that arrive shows, nothing counts twice, and what is kept is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.counts import TOO_LATE, ReceivedNumbers, SentNumbers

NODE = "elevenchars"


def settle(heard: ReceivedNumbers, count: int, origin: str = NODE) -> int | None:
    """Ask a sender, while it says nothing."""
    return heard.settle("t", origin, count, heard.last("t", origin))


@given(st.lists(st.booleans(), max_size=50), st.lists(st.booleans(), max_size=20))
def test_every_loss_between_two_that_arrive_shows(arrives: list[bool], after: list[bool]) -> None:
    sent, heard = SentNumbers(), ReceivedNumbers()
    missed = lost = 0
    is_known = False
    for comes in arrives:
        number = sent.next("t")
        if comes:
            shows = heard.received("t", NODE, number)
            lost_here, lost = lost, 0
            if not is_known:  # before the first there is nothing to compare with
                assert shows == (None if lost_here else 0)
                missed += lost_here
                is_known = True
            else:
                assert shows == lost_here
                missed += lost_here
        else:
            lost += 1
    settled = settle(heard, sent.count("t"))
    if is_known:
        assert settled == lost
        assert missed + lost == arrives.count(False)
        assert settle(heard, sent.count("t")) == 0
    else:
        assert settled == (None if arrives else 0)
    for _ in after:
        assert heard.received("t", NODE, sent.next("t")) in (0, lost)


def test_a_sender_that_has_forgotten_shows_no_loss() -> None:
    heard = ReceivedNumbers()
    assert [heard.received("t", NODE, number) for number in (5, 6, 1, 2, 4)] == [None, 0, 0, 0, 1]


def test_what_is_kept_is_bounded() -> None:
    heard, sent = ReceivedNumbers(), SentNumbers()
    for number in range(3000):
        heard.received("t", f"script {number}", 1)
    assert heard.received("t", "script 0", 5) is None  # forgotten
    assert heard.received("t", "script 2999", 3) == 1
    for number in range(99_999):
        sent.next(f"topic {number}")
    sent.next("topic 0")  # is used, and so kept
    for number in range(2):
        sent.next(f"another {number}")
    assert (sent.count("topic 0"), sent.count("topic 1"), sent.count("another 1")) == (2, 0, 1)


def test_who_is_heard_is_not_forgotten_for_those_who_are_not() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 1)
    for number in range(3000):
        heard.received("t", f"script {number}", 1)
        heard.received("t", NODE, number + 2)
    assert heard.received("t", NODE, 3003) == 1
    assert settle(heard, 1, "script 0") is None


def test_a_sender_that_has_forgotten_cannot_say_what_was_missed() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 5)
    assert settle(heard, 2) is None


def test_a_topic_that_is_left_is_forgotten() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 1)
    heard.forget("t")
    assert heard.received("t", NODE, 9) is None


def test_who_goes_on_while_it_is_asked_has_forgotten_nothing() -> None:
    heard = ReceivedNumbers()
    assert [heard.received("t", NODE, number) for number in (1, 2, 5, 6)] == [0, 0, 2, 0]
    assert heard.settle("t", NODE, 4, 2) == 0  # 3 and 4 have shown already
    assert heard.settle("t", NODE, 9, 2) == 3
    assert heard.settle("t", NODE, 0, None) == 0
    assert heard.settle("t", NODE, 1, None) is None  # it may be one of those that came
    assert heard.settle("t", NODE, 9, 9) == 0


def test_what_counts_as_missed_is_late_should_it_come() -> None:
    heard = ReceivedNumbers()
    assert [heard.received("t", NODE, number) for number in (2, 3, 6)] == [None, 0, 2]
    assert heard.received("t", NODE, 4) == TOO_LATE
    assert heard.settle("t", NODE, 8, 6) == 2
    assert [heard.received("t", NODE, number) for number in (7, 5, 9, 8, 10)] == [TOO_LATE, TOO_LATE, 0, TOO_LATE, 0]
    assert heard.received("t", NODE, 3) == 0  # which came, and so it has forgotten
    assert [heard.received("t", NODE, number) for number in (4, 5, 6)] == [0, 0, 0]


def test_a_sender_that_begins_anew_is_not_late() -> None:
    heard = ReceivedNumbers()
    assert [heard.received("t", NODE, number) for number in (5, 9, 1, 2, 3)] == [None, 3, 0, 0, 0]
    assert heard.received("t", NODE, 7) == 3
    assert settle(heard, 2) is None
    assert [heard.received("t", NODE, number) for number in (3, 4)] == [None, 0]


def test_what_comes_again_or_late_where_a_topic_has_moved_is_not_taken_for_a_sender_that_has_forgotten() -> None:
    heard = ReceivedNumbers()
    heard.is_ordered = False
    late = TOO_LATE
    assert [heard.received("t", NODE, number) for number in (4, 5, 6, 5, 6, 7)] == [None, 0, 0, late, late, 0]
    assert [heard.received("t", NODE, number) for number in (2, 8)] == [0, 0]  # of before, and its time is not over
    assert [heard.received("t", NODE, number) for number in (1, 2, 3, 2, 4)] == [0, 0, 0, late, 0]
    assert settle(heard, 2) is None


def test_who_had_published_nothing_when_it_was_asked_is_known_by_its_first_message() -> None:
    heard = ReceivedNumbers()
    assert heard.settle("t", NODE, 0, None) == 0
    heard.asked("t", frozenset([NODE, "other"]))
    assert heard.received("t", NODE, 3) == 2
    assert heard.last("t", "other") == 0
    assert heard.settle("t", "other", 4, heard.all("t").get("other")) == 4
    assert heard.received("t", "a stranger", 3) is None
    heard.forget("t")
    assert heard.received("t", NODE, 9) is None


def test_who_is_forgotten_was_not_one_who_had_published_nothing() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 7)
    heard.asked("t", frozenset([NODE]))
    for number in range(2000):
        heard.received("t", f"script {number}", 1)
    assert heard.received("t", NODE, 9) is None
