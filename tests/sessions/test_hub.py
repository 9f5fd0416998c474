"""The hub against a naive model of it: sets of tuples, searched from end to end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from velocity_ws.errors import ClientNotFound
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.sessions.hub import Hub

IDS = ["a", "b", "c", "d", "e"]
ROOMS = ["", "red", "green", "*"]
USERS = ["ann", "bob", ""]
frame = encode("e")

ids = st.sampled_from(IDS)
rooms = st.sampled_from(ROOMS)
users = st.sampled_from(USERS) | st.none()
excluded = st.frozensets(st.sampled_from([*IDS, "nobody"]), max_size=3)


class FakeMember:
    """A member that remembers what it was offered, takes it or not, and may do something about it."""

    def __init__(self, member_id: str, takes: bool = True, user_id: str | None = None) -> None:
        self.id = member_id
        self.user_id = user_id
        self.takes = takes
        self.offered: list[PreparedMessage] = []
        self.when_offered: Callable[[], object] = lambda: None

    def offer(self, message: PreparedMessage) -> bool:
        self.offered.append(message)
        self.when_offered()
        return self.takes


class HubMachine(RuleBasedStateMachine):
    """Every operation on the hub and on the model; they have to agree after each."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[FakeMember] = Hub(None, self)
        self.open: set[tuple[str, str]] = set()
        self.here: list[FakeMember] = []  # in order of arrival
        self.owners: list[tuple[str, str]] = []  # (user, id), in order of becoming it
        self.pairs: list[tuple[str, str]] = []  # (room, id), in order of joining

    def ids_here(self) -> list[str]:
        return [member.id for member in self.here]

    def opened(self, kind: str, name: str) -> None:
        assert (kind, name) not in self.open
        self.open.add((kind, name))

    def closed(self, kind: str, name: str) -> None:
        self.open.remove((kind, name))

    def forget(self, member_id: str) -> None:
        self.owners = [pair for pair in self.owners if pair[1] != member_id]
        self.here = [member for member in self.here if member.id != member_id]
        self.pairs = [pair for pair in self.pairs if pair[1] != member_id]

    @rule(member_id=ids, takes=st.booleans(), user=users)
    def add(self, member_id: str, takes: bool, user: str | None) -> None:
        if member_id not in self.ids_here():
            member = FakeMember(member_id, takes, user)
            self.hub.add(member)
            self.here.append(member)
            self.owners += [] if user is None else [(user, member_id)]

    @rule(member_id=ids, user=users)
    def set_user(self, member_id: str, user: str | None) -> None:
        before = next((name for name, who in self.owners if who == member_id), None)
        is_new = member_id in self.ids_here() and before != user
        assert self.hub.set_user(member_id, user) is is_new
        if is_new:
            self.owners = [pair for pair in self.owners if pair[1] != member_id]
            self.owners += [] if user is None else [(user, member_id)]

    @precondition(lambda self: self.here)
    @rule(data=st.data(), user=users)
    def a_member_says_that_it_is_another_users(self, data: st.DataObject, user: str | None) -> None:
        data.draw(st.sampled_from(self.here)).user_id = user  # which is nothing to the hub

    @rule(member_id=ids)
    def remove(self, member_id: str) -> None:
        assert self.hub.remove(member_id) == {room for room, who in self.pairs if who == member_id}
        self.forget(member_id)

    @rule(member_id=ids, room=rooms)
    def join(self, member_id: str, room: str) -> None:
        if member_id not in self.ids_here():
            with pytest.raises(ClientNotFound) as caught:
                self.hub.join(member_id, room)
            assert caught.value.client_id == member_id
            return
        new = (room, member_id) not in self.pairs
        assert self.hub.join(member_id, room) is new
        if new:
            self.pairs.append((room, member_id))

    @rule(member_id=ids, room=rooms)
    def leave(self, member_id: str, room: str) -> None:
        there = (room, member_id) in self.pairs
        assert self.hub.leave(member_id, room) is there
        if there:
            self.pairs.remove((room, member_id))

    @rule(excluded=excluded)
    def deliver_to_all(self, excluded: frozenset[str]) -> None:
        self.check_delivery(Address("all", (), excluded), self.ids_here())

    @rule(names=st.lists(rooms | st.just("no such room"), max_size=4), excluded=excluded)
    def deliver_to_rooms(self, names: list[str], excluded: frozenset[str]) -> None:
        meant = [member_id for name in names for room, member_id in self.pairs if room == name]
        self.check_delivery(Address("rooms", names, excluded), meant)

    @rule(names=st.lists(ids | st.just("nobody"), max_size=4), excluded=excluded)
    def deliver_to_clients(self, names: list[str], excluded: frozenset[str]) -> None:
        self.check_delivery(Address("clients", names, excluded), [n for n in names if n in self.ids_here()])

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def a_member_removes_one_while_being_offered(self, data: st.DataObject) -> None:
        acting = data.draw(st.sampled_from(self.here))
        removed = data.draw(ids)
        acting.when_offered = lambda: self.hub.remove(removed)
        try:
            self.check_delivery(Address("all"), self.ids_here())
        finally:
            acting.when_offered = lambda: None
        self.forget(removed)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), room=rooms, leaves=st.booleans())
    def a_member_moves_while_being_offered(self, data: st.DataObject, room: str, leaves: bool) -> None:
        acting = data.draw(st.sampled_from(self.here))
        pair = (room, acting.id)
        meant = [member_id for name, member_id in self.pairs if name == room]
        move = self.hub.leave if leaves else self.hub.join
        acting.when_offered = lambda: move(acting.id, room)
        try:
            self.check_delivery(Address("rooms", [room]), meant)
        finally:
            acting.when_offered = lambda: None
        if leaves and pair in self.pairs:
            self.pairs.remove(pair)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def a_member_brings_a_message_of_its_own(self, data: st.DataObject) -> None:
        acting = data.draw(st.sampled_from(self.here))
        inner = encode("inner")

        def broadcast_once() -> None:
            acting.when_offered = lambda: None
            self.hub.deliver(Address("all", (), frozenset({acting.id})), inner)

        acting.when_offered = broadcast_once
        self.hub.deliver(Address("all"), frame)
        for member in self.here:
            expected = 1 if member is acting else 2
            assert len(member.offered) == expected
            member.offered.clear()

    def check_delivery(self, address: Address, meant: list[str]) -> None:
        expected = {member_id for member_id in meant if member_id not in address.excluded}
        everyone = list(self.here)
        queued = self.hub.deliver(address, frame)
        for member in everyone:
            assert member.offered == ([frame] if member.id in expected else []), "each of them once, and nobody else"
            member.offered.clear()
        assert queued == sum(member.takes for member in everyone if member.id in expected)

    @invariant()
    def the_members_agree(self) -> None:
        assert self.hub.members() == self.here
        assert len(self.hub) == len(self.here)
        for member_id in IDS:
            assert (member_id in self.hub) is (member_id in self.ids_here())
            found = self.hub.get(member_id)
            assert (None if found is None else found.id) == (member_id if member_id in self.ids_here() else None)

    @invariant()
    def the_users_agree(self) -> None:
        for user in USERS:
            owned = [member_id for name, member_id in self.owners if name == user]
            assert [member.id for member in self.hub.user_members(user)] == owned
        names = {("user", name) for name, _ in self.owners} | {("room", name) for name, _ in self.pairs}
        assert self.open == names, "whoever watches was told of each first and last"

    @invariant()
    def the_rooms_agree(self) -> None:
        assert sorted(self.hub.rooms()) == sorted({room for room, _ in self.pairs}), "an empty room vanishes"
        for room in ROOMS:
            members = [member.id for member in self.hub.room_members(room)]
            assert members == [member_id for name, member_id in self.pairs if name == room]
        for member_id in IDS:
            assert self.hub.rooms_of(member_id) == {room for room, who in self.pairs if who == member_id}

    def teardown(self) -> None:
        for member_id in self.ids_here():
            self.hub.remove(member_id)
        assert (len(self.hub), self.hub.rooms(), self.hub.members()) == (0, [], [])
        assert self.open == set()


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_delivery_follows_the_order_of_arrival_and_joining() -> None:
    order: list[str] = []
    hub: Hub[FakeMember] = Hub()
    for member_id in ("a", "b", "c"):
        member = FakeMember(member_id)
        member.when_offered = partial(order.append, member_id)
        hub.add(member)
    for member_id in ("c", "a"):
        hub.join(member_id, "room")
    hub.deliver(Address("all"), frame)
    hub.deliver(Address("rooms", ["room"]), frame)
    hub.deliver(Address("clients", ["b", "a", "b"]), frame)
    assert order == ["a", "b", "c", "c", "a", "b", "a"]


