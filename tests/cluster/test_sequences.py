"""Sequences: every loss between two messages that arrive shows, and what is kept is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.sequences import Heard, Sent

NODE = "elevenchars"


@given(st.lists(st.booleans(), max_size=50), st.lists(st.booleans(), max_size=20))
def test_every_loss_between_two_that_arrive_shows(arrives: list[bool], after: list[bool]) -> None:
    sent, heard = Sent(), Heard()
    missed = lost = 0
    is_known = False
    for comes in arrives:
        number = sent.next("t")
        if comes:
            missed += heard.note("t", NODE, number)
            lost_here, lost = lost, 0
            if not is_known:  # before the first there is nothing to compare with
                missed += lost_here
                is_known = True
            else:
                assert missed >= lost_here
        else:
            lost += 1
    settled = heard.settle("t", NODE, sent.count("t"))
    if is_known:
        assert settled == lost
        assert missed + lost == arrives.count(False)
        assert heard.settle("t", NODE, sent.count("t")) == 0
    else:
        assert settled == (None if arrives else 0)
    for _ in after:
        assert heard.note("t", NODE, sent.next("t")) in (0, lost)


def test_a_sender_that_has_forgotten_shows_no_loss() -> None:
    heard = Heard()
    assert [heard.note("t", NODE, number) for number in (5, 6, 1, 2, 4)] == [0, 0, 0, 0, 1]


def test_what_is_kept_is_bounded() -> None:
    heard, sent = Heard(), Sent()
    for number in range(3000):
        heard.note("t", f"script {number}", 1)
    assert heard.note("t", "script 0", 5) == 0  # forgotten
    assert heard.note("t", "script 2999", 3) == 1
    for number in range(99_999):
        sent.next(f"topic {number}")
    sent.next("topic 0")  # is used, and so kept
    for number in range(2):
        sent.next(f"another {number}")
    assert (sent.count("topic 0"), sent.count("topic 1"), sent.count("another 1")) == (2, 0, 1)


def test_who_is_heard_is_not_forgotten_for_those_who_are_not() -> None:
    heard = Heard()
    heard.note("t", NODE, 1)
    for number in range(3000):
        heard.note("t", f"script {number}", 1)
        heard.note("t", NODE, number + 2)
    assert heard.note("t", NODE, 3003) == 1
    assert heard.settle("t", "script 0", 1) is None


def test_a_sender_that_has_forgotten_cannot_say_what_was_missed() -> None:
    heard = Heard()
    heard.note("t", NODE, 5)
    assert heard.settle("t", NODE, 2) is None


def test_a_topic_that_is_left_is_forgotten() -> None:
    heard = Heard()
    heard.note("t", NODE, 1)
    heard.forget("t")
    assert heard.note("t", NODE, 9) == 0
