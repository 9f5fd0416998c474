"""Client: one connected person or program, as the application sees it. Knows no server and no socket."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Never, NoReturn

from starlette.requests import HTTPConnection

from velocity_ws.close import Goodbye
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import ClientGone, ClientNotFound, ClientTimeout, validate_close
from velocity_ws.logs import quote
from velocity_ws.messages.ids import new_client_id
from velocity_ws.messages.outbound import PreparedMessage, encode, encode_bytes
from velocity_ws.sessions.client_session import ClientSession

WAIT_TIMEOUT = 30.0
"""Seconds that `Client.send` with ``wait``, and `Client.drained`, wait for a client to read, unless they are told."""

__all__ = ["Client", "SyncClient", "describe"]


class Client:
    """A connected client. Hooks get it; `Broker.get_client` finds it.

    Its methods may be awaited on any event loop; ``client.sync`` has them in a blocking form for plain threads.
    `set_data` and `get_data` belong to the application and are as safe as a dict.

    Attributes:
        id: unguessable, unique, new for each connection.
        request: the handshake: ``headers``, ``query_params``, ``cookies``, ``url``.
        connected_at: when the handshake arrived, in UTC.
        subprotocol: which of WS_SUBPROTOCOLS was selected, or ``None``.
    """

    subprotocol: str | None = None

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
    def user(self) -> Any:
        """What the ``authenticate`` hook returned, or `set_user` was given; ``None`` where nobody is logged in."""
        return self._user

    @user.setter
    def user(self, user: Never) -> None:  # noqa: ARG002 - for type checkers: nothing can be assigned
        _read_only("user")

    @property
    def user_id(self) -> str | None:
        """The user's name, as ``to_user`` and presence know it; ``None`` where there is none."""
        return self._user_id

    @user_id.setter
    def user_id(self, user_id: Never) -> None:  # noqa: ARG002 - the same
        _read_only("user_id")

    @property
    def remote_addr(self) -> str:
        """``"ip:port"`` as the server and its proxy settings report it; ``""`` where there is none (a Unix socket)."""
        address = self.request.client
        return _join(address.host, address.port) if address is not None and address.host else ""

    @property
    def user_agent(self) -> str:
        """The header of that name, or ``""``."""
        agent: str = self.request.headers.get("user-agent", "")
        return agent

    @property
    def sync(self) -> SyncClient:
        """The blocking form of the methods that are awaited, for plain threads."""
        return SyncClient(self, self._portal)

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent to it; false from the moment it disconnects or is disconnected."""
        return self._session.is_connected

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it, so that nothing more of it is handled."""
        return self._session.is_dismissed

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in; while ``on_disconnect`` runs, those it was in when it left."""
        return self._session.rooms

    def set_data(self, key: str, value: Any) -> None:
        """Keep something with the client, for as long as it is connected."""
        if self._data is None:
            self._data = {}
        self._data[key] = value

    def get_data(self, key: str, default: Any = None) -> Any:
        """What `set_data` kept, or the default."""
        return default if self._data is None else self._data.get(key, default)

    async def send(self, event: str, data: Any = None, *, wait: bool = False, timeout: float = WAIT_TIMEOUT) -> bool:
        """Send a message to this client.

        Args:
            event: its name.
            data: what it says.
            wait: whether to wait until nothing else is queued for the client, so that a snapshot of any size, sent in
                pieces, reaches a client that reads. A piece may be larger than ``WS_SEND_QUEUE_SIZE``.
            timeout: seconds to wait at most. Then the message is dropped and ``WS_SLOW_CLIENT`` decides, which it
                does at once without ``wait``.

        Returns:
            Whether it was queued: false where the client has gone or is too slow, which is counted as dropped.

        Raises:
            InvalidNameError: the event name is empty or too long.
            EncodeError: the data has no JSON form.
            ClientGone: with ``wait``: the client has gone.
            ClientTimeout: with ``wait``: it did not read in time.
        """
        message = encode(event, data)
        if wait:
            return await self._portal.run(self._put, message, timeout)
        if self._portal.is_here:  # by far the most common
            return self._session.offer(message)
        return await self._portal.run(self._offer, message)

    async def send_bytes(self, data: bytes, *, wait: bool = False, timeout: float = WAIT_TIMEOUT) -> bool:
        """Send a binary message to this client; arguments, result and errors are those of `send`."""
        message = encode_bytes(data)
        if wait:
            return await self._portal.run(self._put, message, timeout)
        return await self._portal.run(self._offer, message)

    async def drained(self, timeout: float = WAIT_TIMEOUT) -> None:
        """Wait until nothing is queued for this client any more, so that there is room for what comes next.

        What was sent before has left then, but for what the transport (below its low-water mark), the kernel and
        proxies hold.

        Args:
            timeout: seconds to wait at most.

        Raises:
            ClientGone: the client has gone.
            ClientTimeout: it did not read in time. Nothing else comes of that.
        """
        await self._portal.run(self._put, None, timeout)

    async def set_user(self, user: Any) -> None:
        """Log the client in, over to another user, or with ``None`` out.

        When it returns, ``to_user`` reaches the client as this user's from every node, presence counts it as such, and
        ``members`` and ``disconnect_user`` know it. Only while the engine cannot be reached it returns without
        that; the client gets ``event: "gap"`` when it can. Of several at once the last one that was called holds.

        Args:
            user: what ``client.user`` is from now on; ``client.user_id`` is made of it as when the client connects.

        Raises:
            ClientNotFound: it has gone, or is not accepted yet.
            HookError: the broker's ``user_id`` function failed; nothing has changed.
            InvalidNameError: what it returned is no name of a user; nothing has changed.
        """
        await self._portal.run(self._set_user, user)

    async def ping(self) -> float | None:
        """Send a ping frame (RFC 6455, section 5.5.2) and wait for its pong.

        Returns:
            The round trip in seconds, or ``None`` on a server that offers no ping frames.
        """
        return await self._portal.run(self._session.ping)

    async def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection after everything sent before has been delivered.

        No further message of this client is handled, and it is out of every room at once. The second time is
        harmless.

        Args:
            code: 1000, or 4000 to 4999 for the application's own; the others are the protocol's.
            reason: at most 123 bytes of UTF-8.

        Raises:
            InvalidCloseError: the code may not be sent, or the reason is too long.
        """
        validate_close(code, reason)
        await self._portal.run(self._close, (code, reason))

    def detach(self, session: ClientSession) -> None:
        """Its session has ended: another stands for it from now on, which is nobody's. On the broker's loop only."""
        self._session = session

    def identify(self, user: Any, user_id: str | None) -> None:
        """Say whose client it is; others are not told. On the broker's loop only."""
        self._user = user
        self._user_id = user_id

    async def _set_user(self, user: Any) -> None:
        if not self.is_connected:
            raise ClientNotFound(self.id)
        await self._session.set_user(user)

    async def _offer(self, message: PreparedMessage) -> bool:
        return self._session.offer(message)

    async def _put(self, message: PreparedMessage | None, seconds: float) -> bool:
        try:
            if await self._session.put(message, seconds):
                return True
        except TimeoutError:
            raise ClientTimeout(self.id, seconds) from None
        raise ClientGone(self.id)

    async def _close(self, goodbye: Goodbye) -> None:
        self._session.close(goodbye)


