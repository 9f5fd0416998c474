"""Logins: who is told of the end of its login, how long it has to renew it, and what the wall clock means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.support import eventually
from tests.support.clocks import HandClock, looks_often
from velocity_ws.close import SESSION_EXPIRED, Goodbye
from velocity_ws.errors import LoginExpired
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.logins import Login, Logins

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
GRACE = 10.0


class Session:
    """Only what logins need of one."""

    def __init__(self, logins: Logins[Session]) -> None:
        self.login: Login | None = None
        self.token: str | None = None
        self.asks_to_renew = False
        self.said: list[Any] = []
        self._logins = logins

    def offer(self, message: PreparedMessage) -> bool:
        self.said.append(message.text)
        return True

    def close(self, goodbye: Goodbye) -> None:
        self.said.append(goodbye)
        self._logins.forget(self)


class Site:
    """The logins, and both clocks."""

    def __init__(self) -> None:
        self.clock, self.wall_clock = HandClock(), HandClock(NOON.timestamp())
        self.logins: Logins[Session] = Logins(self.clock, GRACE, self.wall_clock)

    def session(self, seconds: float | None) -> Session:
        """One whose login ends after so many seconds."""
        session = Session(self.logins)
        self.login(session, seconds)
        return session

    def login(self, session: Session, seconds: float | None) -> None:
        """Another login."""
        at = self.wall_clock.now
        session.login = self.logins.new(None if seconds is None else datetime.fromtimestamp(at + seconds, UTC))
        self.logins.watch(session)


@pytest_asyncio.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    looks_often(monkeypatch)
    site = Site()
    yield site
    site.logins.end()
    assert len(site.logins) == 0


EXPIRED = '{"event":"session_expired","data":null}'


async def test_a_login_that_ends_is_told_once_and_the_client_closed_when_its_grace_is_over(site: Site) -> None:
    one, other = site.session(60), site.session(61)
    site.clock.advance(60)
    await eventually(lambda: one.said)
    assert (one.said, other.said) == ([EXPIRED], [])
    site.clock.advance(GRACE - 0.5)
    await eventually(lambda: other.said)
    assert (one.said, other.said) == ([EXPIRED], [EXPIRED])
    site.clock.advance(0.5)
    await eventually(lambda: len(one.said) == 2)
    assert one.said == [EXPIRED, SESSION_EXPIRED] == [EXPIRED, (4401, "session expired")]
    assert len(site.logins) == 1


async def test_a_wall_clock_that_jumps_changes_nothing(site: Site) -> None:
    session = site.session(60)
    for jump in (10**6, -(10**7)):
        site.wall_clock.advance(jump)
        assert site.logins.tell(session) == 60
    site.clock.advance(59)
    later = site.session(60)  # by the wall clock as it is now
    site.clock.advance(1)
    await eventually(lambda: EXPIRED in session.said)
    assert later.said == []


async def test_what_is_over_already_is_refused(site: Site) -> None:
    for at in (NOON, NOON - timedelta(seconds=1), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(LoginExpired) as caught:
            site.logins.new(at)
        assert caught.value.seconds == (NOON - at).total_seconds()
        assert caught.value.code == "UNAUTHORIZED"
    assert site.logins.new(None) is None


async def test_the_last_year_there_is_comes_to_no_harm(site: Site) -> None:
    session = Session(site.logins)
    session.login = site.logins.new(datetime.max.replace(tzinfo=UTC))
    site.logins.watch(session)
    assert (site.logins.tell(session) or 0) > 7000 * 365 * 86400
    await asyncio.sleep(0)
    assert len(site.logins) == 1


async def test_what_is_told_is_never_more_than_is_left(site: Site) -> None:
    session = site.session(1.99999)
    assert site.logins.tell(session) == 1.999
    site.clock.advance(5)
    assert site.logins.tell(session) == 0
    site.login(session, None)
    assert site.logins.tell(session) is None
    assert session.said[-1] == '{"event":"session","data":{}}'


async def test_who_renews_in_time_is_told_of_the_new_end_and_who_is_gone_of_none(site: Site) -> None:
    renewed, ends_never, gone = site.session(60), site.session(60), site.session(60)
    site.clock.advance(60)
    await eventually(lambda: all(session.said for session in (renewed, ends_never, gone)))
    site.login(renewed, 100)
    site.login(ends_never, None)
    site.logins.forget(gone)
    other = site.session(99)
    site.clock.advance(99)
    await eventually(lambda: other.said)
    site.logins.forget(other)
    assert renewed.said == ends_never.said == gone.said == [EXPIRED]
    site.clock.advance(1)
    await eventually(lambda: renewed.said == [EXPIRED, EXPIRED])
    assert len(site.logins) == 1


@pytest.mark.parametrize("is_renewed", [True, False])
async def test_who_has_asked_in_time_is_not_closed_until_it_is_decided(site: Site, is_renewed: bool) -> None:
    session = site.session(60)
    site.clock.advance(60)
    await eventually(lambda: session.said)
    with site.logins.renewing(session):
        site.clock.advance(1.5 * GRACE)
        await eventually(lambda: site.logins._told[session])
        assert session.said == [EXPIRED]
        if is_renewed:
            site.login(session, 60)
    await eventually(lambda: is_renewed or len(session.said) == 2)
    assert session.said == ([EXPIRED] if is_renewed else [EXPIRED, SESSION_EXPIRED])
    assert len(site.logins) == is_renewed


async def test_whose_request_to_renew_waits_is_not_closed_before_it_is_handled_or_the_time_is_over_again(
    site: Site,
) -> None:
    session = site.session(60)
    site.clock.advance(60)
    await eventually(lambda: session.said)
    session.asks_to_renew = True
    site.clock.advance(GRACE)
    await eventually(lambda: site.logins._told[session])
    assert session.said == [EXPIRED]
    site.clock.advance(GRACE)
    await eventually(lambda: len(session.said) == 2)
    assert session.said == [EXPIRED, SESSION_EXPIRED]


async def test_a_decision_that_never_comes_does_not_keep_the_client(site: Site) -> None:
    session = site.session(60)
    site.clock.advance(60)
    await eventually(lambda: session.said)
    with site.logins.renewing(session):
        site.clock.advance(GRACE)
        await eventually(lambda: site.logins._told[session])
        site.clock.advance(GRACE)
        await eventually(lambda: len(session.said) == 2)
    assert session.said == [EXPIRED, SESSION_EXPIRED]


async def test_who_is_ended_by_what_it_is_told_leaves_nothing_behind(site: Site) -> None:
    class Slow(Session):
        def offer(self, message: PreparedMessage) -> bool:
            self.close((1013, "too slow"))
            return False

    session = Slow(site.logins)
    site.login(session, 60)
    site.clock.advance(60)
    await eventually(lambda: session.said)
    assert session.said == [(1013, "too slow")]
    assert (len(site.logins), site.logins._told) == (0, {})
