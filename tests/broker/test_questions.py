"""Questions: members are asked about, held meanwhile, and put out; whatever fails, each question has its end."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import eventually
from tests.support.holding import ROOM, Guest, House, house
from velocity_ws.broker import questions as questions_module
from velocity_ws.broker.questions import Questions
from velocity_ws.sessions.permission import Permission, failed, forbidden
from velocity_ws.sessions.session import Session


class Asked:
    """Questions about the members of a broker, answered as the test says."""

    def __init__(self, place: House) -> None:
        self.answer = Permission(None)
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.kept: list[str] = []
        self.put_out_fails: BaseException | None = None
        self.reported: list[str] = []
        node = place.broker.node
        self.hub = node.hub
        take_out = node.directory.take_out
        self.questions = Questions(
            node.hub, node.counters, 10_000, self.ask, take_out, self.report, self.keep_out
        )  # fmt: skip

    async def ask(self, session: Session, room: str) -> Permission:
        self.asked += 1
        await self.gate.wait()
        return self.answer

    async def report(self, session: Session, permission: Permission) -> None:
        self.reported.append(session.id)

    async def keep_out(self, session: Session, room: str) -> None:
        if self.put_out_fails is not None:
            raise self.put_out_fails
        self.kept.append(session.id)


async def member(guest: Guest) -> tuple[Session, str]:
    await guest.join()
    return guest.session, ROOM


async def test_who_may_stay_gets_what_was_said_and_who_may_not_is_put_out_and_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        here = Asked(place)
        members = [await member(guest)]
        here.gate.clear()
        round_ = here.questions.put(members, is_urgent=False)
        await place.say("a")
        here.gate.set()
        await round_.wait()
        assert await guest.reads(1) == ["a"]
        here.answer = Permission(forbidden())
        await here.questions.put(members, is_urgent=True).wait()
        assert (await guest.expect("left"))["reason"] == "FORBIDDEN"
        assert (here.kept, here.hub._held, here.questions._open) == ([guest.session.id], {}, {})


async def test_a_question_has_its_end_though_it_cannot_be_kept_that_somebody_was_put_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(questions_module, "AT_ONCE", 1)
    async with house(monkeypatch) as place, place.guest() as guest, place.guest() as other:
        here = Asked(place)
        members = [await member(guest), await member(other)]
        here.answer, here.put_out_fails = Permission(forbidden()), RuntimeError("a fault")
        workers = here.questions._others.workers
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: errors.append(said["exception"]))
        async with asyncio.timeout(5):
            await here.questions.put(members, is_urgent=False).wait()
        await eventually(lambda: not workers)
        assert here.asked == 2
        assert not place.broker.node.hub.rooms()
        assert (await guest.expect("left"))["room"] == ROOM
        here.put_out_fails, here.answer = None, Permission(None)
        async with asyncio.timeout(5):
            await here.questions.put([await member(guest)], is_urgent=False).wait()
        assert all(error is not None and str(error) == "a fault" for error in errors)


async def test_a_failure_is_reported_and_what_changes_meanwhile_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        here = Asked(place)
        members = [await member(guest)]
        here.gate.clear()
        first = here.questions.put(members, is_urgent=False)
        await eventually(lambda: here.asked)
        second = here.questions.put(members, is_urgent=True)
        over: list[str] = []
        second.on_over(lambda: over.append("over"))
        here.answer = Permission(failed(), ValueError("why"))
        here.gate.set()
        await first.wait()
        await second.wait()
        assert (here.asked, over, first.is_over) == (2, ["over"], True)
        await eventually(lambda: here.reported == [guest.session.id])


async def test_who_is_not_in_the_room_is_not_asked_about_and_a_stop_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        here = Asked(place)
        assert here.questions.put([(guest.session, ROOM)], is_urgent=False).is_over
        here.gate.clear()
        waiting = here.questions.put([await member(guest)], is_urgent=False)
        await eventually(lambda: here.asked)
        await here.questions.stop()
        await waiting.wait()
        assert not here.questions._open
        here.questions.abandon()
