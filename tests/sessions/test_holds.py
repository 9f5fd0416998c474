"""Holds: against a model of what each member has to get, whatever is said, held, released and left in which order."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest

from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage, encode, event_of
from velocity_ws.sessions.holds import MAX_HELD, Hold
from velocity_ws.sessions.hub import Hub

LIMIT = 10_000
ROOMS = ["red", "green", "blue"]


class Member:
    """Remembers what it was offered, by name."""

    def __init__(self, member_id: str) -> None:
        self.id = member_id
        self.user_id: str | None = None
        self.got: list[str] = []

    def offer(self, message: PreparedMessage) -> bool:
        self.got.append(event_of(message))
        return True


class Trial:
    """A hub, three members, and what each has to get in the end.

    Attributes:
        due: names that a member has to get, once each.
        order: by member and room, the names of messages to that room alone, in order.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.hub: Hub[Member] = Hub()
        self.members = [Member(name) for name in "abc"]
        self.due: dict[str, set[str]] = defaultdict(set)
        self.order: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.held: dict[tuple[str, str], Hold[Member]] = {}
        self.said = 0
        for member in self.members:
            self.hub.add(member)

    def step(self) -> None:
        """One thing happens."""
        member, room = self.chance.choice(self.members), self.chance.choice(ROOMS)
        match self.chance.choice(["say", "say", "say", "join", "join", "leave", "hold", "hold", "release"]):
            case "say":
                self.say()
            case "join":
                self.hub.join(member.id, room)
            case "leave":
                self.leave(member, room)
            case "hold":
                hold = self.hub.hold(member.id, room, LIMIT)
                assert (hold is None) == (self.hub.joined_at(member.id, room) is None)
                if hold is not None:
                    self.held[member.id, room] = hold
            case "release":
                self.release(member.id, room)

    def say(self) -> None:
        """Send to some rooms; each member that is in one of them has to get it, unless it is put out of all."""
        self.said += 1
        name, rooms = str(self.said), self.chance.sample(ROOMS, self.chance.choice([1, 1, 2, 3]))
        excluded = frozenset(self.chance.sample("abc", self.chance.choice([0, 0, 1])))
        for member in self.members:
            if member.id not in excluded and any(self.hub.joined_at(member.id, room) for room in rooms):
                self.due[member.id].add(name)
                if len(rooms) == 1:
                    self.order[member.id, rooms[0]].append(name)
        queued = self.hub.deliver(Address("rooms", rooms, excluded), encode(name))
        assert queued == sum(name in names for names in self.due.values())

    def leave(self, member: Member, room: str) -> None:
        """Leave a room, as who is refused; what was held there alone is not due any more."""
        hold = self.held.pop((member.id, room), None)
        self.hub.leave(member.id, room)
        if hold is None:
            return
        assert hold.is_over
        elsewhere = {
            event_of(message)
            for (member_id, _), other in self.held.items()
            for message, _ in other._messages
            if member_id == member.id
        }
        for message, _ in hold._messages:
            name = event_of(message)
            if name not in member.got and name not in elsewhere:
                self.due[member.id].discard(name)
                if name in self.order[member.id, room]:
                    self.order[member.id, room].remove(name)

    def release(self, member_id: str, room: str) -> None:
        """Allow a member to stay."""
        hold = self.held.pop((member_id, room), None)
        if hold is not None:
            self.hub.release(hold)
            self.hub.release(hold)  # which does nothing
            assert self.hub.hold_of(member_id, room) is None


@pytest.mark.parametrize("seed", range(50))
def test_each_member_gets_what_is_due_once_and_in_order(seed: int) -> None:
    trial = Trial(seed)
    for _ in range(300):
        trial.step()
    for key in list(trial.held):
        trial.release(*key)
    assert trial.hub._held == {}
    for member in trial.members:
        assert len(member.got) == len(set(member.got))
        assert set(member.got) == trial.due[member.id]
        for room in ROOMS:
            wanted = trial.order[member.id, room]
            assert [name for name in member.got if name in set(wanted)] == wanted


def test_what_is_held_is_bounded_in_number_and_bytes() -> None:
    member = Member("a")
    for message, limit, fits in ((encode("e"), 10**9, MAX_HELD), (encode("e", "x" * 100), 1000, 8)):
        hold = Hold(member, "red", limit)
        taken = [hold.take(message, None) for _ in range(MAX_HELD + 10)]
        assert taken == [True] * fits + [False] * (MAX_HELD + 10 - fits)
        assert not hold.take(encode("e"), None), "what comes after something that was lost is lost, too"
        member.got.clear()
        hold.deliver()
        assert member.got == ["e"] * fits + ["gap"]
    large = Hold(member, "red", 10)
    assert large.take(encode("e", "x" * 100), None), "one message is taken, however large"


def test_what_does_not_wait_is_not_held() -> None:
    hold, cursor = Hold(Member("a"), "red", LIMIT), encode("cursor")
    cursor.set_lossy(volatile=True, key=None)
    assert not hold.take(cursor, None)
    hold.deliver()
    assert (hold.member.got, hold.left_out, hold.lost) == ([], 1, 0)


async def test_who_waits_for_the_end_of_a_hold_is_told_once_it_is_over() -> None:
    hub: Hub[Member] = Hub()
    hub.add(Member("a"))
    hub.join("a", "red")
    hold = hub.hold("a", "red", LIMIT)
    assert hold is not None
    waiting = [asyncio.create_task(hold.wait_over()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    hub.remove("a")
    await asyncio.wait(waiting)
    await hold.wait_over()
    assert hub._held == {}
