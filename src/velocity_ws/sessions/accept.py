"""Accept: what ``authenticate`` may return in place of a user, checked where it is made. Knows no client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from velocity_ws.errors import InvalidExpiryError, InvalidHeaderError
from velocity_ws.headers import is_token, problem_of_header

__all__ = ["Accept", "ExpiresAt", "HeaderSource"]

ExpiresAt: TypeAlias = datetime | float | None
"""When a login ends: an aware datetime, or Unix seconds; ``None`` for never."""
HeaderSource: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""Headers: a mapping (Starlette's may have a name several times), or pairs of a name and a value."""

UserT_co = TypeVar("UserT_co", covariant=True, default=Any)

_LAST = 253_402_300_799  # the last second of the year 9999, which is as far as a datetime goes
_MIN, _MAX = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Accept(Generic[UserT_co]):
    """Return it from ``authenticate`` in place of the user, to say more of the login; from ``refresh``, too.

    Attributes:
        user: becomes ``client.user``; ``None`` lets the client in as nobody.
        expires_at: when the login ends, in UTC; ``None`` for never.
        subprotocol: to select where the client offers it, and none of ``WS_SUBPROTOCOLS``.
        headers: sent with the answer to the handshake, names in lower case.
    """

    __slots__ = ("expires_at", "headers", "subprotocol", "user")

    def __init__(
        self,
        user: UserT_co | Accept[UserT_co],
        expires_at: ExpiresAt = None,
        subprotocol: str | None = None,
        headers: HeaderSource | None = None,
    ) -> None:
        """
        Args:
            user: the user; or another `Accept`, of which this takes the user alone.
            expires_at: when the login ends: an aware datetime, or Unix seconds, such as the ``exp`` of a JWT.
            subprotocol: one that the client may have offered. If it has not, none is sent, as RFC 6455 demands of
                servers (section 4.2.2), and by section 4.1 clients would fail the connection.
            headers: a mapping, or pairs where a name comes several times, as ``Set-Cookie`` may: those of a Starlette
                or FastAPI ``Response`` fit. ``Content-Length`` is left out, as there is no body. ``refresh`` sends
                none of them.

        Raises:
            InvalidExpiryError: ``expires_at`` is no such time, or nobody is logged in.
            InvalidHeaderError: a header or the subprotocol cannot be sent.
        """
        self.user: UserT_co = user.user if isinstance(user, Accept) else user
        self.expires_at = _parse_expiry(self.user, expires_at)
        if subprotocol is not None and not is_token(subprotocol):
            raise InvalidHeaderError(f"a subprotocol is letters, digits and !#$%&'*+-.^_`|~ alone, not {subprotocol!r}")
        self.subprotocol = subprotocol
        self.headers = [] if headers is None else _parse_headers(headers)

    def __repr__(self) -> str:
        return f"<Accept until {self.expires_at}>"  # no user, which may hold anything, and no cookie


def _parse_expiry(user: object, expires_at: ExpiresAt) -> datetime | None:
    """When a login ends, in UTC; ``None`` for never.

    Args:
        user: who is logged in.
        expires_at: as the application says it.

    Raises:
        InvalidExpiryError: it is neither an aware datetime nor Unix seconds; or nobody is logged in.
    """
    if expires_at is None:
        return None
    if user is None:
        raise InvalidExpiryError("expires_at is the end of a login, and there is none without a user: leave it out")
    if isinstance(expires_at, datetime):
        if expires_at.utcoffset() is None:
            raise InvalidExpiryError(
                f"{expires_at!r} has no time zone, so that it is another time on each server: use datetime.now(UTC)"
            )
        return _in_utc(expires_at)
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise InvalidExpiryError(f"expires_at is an aware datetime, or Unix seconds, and not {expires_at!r:.80}")
    if not 0 <= expires_at <= _LAST:  # which NaN is not either
        hint = "; Unix time is in seconds, and these look like milliseconds" if expires_at > _LAST else ""
        raise InvalidExpiryError(f"expires_at is between 1970 and the year 9999, and not {expires_at!r:.80}{hint}")
    return datetime.fromtimestamp(expires_at, UTC)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # within hours of what datetimes can say
        return _MAX if time.year > 1 else _MIN


def _parse_headers(source: HeaderSource) -> list[tuple[bytes, bytes]]:
    pairs = source.items() if isinstance(source, Mapping) else source
    found: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        name, value = _texts(pair)
        if name == "content-length":
            continue
        if problem := problem_of_header(name, value):
            raise InvalidHeaderError(problem)
        found.append((name.encode(), value.encode("latin-1")))
    return found


def _texts(pair: object) -> tuple[str, str]:
    """A header's name in lower case, and its value without the spaces around it."""
    match pair:
        case (str() | bytes() as name, str() | bytes() as value):
            return _text(name).lower(), _text(value).strip(" \t")
    raise InvalidHeaderError("headers are a mapping, or pairs of a name and a value, each of them text")


def _text(part: str | bytes) -> str:
    return part if isinstance(part, str) else part.decode("latin-1")
