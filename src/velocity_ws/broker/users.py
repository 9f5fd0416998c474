"""Users: what they are called, which client belongs to which, and which are expected. Knows no room and no hook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from velocity_ws.broker.presence import Presence
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import ClientError, HookError, InvalidNameError
from velocity_ws.messages.names import validate_user_id
from velocity_ws.sessions.accept import Accept
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.logins import Login, Logins
from velocity_ws.sessions.session import Session

__all__ = ["Users", "user_id_of"]


class Authorizes(Protocol):
    """What is told that a client has become another user's, or that its user is another object. It may refuse rooms."""

    async def user_changed(self, session: Session) -> None:
        """Ask again who may be in the rooms that a client is in; return when it is out of those that refuse it."""

    def refuse_inside(self, call: str) -> None:
        """Refuse a call, of that name, which an ``authorize`` makes and which would wait for its answer.

        Raises:
            HookError: it is one.
        """


class Users:
    """The users of this node's clients. On the broker's loop only.

    Attributes:
        expected: clients that are about to be accepted, their ids by that of their user.
        authorization: is told of clients whose user has changed; ``None`` where no room asks who may be in it.
    """

    def __init__(
        self, name: Callable[[Any], str | int | None], hub: Hub[Session], hints: Hints, logins: Logins[Session]
    ) -> None:
        """
        Args:
            name: the application's function, or `user_id_of`, that says what a user is called.
            hub: the clients of this node.
            hints: told of users that have no name.
            logins: told of logins that end.
        """
        self._name = name
        self._hub = hub
        self._hints = hints
        self._logins = logins
        self.authorization: Authorizes | None = None
        self._cluster: Cluster | None = None
        self._presence: Presence | None = None
        self.expected: dict[str, set[str]] = {}

    def begin(self, cluster: Cluster | None, presence: Presence | None) -> None:
        """Tell a cluster and presence of changes from now on, where there are such."""
        self._cluster = cluster
        self._presence = presence

    def end(self) -> None:
        """Tell nobody any more."""
        self._cluster = self._presence = None

    def id_of(self, user: Any) -> str | None:
        """What a user is called.

        Raises:
            InvalidNameError: what the application calls it is no name.
            Exception: whatever the application's function raises.
        """
        if user is None:
            return None
        user_id = validate_user_id(self._name(user))
        if user_id is None and self._name is user_id_of:
            self._hints.no_user_id(type(user))
        return user_id

    async def set_user(self, session: Session, user: Any, expires_at: datetime | None) -> None:
        """Make a client of this node another user's, or nobody's, as `Client.set_user` says.

        Args:
            session: the client's.
            user: the user, or ``None``.
            expires_at: when the login ends, in UTC.
        """
        if self.authorization is not None:
            self.authorization.refuse_inside("client.set_user")
        user_id = self._new_id_of(session, user)
        ended = session.login is not None
        self._change(session, user, user_id, self._logins.new(expires_at))
        if ended or session.login is not None:
            self._logins.tell(session)
        await self._changed(session, user_id)

    async def refresh(self, client: Client, ask: Callable[[], Awaitable[Any]]) -> dict[str, Any] | None:
        """Renew a client's login, as ``refresh`` says.

        Args:
            client: the client that asks for it.
            ask: calls the application's hook, which says who it is.

        Returns:
            The answer: ``expires_in``, in seconds, where the new login ends; ``None`` where the client has gone.

        Raises:
            ClientError: the login is not renewed, and as it was; or whatever the hook raises.
        """
        session = self._hub.get(client.id)
        if session is None:
            return None
        if client.user is None:
            raise ClientError("UNAUTHORIZED", "nobody is logged in, so that there is no login to renew")
        with self._logins.renewing(session):
            result = await ask()
            accept = result if isinstance(result, Accept) else Accept(result)
            if accept.user is None:
                raise ClientError("UNAUTHORIZED", "the login was not renewed")
            if not session.is_connected:
                return None
            user_id = self._new_id_of(session, accept.user)
            # Looked at when the hook has answered: the client may have become another's meanwhile.
            if client.user is None or user_id != client.user_id:
                raise ClientError("FORBIDDEN", "a login is renewed for its own user alone; connect anew as another")
            self._change(session, accept.user, user_id, self._logins.new(accept.expires_at))
        await self._changed(session, user_id)
        expires_in = self._logins.tell(session)
        return {} if expires_in is None else {"expires_in": expires_in}

    def _new_id_of(self, session: Session, user: Any) -> str | None:
        try:
            return self.id_of(user)
        except InvalidNameError:
            raise
        except Exception as error:
            raise HookError(
                f"user_id failed, so that the user of client {session.id} is as before: {error!r}"
            ) from error

    def _change(self, session: Session, user: Any, user_id: str | None, login: Login | None) -> None:
        """Have all of this node know a client's new user, without waiting: of several that are set at once, the last
        one holds."""
        had_login = session.login is not None
        session.client.identify(user, user_id, login)
        if login is not None or had_login:
            self._logins.watch(session)
        self._hub.set_user(session.id, user_id)
        if self._presence is not None:
            self._presence.user_changed(session)

    async def _changed(self, session: Session, user_id: str | None) -> None:
        """Have rooms ask again who may be in them, and be sure to hear what other nodes send to the user."""
        if self.authorization is not None:
            await self.authorization.user_changed(session)
        if self._cluster is not None and user_id is not None:  # which has begun before, so that the waits overlap
            await self._cluster.wait_subscribed("user", user_id)

    async def expect(self, session: Session) -> None:
        """A client is about to be accepted: be sure to hear what is sent to its user from then on."""
        user_id = session.user_id
        if user_id is not None and self._cluster is not None:
            self.expected.setdefault(user_id, set()).add(session.id)
            self._cluster.subscribe("user", user_id)
            await self._cluster.wait_subscribed("user", user_id)

    def expect_no_more(self, session: Session) -> None:
        """That client is there, or does not come. Harmless for others, of which there is nothing in `expected`."""
        user_id = session.user_id
        waiting = self.expected.get(user_id or "", set())
        if user_id is None or session.id not in waiting:
            return
        waiting.remove(session.id)
        if not waiting:
            del self.expected[user_id]
            if self._cluster is not None and not self._hub.user_members(user_id):
                self._cluster.unsubscribe("user", user_id)


def user_id_of(user: Any) -> str | None:
    """What a user is called: itself, where it is a string or number, else its ``id``, ``user_id`` or ``sub``."""
    if user is None or isinstance(user, str):
        return user or None
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)
    for name in ("id", "user_id", "sub"):
        found = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if found is not None:
            return str(found)
    return None
