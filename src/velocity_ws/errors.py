"""Errors: the tree of exceptions that the package raises. Knows nothing of what raises them.

* `VelocityError`
    * `SettingsError` (a ``ValueError``): settings that cannot be used
    * `HookError` (a ``TypeError``): a function that cannot be a hook
    * `BrokerError` (a ``RuntimeError``): a call that the broker's state does not allow
        * `WouldDeadlockError`: a blocking call on the broker's loop
    * `ServerError` (a ``RuntimeError``): a server that cannot start, or does not run
    * `BackplaneUnavailable` (a ``ConnectionError``): the other nodes were not reached
    * `UpstreamError` (a ``RuntimeError``): what an adapter reads has failed
    * what a call was given:
        * `EncodeError` (a ``TypeError``): data without a JSON form
        * `ClientIdError` (a ``TypeError``): something else than a client's id
        * `InvalidNameError` (a ``ValueError``): a name of a room, an event, a user or a broker
        * `InvalidPathError` (a ``ValueError``): a path of an endpoint
        * `InvalidCloseError` (a ``ValueError``): a close code or a reason
        * `InvalidExpiryError` (a ``ValueError``): when a login ends
        * `InvalidHeaderError` (a ``ValueError``): a header or a subprotocol of a handshake's answer
        * `HistoryError` (a ``ValueError``): a room that remembers nothing, or not what was asked of it
        * `StreamError`, and its own, in `velocity_ws.stream_errors`: a stream that is not what it was taken for
    * the client that a call was for:
        * `ClientNotFound` (a ``LookupError``): no client has this id
        * `ClientGone` (a ``ConnectionError``): it has gone
        * `ClientTimeout` (a ``TimeoutError``): it does not read, or not answer
    * raised by the application, in its hooks:
        * `Reject`: refuses a connection
        * `ClientError`: answers a message with an error
            * `LoginExpired`: raised by `Client.set_user`, where a login is over already
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from velocity_ws.close import problem_of_close
from velocity_ws.headers import problem_of_header

__all__ = [
    "BackplaneUnavailable", "BrokerError", "ClientError", "ClientGone", "ClientIdError", "ClientNotFound",
    "ClientTimeout", "EncodeError", "HistoryError", "HookError", "InvalidCloseError", "InvalidExpiryError",
    "InvalidHeaderError", "InvalidNameError", "InvalidPathError", "LoginExpired", "Reject", "ServerError",
    "SettingsError", "UpstreamError", "VelocityError", "WouldDeadlockError", "validate_close",
]  # fmt: skip

Outcome = Literal["refused", "unknown"]
HistoryReason = Literal["conflict", "evicted", "expired", "epoch", "rewound", "too_many", "forbidden"]
_ID = re.compile(r"[\w-]{11}\.[\w-]{22}", re.ASCII)


class VelocityError(Exception):
    """The base class of every exception that this package raises. Copied or pickled, it stays the same."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to copy it: an exception is copied by calling its class with the text, and ours take its parts."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[VelocityError], args: tuple[Any, ...], fields: dict[str, Any]) -> VelocityError:
    error = kind.__new__(kind, *args)
    error.args = args  # which OSError leaves to __init__, where a subclass has one
    error.__dict__.update(fields)
    return error


class SettingsError(VelocityError, ValueError):
    """One or more settings cannot be used.

    Attributes:
        problems: what is wrong with each bad setting, by its variable (``WS_PORT``).
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        lines = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        super().__init__(f"unusable settings:{lines}")


class HookError(VelocityError, TypeError):
    """A function cannot be used as a hook, or as a broker's ``user_id`` or ``presence``; raised as it is registered."""


class UpstreamError(VelocityError, RuntimeError):
    """What an adapter reads has failed, and says so in what it says: a model, its server, another backend.

    In a source of a stream it makes the end ``error``, as any exception does, and ``on_error`` gets it.
    """


class EncodeError(VelocityError, TypeError):
    """A message was not sent, as its data has no JSON form.

    Attributes:
        event: the event of the message.
    """

    def __init__(self, event: str, why: str) -> None:
        self.event = event
        super().__init__(
            f"the data of event {event!r} cannot be sent as JSON: {why}. "
            "Send what JSON has, a dataclass, a pydantic model, a datetime or a UUID."
        )


class InvalidNameError(VelocityError, ValueError):
    """A string is not allowed as the name of a room, an event, a user or a broker."""


class InvalidPathError(VelocityError, ValueError):
    """A path cannot be that of an endpoint."""


class InvalidCloseError(VelocityError, ValueError):
    """A close code may not be sent, or a reason does not fit into a close frame."""


class InvalidExpiryError(VelocityError, ValueError):
    """What was given as ``expires_at`` is no time at which a login can end."""


class InvalidHeaderError(VelocityError, ValueError):
    """A header, or a subprotocol, cannot be sent with the answer to a handshake."""


class HistoryError(VelocityError, ValueError):
    """What a room remembers does not allow the call: it has no history, or not what was asked of it. Nothing was sent.

    Uncaught with a reason, it answers what led to it as status 422 does: a message with ``INVALID_DATA``.

    Attributes:
        reason: ``conflict``: the key of ``dedupe`` stands for another message. ``evicted``, ``expired``, ``epoch``,
            ``rewound``, ``too_many``, ``forbidden``: why nothing can be had from a position on. Else ``None``.
    """

    def __init__(self, text: str, reason: HistoryReason | None = None) -> None:
        self.reason = reason
        super().__init__(text)


