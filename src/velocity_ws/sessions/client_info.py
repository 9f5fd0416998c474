"""ClientInfo: what is known of a client, and what the application keeps with it. Sends nothing, waits for nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Generic, Never, NoReturn

from starlette.requests import HTTPConnection
from typing_extensions import TypeVar

from velocity_ws.concurrency.portal import Portal
from velocity_ws.hooks.injected import InjectedType
from velocity_ws.messages.ids import new_client_id
from velocity_ws.sessions.client_session import ClientSession
from velocity_ws.sessions.logins import Login

__all__ = ["ClientInfo", "UserT"]

UserT = TypeVar("UserT", default=Any)
"""What ``client.user`` is; ``Any`` where nobody says it."""


class ClientInfo(InjectedType, Generic[UserT]):
    """The half of `Client` that waits for nothing. `set_data` and `get_data` are as safe as a dict.

    Attributes:
        id: unguessable, unique, new for each connection.
        request: the handshake: ``headers``, ``query_params``, ``cookies``, ``url``.
        connected_at: when the handshake arrived, in UTC.
        subprotocol: the one of ``WS_SUBPROTOCOLS`` that was selected, or ``None``.
    """

    injected_as = "client"
    subprotocol: str | None = None
    _login: Login | None = None  # nor has every client one

    def __init__(self, request: HTTPConnection, portal: Portal, session: ClientSession, node_id: str) -> None:
        self.id = new_client_id(node_id)
        self.request = request
        self._user: Any = None
        self._user_id: str | None = None
        self.connected_at = datetime.now(UTC)
        self._portal = portal
        self._session = session
        self._data: dict[str, Any] | None = None  # as most clients have none

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.remote_addr}>"

    @property
    def user(self) -> UserT:
        """What the ``authenticate`` hook returned, or what `set_user` was given; ``None`` if nobody is logged in."""
        user: UserT = self._user
        return user

    @user.setter
    def user(self, user: Never) -> None:  # noqa: ARG002 - for type checkers: nothing can be assigned
        _read_only("user")

    @property
    def user_id(self) -> str | None:
        """The id of the user, as ``to_user`` and presence use it; ``None`` if there is none."""
        return self._user_id

    @user_id.setter
    def user_id(self, user_id: Never) -> None:  # noqa: ARG002 - the same
        _read_only("user_id")

    @property
    def expires_at(self) -> datetime | None:
        """When the client's login ends, in UTC, as `Accept` or `set_user` said it; ``None`` if it does not.

        After that time the client is still served for ``WS_EXPIRY_GRACE``, unless it renews its login.
        """
        return None if self._login is None else self._login.expires_at

    @expires_at.setter
    def expires_at(self, expires_at: Never) -> None:  # noqa: ARG002 - the same
        _read_only("expires_at")

    @property
    def remote_addr(self) -> str:
        """``"ip:port"`` as the server and its proxy settings report it; ``""`` if there is none (a Unix socket)."""
        address = self.request.client
        return _join(address.host, address.port) if address is not None and address.host else ""

    @property
    def user_agent(self) -> str:
        """The ``User-Agent`` header; ``""`` if there is none."""
        agent: str = self.request.headers.get("user-agent", "")
        return agent

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent to it; false from the moment it disconnects or is disconnected."""
        return self._session.is_connected

    @property
    def is_dismissed(self) -> bool:
        """Whether the server has closed the connection, so that no further message is handled."""
        return self._session.is_dismissed

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that the client is in; while ``on_disconnect`` runs, those it was in before."""
        return self._session.rooms

    def set_data(self, key: str, value: Any) -> None:
        """Keep a value with the client, for as long as it is connected. As safe as a dict."""
        if self._data is None:
            self._data = {}
        self._data[key] = value

    def get_data(self, key: str, default: Any = None) -> Any:
        """Return what `set_data` kept under a key, or the default. As safe as a dict."""
        return default if self._data is None else self._data.get(key, default)

    def detach(self, session: ClientSession) -> None:
        """Replace the ended session by one that only counts dropped messages. On the broker's loop only."""
        self._session = session

    def identify(self, user: Any, user_id: str | None, login: Login | None) -> None:
        """Set the user, and when its login ends, without telling anybody. On the broker's loop only."""
        self._user = user
        self._user_id = user_id
        if login is not self._login:
            self._login = login


def _read_only(name: str) -> NoReturn:
    raise AttributeError(
        f"client.{name} is read-only; await client.set_user(user, expires_at) logs a client in, over or out (None)"
    )


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
