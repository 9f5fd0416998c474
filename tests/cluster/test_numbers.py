"""Numbers: who leaves an engine later than others tells them what they may have missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.gaps import Gaps, SentNumbers
from velocity_ws.cluster.notes import Notes
from velocity_ws.cluster.numbers import Numbers
from velocity_ws.cluster.rpc import Replies, Rpc
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.messages.address import Address
from velocity_ws.stats import Counters


class Told(Notes):
    """What the others were told; nothing where there is no connection."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.is_up = True

    async def tell(self, what: str, args: object, until: float | None = None) -> None:
        if not self.is_up:
            raise BackplaneUnavailable("there is no connection")
        assert isinstance(args, dict)
        self.counts |= args


async def nobody(*_: object) -> Replies[dict[str, int]]:
    return Replies()


class One:
    """A node's, with others that it heard at some time."""

    def __init__(self) -> None:
        self.sent = SentNumbers()
        self.told = Told()
        self.heard: float | None = 0.0
        gaps = Gaps(Topics("t"), Counters(), lambda *_: None)
        self.numbers = Numbers(self.sent, gaps, Rpc(1.0, lambda *_: None), self.told, nobody, lambda: self.heard)


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(0, 40))
async def test_all_that_was_published_since_all_were_heard_is_told(topics: list[str], heard: int) -> None:
    one = One()
    for moment, topic in enumerate(topics):
        one.numbers.mark(float(moment))
        one.sent.next(topic)
    one.heard = float(heard)
    one.numbers.left()
    await one.numbers.tell()
    assert set(topics[heard:]) <= one.told.counts.keys()
    assert all(count == topics.count(topic) for topic, count in one.told.counts.items())


async def test_nothing_is_told_where_there_is_nobody_or_nothing_in_doubt() -> None:
    one = One()
    one.sent.next("a")
    one.heard = None
    one.numbers.left()
    one.numbers.mark(5.0)
    one.heard = 5.0
    one.numbers.left()
    await one.numbers.tell()
    assert one.told.counts == {}


async def test_what_could_not_be_told_is_told_later_as_it_was_then() -> None:
    one = One()
    one.sent.next("a")
    one.numbers.left()
    one.told.is_up = False
    await one.numbers.tell()
    one.sent.next("a")  # which shows by itself that one is missing before
    one.told.is_up = True
    await one.numbers.tell()
    assert one.told.counts == {"a": 1}
    one.told.counts.clear()
    await one.numbers.tell()
    assert one.told.counts == {}


def test_who_is_told_tells_clients_what_did_not_come_and_nothing_twice() -> None:
    counters, given_to = Counters(), list[tuple[Address, bytes]]()
    gaps = Gaps(Topics("t"), counters, lambda to, message: given_to.append((to, bytes(message.payload))))
    here, other = gaps.track("room", "x"), gaps.track("room", "y")
    gaps.received(here, "node", 1)
    gaps.told("node", {here: 3, "t.elsewhere": 9})
    gaps.told("node", {here: 3})
    gaps.received(here, "node", 4)
    gaps.told("node", {here: 3})
    assert (counters.backplane_missed, len(given_to)) == (2, 1)
    assert b'"missed":2' in given_to[0][1]
    gaps.told("node", {other: 1})  # of which it is not known whether that was before this node came
    assert b'"missed":null' in given_to[1][1]
    assert isinstance(given_to[0][0], Address)