class ClientIdError(VelocityError, TypeError):
    """A call that takes a client's id was given something else."""

    def __init__(self, call: str, given: object) -> None:
        super().__init__(f"{call} takes the client's id, a string: pass client.id, and not {given!r:.80}")


class ClientNotFound(VelocityError, LookupError):
    """No client with this id is connected, on any node.

    Attributes:
        client_id: the id that was given.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        hint = "" if _ID.fullmatch(client_id) else ". A client's id looks otherwise; it is join_room(client_id, room)"
        super().__init__(
            f"no client {client_id!r} is connected; it may have left: ask is_connected(id) first, or catch this{hint}"
        )


class ClientGone(VelocityError, ConnectionError):
    """The client left, or was closed, before a message could be queued for it.

    Attributes:
        client_id: the id of the client.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        super().__init__(f"client {client_id!r} has gone; there is nobody to send to: end what was being done for it")


class ClientTimeout(VelocityError, TimeoutError):
    """The client did not read what is queued for it in time, or did not answer what it was asked.

    Attributes:
        client_id: the id of the client.
        seconds: how long the call waited at most.
        event: the event by which it was asked; ``None`` if it was only to read.
    """

    def __init__(self, client_id: str, seconds: float, event: str | None = None) -> None:
        self.client_id = client_id
        self.seconds = seconds
        self.event = event
        what = "read what waits for it" if event is None else f"answer {event!r}"
        then = "send it less" if event is None else "catch this, as a client may know no such question, or not read"
        super().__init__(
            f"client {client_id!r} did not {what} within {seconds:g} s; {then}, or give it a longer timeout"
        )


class BrokerError(VelocityError, RuntimeError):
    """The broker is in a state that does not allow the call, such as not started or stopped."""


class WouldDeadlockError(BrokerError):
    """A blocking call was made on the broker's own event loop, which would wait for itself."""


class BackplaneUnavailable(VelocityError, ConnectionError):
    """A message or a request to other nodes was not confirmed by the engine. The clients of this node got the message,
    unless it was for a room with history: it goes to all of them by the engine.

    Attributes:
        reason: why, in words.
        outcome: ``refused``: it reached no other node, or was not done. ``unknown``: the engine took it and did not
            confirm it in time, so it may have reached them. The package never sends it a second time.
        nodes: the ids of the nodes that did not confirm, where it is known which.
    """

    def __init__(
        self, reason: str, outcome: Outcome = "refused", nodes: Iterable[str] = (), *, hint: str | None = None
    ) -> None:
        self.reason = reason
        self.outcome = outcome
        self.nodes = tuple(nodes)
        refused = "it reached no other node"
        hint = hint or (refused if outcome == "refused" else "whether it reached other nodes is not known")
        super().__init__(f"{reason}; {hint}. Catch this, or ask broker.healthy, to tell users")


class ServerError(VelocityError, RuntimeError):
    """The server could not be started, or was asked for something that only a running server has."""


class Reject(VelocityError):
    """Raise it in an ``authenticate`` hook to refuse a connection, in ``on_connect`` to close it (4000 and the status).

    In handlers and hooks for messages it is an answer: ``UNAUTHORIZED`` for 401 or 4401, ``FORBIDDEN`` for 403.

    Args:
        reason: short text for the client; the body of the response, or the reason of the close frame.
        status: the HTTP status that answers the handshake, 400 to 599. A script in a browser cannot read it.
        code: a close code, 4000 to 4999 for the application's own. If it is given, the handshake is accepted, and the
            connection closed with the code at once: no other refusal can be read by a script in a browser.
        headers: of the response, as ``WWW-Authenticate``, or with a code of the acceptance, as a ``Set-Cookie`` that
            clears one; not where a server has no response for a refusal.

    Raises:
        InvalidCloseError: the status or the code may not be sent, or the reason is longer than 123 bytes of UTF-8.
        InvalidHeaderError: a header cannot be sent.
    """

    def __init__(
        self,
        reason: str = "",
        status: int = 403,
        *,
        code: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if code is not None:
            validate_close(code, reason)
        elif not 400 <= status <= 599:
            raise InvalidCloseError(f"a refusal is answered with a status from 400 to 599, not {status}")
        self.reason = reason
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        for name, value in self.headers.items():
            if problem := problem_of_header(name.lower(), value):
                raise InvalidHeaderError(problem)
        super().__init__(reason or f"refused with {code or status}")


class ClientError(VelocityError):
    """Raise it in a message hook to answer with ``event: "error"`` and end the handling of that message.

    It is not logged as a failure of the application.

    Args:
        code: the upper-case name of the error, such as ``UNAUTHORIZED``.
        message: what is wrong, for the client's developer.
        details: more fields of the error's data; they cannot replace ``code`` and ``message``.
    """

    def __init__(self, code: str, message: str = "", /, **details: Any) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{code}: {message}" if message else code)


class LoginExpired(ClientError):
    """A login is over before it has begun: ``expires_at`` has passed. Nothing has changed.

    It is a `ClientError` with the code ``UNAUTHORIZED``, so that a client whose message led to it is answered so.

    Attributes:
        seconds: since when it is over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__("UNAUTHORIZED", "this login has expired; log in again")


def validate_close(code: int, reason: str) -> None:
    """Check the code and the reason of a close frame.

    Raises:
        InvalidCloseError: the code may not be sent, or the reason is longer than 123 bytes of UTF-8.
    """
    problem = problem_of_close(code, reason)
    if problem is not None:
        raise InvalidCloseError(problem)
