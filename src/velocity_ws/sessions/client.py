"""Client: one connected person or program, as the application sees it. Knows no server and no socket."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from velocity_ws.close import Goodbye
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import ClientGone, ClientNotFound, ClientTimeout, validate_close
from velocity_ws.logs import quote
from velocity_ws.messages.answers import data_of, new_question_id
from velocity_ws.messages.events import OF_ROOMS, reserved
from velocity_ws.messages.outbound import PreparedMessage, encode, encode_bytes, make_lossy
from velocity_ws.sessions.accept import Accept, ExpiresAt
from velocity_ws.sessions.client_info import ClientInfo, UserT

WAIT_TIMEOUT = 30.0
"""Seconds that `Client.send` with ``wait``, and `Client.drained`, wait for a client to read, unless they are told."""

ASK_TIMEOUT = 5.0
"""Seconds that `Client.ask` waits for an answer, unless it is told."""

__all__ = ["Client", "SyncClient", "describe"]


class Client(ClientInfo[UserT]):
    """A connected client. Hooks get it; `Broker.get_client` finds it.

    Its methods may be awaited on any event loop; ``client.sync`` has them in a blocking form for plain threads.
    `set_data` and `get_data` belong to the application and are as safe as a dict.

    Attributes:
        id: unguessable, unique, new for each connection.
        request: the handshake: ``headers``, ``query_params``, ``cookies``, ``url``.
        connected_at: when the handshake arrived, in UTC.
        subprotocol: the one of ``WS_SUBPROTOCOLS`` that was selected, or ``None``.
    """

    @property
    def sync(self) -> SyncClient:
        """The blocking form of the methods that are awaited, for plain threads."""
        return SyncClient(self, self._portal)

    async def send(
        self,
        event: str,
        data: Any = None,
        *,
        wait: bool = False,
        timeout: float = WAIT_TIMEOUT,
        volatile: bool = False,
        key: str | None = None,
    ) -> bool:
        """Send a message to this client. From any loop, in a coroutine.

        Args:
            event: the name of the event, 1 to 256 characters.
            data: anything that has a JSON form.
            wait: whether to wait until nothing else is queued for the client, so that a snapshot of any size, sent in
                pieces, reaches a client that reads. A piece may be larger than ``WS_SEND_QUEUE_SIZE``.
            timeout: seconds to wait at most. After it the message is dropped, and ``WS_SLOW_CLIENT`` says whether the
                client is closed. Without ``wait`` this happens as soon as the queue is full.
            volatile: whether it is left out if something waits for the client, as it reads too slowly.
            key: 1 to 256 characters, such as ``cursor:ann``. The message replaces one of the same event and key that
                still waits for the client, and keeps its place, unless a message without a key has come after that.

        Returns:
            Whether it was queued: false if the client has gone or is too slow; then it is counted as dropped, or, if it
            was volatile, as left out.

        Raises:
            InvalidNameError: the event name or the key is empty or too long, or the event is ``joined``, ``left`` or
                ``resync`` where some kind of rooms has an ``authorize`` or a history.
            EncodeError: the data has no JSON form.
            TypeError: more than one of ``wait``, ``volatile`` and ``key`` was given.
            ClientGone: with ``wait``: the client has gone.
            ClientTimeout: with ``wait``: it did not read in time.
        """
        message = encode(event, data)
        if event in OF_ROOMS and self._session.is_told_of_rooms:
            raise reserved()
        if volatile or key is not None:
            make_lossy(message, volatile=volatile, key=key, wait=wait)
        if wait:
            return await self._portal.run(self._put, message, timeout)
        if self._portal.is_here:  # by far the most common
            return self._session.offer(message)
        return await self._portal.run(self._offer, message)

    async def send_bytes(
        self,
        data: bytes,
        *,
        wait: bool = False,
        timeout: float = WAIT_TIMEOUT,
        volatile: bool = False,
        key: str | None = None,
    ) -> bool:
        """Send a binary message to this client. From any loop, in a coroutine.

        Args:
            data: the bytes of the message.
            wait: as for `send`.
            timeout: as for `send`.
            volatile: as for `send`.
            key: as for `send`; it replaces a binary message of the same key.

        Returns:
            What `send` returns.

        Raises:
            InvalidNameError: the key is empty or too long.
            TypeError: more than one of ``wait``, ``volatile`` and ``key`` was given.
            ClientGone: with ``wait``: the client has gone.
            ClientTimeout: with ``wait``: it did not read in time.
        """
        message = encode_bytes(data)
        if volatile or key is not None:
            make_lossy(message, volatile=volatile, key=key, wait=wait)
        if wait:
            return await self._portal.run(self._put, message, timeout)
        return await self._portal.run(self._offer, message)

    async def drained(self, timeout: float = WAIT_TIMEOUT) -> None:
        """Wait until nothing is queued for this client. From any loop, in a coroutine.

        Earlier messages have then left the queue; some bytes may still be in the transport, the kernel or a proxy.

        Args:
            timeout: seconds to wait at most.

        Raises:
            ClientGone: the client has gone.
            ClientTimeout: it did not read in time. The client stays connected.
        """
        await self._portal.run(self._put, None, timeout)

    async def ask(self, event: str, data: Any = None, timeout: float = ASK_TIMEOUT) -> Any:
        """Ask the client something, and wait for its answer. From any loop, in a coroutine.

        The answer passes no hook and no limit, and waits for no handler: a handler may ask its own client.

        Args:
            event: as ``data`` the same as for `send`, which says what is raised for it.
            timeout: seconds to wait at most.

        Returns:
            The data of the answer, as JSON has it: validate it as what a stranger says.

        Raises:
            ClientError: the client answered with this error; with ``INVALID_ANSWER`` if that had no code.
            ClientTimeout: it did not answer in time; what comes later is a message like others.
            ClientGone: it has gone, or goes before it answers.
            BrokerError: 1,000 questions to it are open.
            ValueError: the timeout is not above 0.
        """
        if not timeout > 0:
            raise ValueError(f"ask() waits for more than 0 seconds, and not for {timeout!r:.80}")
        question_id = new_question_id()
        return await self._portal.run(self._ask, event, encode(event, data, question_id), question_id, timeout)

    async def set_user(self, user: UserT | Accept[UserT | None] | None, expires_at: ExpiresAt = None) -> None:
        """Log the client in, or in as another user, or with ``None`` out. From any loop, in a coroutine.

        When this returns, ``to_user`` reaches the client as this user from every node, ``members``, presence and
        ``disconnect_user`` know it, and ``authorize`` was asked again about the client's rooms: commit first what that
        reads. If the engine cannot be reached, it returns before that; the client gets a ``gap`` event later. If calls
        overlap, the last one wins, with its ``expires_at``.

        Args:
            user: the new ``client.user``; ``client.user_id`` is made of it as when the client connects. Or an `Accept`,
                whose user and end count.
            expires_at: when the login ends: an aware datetime, or Unix seconds; by default never. The client is told
                now and then, and closed ``WS_EXPIRY_GRACE`` later (4401) unless it renews its login.

        Raises:
            ClientNotFound: the client has gone, or is not accepted yet.
            InvalidExpiryError: ``expires_at`` is no such time, or there is no user; nothing has changed.
            LoginExpired: ``expires_at`` has passed; nothing has changed.
            HookError: ``user_id`` failed, or an ``authorize`` calls this and would wait for itself; nothing changed.
            InvalidNameError: what that function returned cannot be the id of a user; nothing has changed.
        """
        accept = user if isinstance(user, Accept) and expires_at is None else Accept(user, expires_at)
        await self._portal.run(self._set_user, accept.user, accept.expires_at)

    async def ping(self) -> float | None:
        """Send a ping frame (RFC 6455, section 5.5.2) and wait for its pong. From any loop, in a coroutine.

        Returns:
            The round trip in seconds, or ``None`` if the server offers no ping frames or the client has gone.
        """
        return await self._portal.run(self._session.ping)

    async def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection after sending what is queued. From any loop, in a coroutine.

        No further message of this client is handled, and it leaves every room at once. A second call does nothing.

        Args:
            code: 1000, or 4000 to 4999 for the application's own; the protocol uses the others.
            reason: at most 123 bytes of UTF-8.

        Raises:
            InvalidCloseError: the code may not be sent, or the reason is too long.
        """
        validate_close(code, reason)
        await self._portal.run(self._close, (code, reason))

    async def _set_user(self, user: Any, expires_at: datetime | None) -> None:
        if not self.is_connected:
            raise ClientNotFound(self.id)
        await self._session.set_user(user, expires_at)

    async def _offer(self, message: PreparedMessage) -> bool:
        return self._session.offer(message)

    async def _put(self, message: PreparedMessage | None, seconds: float) -> bool:
        try:
            if await self._session.put(message, seconds):
                return True
        except TimeoutError:
            raise ClientTimeout(self.id, seconds) from None
        raise ClientGone(self.id)

    async def _ask(self, event: str, question: PreparedMessage, question_id: str, seconds: float) -> Any:
        try:
            answer = await self._session.ask(question_id, question, seconds)
        except TimeoutError:
            raise ClientTimeout(self.id, seconds, event) from None
        if answer is None:
            raise ClientGone(self.id)
        return data_of(answer)

    async def _close(self, goodbye: Goodbye) -> None:
        self._session.close(goodbye)


