"""What is counted in one room: whatever comes and goes, the sums are right, and all that has changed is told once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.broker.presence_room import PresenceRoom
from velocity_ws.broker.presence_wire import Info

CLIENTS = st.sampled_from(["c1", "c2", "c3", "c4"])
USERS = st.sampled_from(["", "ann", "bob", "cat"])
INFO = st.sampled_from([b"", b'{"name":"A"}', b'{"name":"B"}'])
NODES = ("here", "there")
HISTORIES = st.lists(
    st.tuples(st.sampled_from(NODES), st.sampled_from(["enter", "leave", "inform", "say", "state", "tell"]), CLIENTS)
    .flatmap(lambda step: st.tuples(st.just(step), USERS, INFO)),
    max_size=60,
)  # fmt: skip


def add(told: dict[str, Any], change: Any) -> None:
    """Do what a page does with a change."""
    for user, count in change[0].items():
        if count:
            told[user] = (count, change[1].get(user, b""))
        else:
            told.pop(user, None)


@given(HISTORIES, st.integers(1, 200))
def test_two_rooms_that_tell_each_other_all_agree_with_the_truth_and_with_what_they_told(
    history: Any, limit: int
) -> None:
    rooms = {node: PresenceRoom(node) for node in NODES}
    told: dict[str, dict[str, Any]] = {node: {} for node in NODES}
    users: dict[str, dict[str, str]] = {node: {} for node in NODES}
    versions = iter(range(1, 10_000))

    def say(node: str) -> None:
        (other,) = set(NODES) - {node}
        for counts, infos in rooms[node].unsaid(limit):
            rooms[node].version = next(versions)
            rooms[other].update(node, rooms[node].version, counts, infos)

    def tell(node: str) -> None:
        while rooms[node].waiting:
            change = rooms[node].changed(limit, len)
            if change is not None:
                add(told[node], change)

    for at, ((node, what, client), user, info) in enumerate(history, 1):
        room = rooms[node]
        if what == "enter":
            assert room.enter(client, user) == (users[node].get(client) != user)
            users[node][client] = user
        elif what == "leave":
            assert room.leave(client) == (users[node].pop(client, None) is not None)
        elif what == "inform" and user:
            room.inform(user, Info(at, info))
        elif what == "say":
            say(node)
        elif what == "state":
            say(node)
            (other,) = set(NODES) - {node}
            pieces = list(room.all_here(limit))
            whole = [{k: v for piece in pieces for k, v in piece[part].items()} for part in (0, 1)]
            assert not rooms[other].replace(node, room.version, *whole), "it had told all of it"  # type: ignore[arg-type]
        elif what == "tell":
            tell(node)
    truth = Counter(user for clients in users.values() for user in clients.values())
    for node in NODES:
        say(node)
    for node, room in rooms.items():
        tell(node)
        assert room.here == Counter(users[node].values())
        assert room.total == truth
        assert room.clients == truth.total()
        assert room.anonymous == truth[""]
        assert room.users == len(truth) - ("" in truth)
        assert {user: count for user, (count, _) in told[node].items()} == truth
        assert {user: info for user, (_, info) in told[node].items()} == {user: room.info(user) for user in truth}
    assert [rooms["here"].info(user) for user in truth] == [rooms["there"].info(user) for user in truth]
    assert rooms["here"].remove("there") == bool(users["there"])
    assert rooms["here"].total == Counter(users["here"].values())


def test_of_what_two_nodes_say_of_a_user_the_newer_is_told() -> None:
    room = PresenceRoom("b")
    room.enter("c1", "ann")
    room.inform("ann", Info(5, b'{"n":1}'))
    room.update("a", 1, {"ann": 1}, {"ann": Info(4, b'{"n":2}')})
    assert room.info("ann") == b'{"n":1}'
    room.update("a", 2, {"ann": 1}, {"ann": Info(6, b'{"n":3}')})
    assert room.info("ann") == b'{"n":3}'
    room.update("c", 1, {"ann": 1}, {"ann": Info(6, b'{"n":4}')})
    assert room.info("ann") == b'{"n":4}', "at the same time: of the node with the greater name"
    room.remove("c")
    room.remove("a")
    assert room.info("ann") == b'{"n":1}'
    room.leave("c1")
    assert room.info("ann") == b""


def test_somebody_who_comes_and_goes_is_told_to_nobody() -> None:
    room = PresenceRoom("a")
    room.enter("c1", "ann")
    room.leave("c1")
    assert list(room.unsaid(100)) == []
    assert room.changed(100, len) is None
    assert room.waiting == 0


def test_a_newcomer_is_told_as_many_users_at_once_as_fit_and_nobody_who_has_left() -> None:
    room = PresenceRoom("a")
    for number in range(10):
        room.enter(f"c{number}", f"user{number}")
    names = list(room.total)
    room.leave("c1")
    users, infos, used = room.some(names, 10, len)
    assert (list(users), infos, used) == (["user0", "user2"], {}, 3)
    assert room.some(names[8:], 100, len) == ({"user8": 1, "user9": 1}, {}, 2)
