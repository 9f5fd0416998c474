"""Entrances: nothing is left of clients who went, and of rooms that closed, while something was waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from velocity_ws.sessions.hub import Hub
from velocity_ws.streams.entrances import Entrances
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import End, Summary

ROOM = "chat"


class _Engine:
    """An engine that has one stream; something happens while it is asked for it."""

    def __init__(self) -> None:
        self.on_up: list[Any] = []
        self.meanwhile: Any = lambda: None
        self.end: End = ""
        self.age = 0

    async def listed(self, _topic: str) -> list[Summary]:
        return []

    async def look(self, id_: str) -> Summary:
        self.meanwhile()
        return Summary(id_, "topic", ROOM, b"w" * 16, 1, 4, self.end, 1000, self.age)


def _entrances(engine: _Engine) -> tuple[Entrances, Following, Hub[Any]]:
    async def wait_heard(_room: str) -> bool:
        return True

    hub: Hub[Any] = Hub()
    hub.came = lambda *_: None
    gives = cast("Any", SimpleNamespace(known=lambda _: None))
    following = Following(cast("Any", engine), gives, wait_heard, keep=1000, lease=10, clock=lambda: 0.0)
    return Entrances(hub, cast("Any", None), following, cast("Any", engine)), following, hub


async def test_a_stream_is_not_followed_in_a_room_that_closed_while_it_was_looked_for() -> None:
    engine = _Engine()
    entrances, following, _ = _entrances(engine)
    following.open(ROOM, "topic")
    engine.meanwhile = lambda: following.close(ROOM)
    assert await entrances.find("a", ROOM) == (4, "")
    assert not following.running
    await following.stop()


async def test_what_is_read_by_its_id_is_no_newer_than_what_was_known() -> None:
    """Or the next who come would get that, in place of the newest."""
    engine = _Engine()
    entrances, following, _ = _entrances(engine)
    room = following.open(ROOM, "topic")
    following.known(room, [await engine.look(id_) for id_ in ("newer", "older")])
    engine.end, engine.age = "done", 60_000
    await entrances.find("long ago", ROOM)
    assert list(room.copies) == ["long ago", "older", "newer"]
    engine.end, engine.age = "", 0
    await entrances.find("just begun", ROOM)
    assert list(room.copies)[-1] == "just begun"
    await following.stop()


async def test_who_goes_before_it_has_said_anything_is_forgotten() -> None:
    entrances, _, hub = _entrances(_Engine())
    entrances.waits_for = lambda _: True
    stays = cast("Any", SimpleNamespace(id="stays", user_id=None))
    hub.add(stays)
    entrances.let_in(stays, ROOM)
    for number in range(100):
        goes = cast("Any", SimpleNamespace(id=f"{number}", user_id=None))
        hub.add(goes)
        entrances.let_in(goes, ROOM)
        hub.remove(goes.id)
    assert "stays" in entrances._postponed
    assert len(entrances._postponed) <= 2