class SyncClient:
    """`Client` for plain threads: the same methods, blocking until done.

    Raises, from each: WouldDeadlockError on the broker's own event loop.
    """

    def __init__(self, client: Client, portal: Portal) -> None:
        self._client = client
        self._portal = portal

    def send(self, event: str, data: Any = None, *, wait: bool = False, timeout: float = WAIT_TIMEOUT) -> bool:
        """Blocking `Client.send`."""
        return self._portal.block(self._client.send, event, data, wait=wait, timeout=timeout)

    def send_bytes(self, data: bytes, *, wait: bool = False, timeout: float = WAIT_TIMEOUT) -> bool:
        """Blocking `Client.send_bytes`."""
        return self._portal.block(self._client.send_bytes, data, wait=wait, timeout=timeout)

    def drained(self, timeout: float = WAIT_TIMEOUT) -> None:
        """Blocking `Client.drained`."""
        self._portal.block(self._client.drained, timeout)

    def set_user(self, user: Any) -> None:
        """Blocking `Client.set_user`."""
        self._portal.block(self._client.set_user, user)

    def ping(self) -> float | None:
        """Blocking `Client.ping`."""
        return self._portal.block(self._client.ping)

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Blocking `Client.disconnect`."""
        self._portal.block(self._client.disconnect, code, reason)


def _read_only(name: str) -> NoReturn:
    raise AttributeError(
        f"client.{name} is read-only; await client.set_user(user) logs a client in, over or out (None)"
    )


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe(client: Client) -> str:
    """What a line of the log calls a client; never its ``user``, which may hold anything."""
    return f"client {client.id}, user {'-' if client.user_id is None else quote(client.user_id)}"