def test_what_is_returned_is_a_copy() -> None:
    hub: Hub[FakeMember] = Hub()
    hub.add(FakeMember("a"))
    hub.join("a", "room")
    members, rooms, room_members, rooms_of = hub.members(), hub.rooms(), hub.room_members("room"), hub.rooms_of("a")
    hub.remove("a")
    assert [member.id for member in members] == ["a"]
    assert [member.id for member in room_members] == ["a"]
    assert rooms == ["room"]
    assert rooms_of == {"room"}


def test_asking_creates_no_room() -> None:
    hub: Hub[FakeMember] = Hub()
    hub.add(FakeMember("a"))
    assert hub.room_members("room") == []
    assert hub.rooms_of("a") == hub.rooms_of("nobody") == frozenset()
    assert not hub.leave("a", "room")
    assert hub.deliver(Address("rooms", ["room", "other"]), frame) == 0
    with pytest.raises(ClientNotFound, match="'nobody'"):
        hub.join("nobody", "room")
    assert hub.rooms() == []


def test_removing_twice_is_harmless() -> None:
    hub: Hub[FakeMember] = Hub()
    hub.add(FakeMember("a"))
    hub.join("a", "room")
    assert hub.remove("a") == {"room"}
    assert hub.remove("a") == frozenset()


def test_a_member_is_out_of_everything_whatever_those_do_who_are_told() -> None:
    class Watcher:
        def opened(self, kind: str, name: str) -> None:
            """Nothing."""

        def closed(self, kind: str, name: str) -> None:
            raise OSError(name)

    hub: Hub[FakeMember] = Hub(None, Watcher())
    member = FakeMember("a", user_id="ann")
    hub.add(member)
    hub.join("a", "red")
    hub.join("a", "green")
    member.user_id = "bob"
    with pytest.raises(OSError, match="ann"):
        hub.remove("a")
    assert (hub.members(), hub.rooms(), hub.rooms_of("a"), hub.user_members("ann")) == ([], [], frozenset(), [])
