"""Users: what they are called, which client belongs to which, and which are expected. Knows no room and no hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from velocity_ws.broker.presence import Presence
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import HookError, InvalidNameError
from velocity_ws.messages.names import validate_user_id
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session

__all__ = ["Users", "user_id_of"]


class Users:
    """The users of this node's clients. On the broker's loop only.

    Attributes:
        expected: clients that are about to be accepted, their ids by that of their user.
    """

    def __init__(self, name: Callable[[Any], str | int | None], hub: Hub[Session], hints: Hints) -> None:
        """
        Args:
            name: the application's function, or `user_id_of`, that says what a user is called.
            hub: the clients of this node.
            hints: told of users that have no name.
        """
        self._name = name
        self._hub = hub
        self._hints = hints
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

    async def set_user(self, session: Session, user: Any) -> None:
        """Make a client of this node another user's, or nobody's, as `Client.set_user` says."""
        try:
            user_id = self.id_of(user)
        except InvalidNameError:
            raise
        except Exception as error:
            raise HookError(
                f"user_id failed, so that the user of client {session.id} is as before: {error!r}"
            ) from error
        session.client.identify(user, user_id)
        if self._hub.set_user(session.id, user_id) and self._presence is not None:
            self._presence.changed(self._hub.rooms_of(session.id))
        if self._cluster is not None and user_id is not None:
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