class SyncClient:
    """The methods of `Client` for plain threads; each blocks until it is done.

    Raises:
        WouldDeadlockError: a method was called on the broker's own event loop.
    """

    def __init__(self, client: Client, portal: Portal) -> None:
        self._client = client
        self._portal = portal

    def send(
        self,
        event: str,
        data: Any = None,
        *,
        wait: bool = False,
        timeout: float = WAIT_TIMEOUT,
        volatile: bool = False,
        key: str | None = None,
    ) -> bool:
        """Blocking `Client.send`."""
        return self._portal.block(
            self._client.send, event, data, wait=wait, timeout=timeout, volatile=volatile, key=key
        )

    def send_bytes(
        self,
        data: bytes,
        *,
        wait: bool = False,
        timeout: float = WAIT_TIMEOUT,
        volatile: bool = False,
        key: str | None = None,
    ) -> bool:
        """Blocking `Client.send_bytes`."""
        return self._portal.block(self._client.send_bytes, data, wait=wait, timeout=timeout, volatile=volatile, key=key)

    def drained(self, timeout: float = WAIT_TIMEOUT) -> None:
        """Blocking `Client.drained`."""
        self._portal.block(self._client.drained, timeout)

    def ask(self, event: str, data: Any = None, timeout: float = ASK_TIMEOUT) -> Any:
        """Blocking `Client.ask`."""
        return self._portal.block(self._client.ask, event, data, timeout)

    def set_user(self, user: Any, expires_at: ExpiresAt = None) -> None:
        """Blocking `Client.set_user`."""
        self._portal.block(self._client.set_user, user, expires_at)

    def ping(self) -> float | None:
        """Blocking `Client.ping`."""
        return self._portal.block(self._client.ping)

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Blocking `Client.disconnect`."""
        self._portal.block(self._client.disconnect, code, reason)


def describe(client: Client) -> str:
    """What a line of the log calls a client; never its ``user``, which may hold anything."""
    return f"client {client.id}, user {'-' if client.user_id is None else quote(client.user_id)}"
