"""Kinds: the first that fits wins, what is registered twice is refused, and what is remembered is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.broker.rooms import Rooms
from velocity_ws.errors import HookError
from velocity_ws.hooks import kinds as module
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.hooks.options import NO_OPTIONS
from velocity_ws.retention import History


def test_a_room_is_of_the_first_kind_whose_pattern_fits() -> None:
    kinds = Kinds()
    lobby, chats, anything = [kinds.register(each) for each in ("chat:lobby", "chat:{chat_id}", "{name:path}")]
    assert kinds.of("chat:lobby") == (lobby, {})
    assert kinds.of("chat:7") == (chats, {"chat_id": "7"})
    assert kinds.of("chat:7:8") == (anything, {"name": "chat:7:8"})
    assert kinds.of("") is None


PATTERNS = ["a", "{x}", "a:{x}", "a:{x:path}", "{x}:b", "{x}-{y}", "{x:path}"]


@given(order=st.permutations(PATTERNS), rooms=st.lists(st.text(alphabet="ab:-", max_size=4)))
def test_what_is_remembered_is_what_would_be_found(order: list[str], rooms: list[str]) -> None:
    kinds = Kinds()
    registered = [kinds.register(pattern) for pattern in order]
    for room in [*rooms, *rooms]:
        fitting = [(kind, found) for kind in registered if (found := kind.pattern.match(room)) is not None]
        assert kinds.of(room) == (fitting[0] if fitting else None)


def test_a_kind_that_is_registered_later_is_found_for_rooms_that_were_asked_about() -> None:
    kinds = Kinds()
    assert kinds.of("chat:7") is None
    chats = kinds.register("chat:{chat_id}")
    assert kinds.of("chat:7") == (chats, {"chat_id": "7"})


def test_no_more_names_are_remembered_than_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    kinds = Kinds()
    chats = kinds.register("chat:{chat_id}")
    for _ in range(2):
        for number in range(10):
            assert kinds.of(f"chat:{number}") == (chats, {"chat_id": str(number)})
            assert kinds.of(f"tea:{number}") is None
            assert len(kinds._found) <= 3


@pytest.mark.parametrize("again", ["chat:{chat_id}", "chat:{other}"])
def test_the_same_rooms_are_registered_once_be_it_under_other_names_of_parameters(again: str) -> None:
    kinds = Kinds()
    kinds.register("chat:{chat_id}")
    with pytest.raises(HookError, match="registered already"):
        kinds.register(again)


def a_router() -> tuple[Kinds, Rooms]:
    kinds = Kinds()
    rooms = Rooms(kinds.register("game:{game_id}", presence=True, history=History(7), rewind=True))
    rooms.authorize(lambda client, game_id: True)
    rooms.on("move", rate=5)(lambda client, game_id: None)
    rooms.on_join(lambda client: None)
    rooms.on_leave(lambda client: None)
    rooms.presence_info(lambda user: {})
    return kinds, rooms


def test_kinds_of_a_router_come_behind_with_their_hooks() -> None:
    routers, _ = a_router()
    for prefix in ("", "chess."):  # a router may be included in several brokers
        kinds = Kinds()
        first = kinds.register("chat:{chat_id}")
        kinds.include(routers, prefix)
        assert kinds.all[0] is first
        found = kinds.of("game:1")
        assert found is not None
        kind, parameters = found
        assert parameters == {"game_id": "1"}
        assert kinds.has_authorize
        assert kind.authorize
        assert kind.presence
        assert kind.presence_info
        assert (kind.history, kind.rewind) == (History(7), True)
        assert list(kind.handlers) == [f"{prefix}move"]
        assert (len(kind.on_join), len(kind.on_leave)) == (1, 1)


def test_nothing_of_a_router_is_taken_over_where_one_kind_is_registered_already() -> None:
    routers, rooms = a_router()
    routers.register("chat:{other}")
    kinds = Kinds()
    kinds.register("chat:{chat_id}")
    with pytest.raises(HookError, match="registered already"):
        kinds.include(routers, "")
    with pytest.raises(HookError, match="reserved"):
        kinds.include(routers, "$")
    assert len(kinds.all) == 1
    rooms.on("undo")(lambda client: None)


def test_what_is_registered_on_a_router_after_it_was_included_is_refused() -> None:
    routers, rooms = a_router()
    Kinds().include(routers, "")
    decorators: tuple[Callable[..., Any], ...] = (
        rooms.authorize, rooms.on("undo"), rooms.on_join, rooms.on_leave, rooms.presence_info,
    )  # fmt: skip
    for late in decorators:
        with pytest.raises(HookError, match=r"before include\(\)"):
            late(lambda client: True)
    with pytest.raises(HookError, match=r"before include\(\)"):
        routers.register("late:{late}")


def may(client: Any, chat_id: int) -> bool:
    return bool(client) and chat_id > 0


def register(kinds: Kinds) -> dict[str, Callable[..., Any]]:
    rooms = Rooms(kinds.register("chat:{chat_id}", presence=True))
    return {"authorize": rooms.authorize, "on": rooms.on("say"), "presence_info": rooms.presence_info}


@pytest.mark.parametrize("decorator", ["authorize", "on", "presence_info"])
def test_a_second_hook_where_one_decides_is_refused(decorator: str) -> None:
    registrations = register(Kinds())
    functions = {"presence_info": lambda user: {"name": user}}
    function = functions.get(decorator, may)
    assert registrations[decorator](function) is function
    with pytest.raises(HookError, match="already"):
        registrations[decorator](function)


def test_a_kind_remembers_nothing_unless_it_is_said() -> None:
    kinds = Kinds()
    kind = kinds.register("chat:{chat_id}")
    assert (kind.history, kind.rewind, kinds.has_history, kinds.tells_of_rooms) == (None, False, False, False)
    kind = kinds.register("game:{game_id}", history=History(7))
    assert (kind.history, kind.rewind, kinds.has_history, kinds.tells_of_rooms) == (History(7), False, True, True)


@pytest.mark.parametrize("history", [True, 100, "10m", History, {"size": 100}])
def test_what_is_no_history_is_refused(history: Any) -> None:
    with pytest.raises(HookError, match=r"a history is History\(size=100"):
        Kinds().register("chat:{chat_id}", history=history)


def test_rooms_that_remember_nothing_cannot_be_rewound() -> None:
    with pytest.raises(HookError, match=r"nothing to rewind.*history=History\(\)"):
        Kinds().register("chat:{chat_id}", rewind=True)


def test_history_comes_too_late_where_a_broker_runs_that_has_begun_without_any() -> None:
    kinds = Kinds()
    kinds.is_without_history = True
    with pytest.raises(HookError, match="begun without any: register them before it starts"):
        kinds.register("chat:{chat_id}", history=History())
    routers, _ = a_router()
    with pytest.raises(HookError, match="cannot have a history"):
        kinds.include(routers, "")
    kinds.register("chat:{chat_id}")
    assert len(kinds.all) == 1


def test_presence_info_of_rooms_without_presence_is_refused() -> None:
    with pytest.raises(HookError, match="presence=True"):
        Rooms(Kinds().register("chat:{chat_id}")).presence_info(lambda user: {"name": user})


@pytest.mark.parametrize("decorator", ["authorize", "on_join", "on_leave"])
def test_a_hook_that_asks_for_a_parameter_of_another_pattern_is_refused(decorator: str) -> None:
    rooms = Rooms(Kinds().register("chat:{chat_id}"))
    with pytest.raises(HookError, match="chat_id"):
        getattr(rooms, decorator)(lambda client, chat_id, game_id: True)


def test_what_is_registered_is_found_in_its_kind() -> None:
    kinds = Kinds()
    kind = kinds.register("chat:{chat_id}")
    rooms = Rooms(kind)
    assert rooms.pattern == "chat:{chat_id}"
    assert not kinds.has_authorize
    rooms.authorize(may)
    rooms.on("say", rate=5)(may)
    rooms.on_join(lambda client, chat_id: None)
    rooms.on_leave(lambda client, chat_id: None)
    assert kinds.has_authorize
    assert kind.handlers["say"].options.burst == 10
    assert (len(kind.on_join), len(kind.on_leave)) == (1, 1)
    with pytest.raises(HookError, match="reserved"):
        rooms.on("$say")
    with pytest.raises(HookError, match="rate"):
        rooms.on("say", burst=3)
    kind.register_event("other", may, NO_OPTIONS)
