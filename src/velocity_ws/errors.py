"""Errors: the tree of exceptions that the package raises. Knows nothing of what raises them."""

from __future__ import annotations

import re
from typing import Any, Literal

from velocity_ws.close import problem_of_close

__all__ = [
    "BackplaneUnavailable",
    "BrokerError",
    "ClientError",
    "ClientGone",
    "ClientIdError",
    "ClientNotFound",
    "ClientTimeout",
    "EncodeError",
    "HookError",
    "InvalidCloseError",
    "InvalidNameError",
    "InvalidPathError",
    "Reject",
    "ServerError",
    "SettingsError",
    "VelocityError",
    "WouldDeadlockError",
    "validate_close",
]

_ID = re.compile(r"[\w-]{11}\.[\w-]{22}", re.ASCII)


class VelocityError(Exception):
    """The root of every exception this package raises."""


class SettingsError(VelocityError, ValueError):
    """A setting that cannot be used.

    Attributes:
        problems: for each bad setting, its variable (``WS_PORT``) and what is wrong with it.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        lines = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        super().__init__(f"unusable settings:{lines}")


class HookError(VelocityError, TypeError):
    """A function of the application that cannot be used: as a hook, which is said where it is registered, or for
    ``user_id`` or ``presence`` of a broker."""


class EncodeError(VelocityError, TypeError):
    """A message that cannot be sent because its data has no JSON form. Nothing was sent.

    Attributes:
        event: the name of the message.
    """

    def __init__(self, event: str, why: str) -> None:
        self.event = event
        super().__init__(
            f"the data of event {event!r} cannot be sent as JSON: {why}. "
            "Send what JSON has, a dataclass, a pydantic model, a datetime or a UUID."
        )


class InvalidNameError(VelocityError, ValueError):
    """A name of a room, an event or a broker that it cannot have."""


class InvalidPathError(VelocityError, ValueError):
    """A path that nothing can be served at."""


class InvalidCloseError(VelocityError, ValueError):
    """A close code that may not be sent, or a reason that does not fit into a close frame."""


class ClientIdError(VelocityError, TypeError):
    """Something else was given where a client's id belongs."""

    def __init__(self, call: str, given: object) -> None:
        super().__init__(f"{call} takes the client's id, a string: pass client.id, and not {given!r:.80}")


class ClientNotFound(VelocityError, LookupError):
    """No client of that id is connected.

    Attributes:
        client_id: the id that was asked for.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        hint = "" if _ID.fullmatch(client_id) else ". A client's id looks otherwise; it is join_room(client_id, room)"
        super().__init__(
            f"no client {client_id!r} is connected; it may have left: ask is_connected(id) first, or catch this{hint}"
        )


class ClientGone(VelocityError, ConnectionError):
    """The client went, or was closed, before it could be sent what it was to get.

    Attributes:
        client_id: the client's.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        super().__init__(f"client {client_id!r} has gone; there is nobody to send to: end what was being done for it")


class ClientTimeout(VelocityError, TimeoutError):
    """The client did not read what waits for it in time.

    Attributes:
        client_id: the client's.
        seconds: how long it was waited for.
    """

    def __init__(self, client_id: str, seconds: float) -> None:
        self.client_id = client_id
        self.seconds = seconds
        super().__init__(
            f"client {client_id!r} did not read what waits for it within {seconds:g} s; "
            "send it less, or give it a longer timeout"
        )


class BrokerError(VelocityError, RuntimeError):
    """The broker is not in a state in which it can do that."""


class WouldDeadlockError(BrokerError):
    """A blocking call on the broker's own event loop, which would wait for itself."""


class BackplaneUnavailable(VelocityError, ConnectionError):
    """A message, or a question, did not reach the other nodes as far as is known. The clients of this one got theirs.

    Attributes:
        outcome: ``refused``: no other node got it; ``unknown``: it was handed to the engine, which did not confirm
            it in time, so they may have. Nothing is sent a second time by itself.
    """

    def __init__(self, reason: str, outcome: Literal["refused", "unknown"] = "refused") -> None:
        self.outcome = outcome
        hint = "it reached no other node" if outcome == "refused" else "whether it reached other nodes is not known"
        super().__init__(f"{reason}; {hint}. Catch this, or ask broker.healthy, to tell users")


class ServerError(VelocityError, RuntimeError):
    """The server could not be started, or was asked for something only a running one has."""


class Reject(VelocityError):
    """Raise it in an ``authenticate`` hook to refuse a connection.

    Args:
        reason: short text for the client; the body of the response, or the reason of the close frame.
        status: the HTTP status that answers the handshake, 400 to 599. A browser's script cannot read it.
        code: a close code. Where it is given the handshake is accepted and closed with it at once, because
            that is the only refusal a browser can read. 4000 to 4999 are the application's own.

    Raises:
        InvalidCloseError: the status or the code may not be sent, or the reason is too long for a close frame.
    """

    def __init__(self, reason: str = "", status: int = 403, *, code: int | None = None) -> None:
        if code is not None:
            validate_close(code, reason)
        elif not 400 <= status <= 599:
            raise InvalidCloseError(f"a refusal is answered with a status from 400 to 599, not {status}")
        self.reason = reason
        self.status = status
        self.code = code
        super().__init__(reason or f"refused with {code or status}")


class ClientError(VelocityError):
    """Raise it in a message hook to answer ``event: "error"`` and end that message. It is no failure of yours.

    Args:
        code: upper-case name of the error, such as ``UNAUTHORIZED``.
        message: what the client's developer should read.
        details: more fields for the error's data; they cannot replace ``code`` and ``message``.
    """

    def __init__(self, code: str, message: str = "", /, **details: Any) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{code}: {message}" if message else code)


def validate_close(code: int, reason: str) -> None:
    """Check what is to go into a close frame.

    Raises:
        InvalidCloseError: the code may not appear in one, or the reason is too long for it.
    """
    problem = problem_of_close(code, reason)
    if problem is not None:
        raise InvalidCloseError(problem)
