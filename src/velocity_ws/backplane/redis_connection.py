"""RedisConnection: one connection to a Redis server; commands go out, and what comes is answers, which are counted.

Knows redis-py's connections, and neither topics nor nodes. The library connects, logs in, and packs commands. Its
retries are not used, as the outcome of a command must not be in doubt; nor its reading, by a task and several
coroutines for each reply.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from velocity_ws.backplane.incoming import Incoming
from velocity_ws.backplane.redis_roles import ROLE_COMMANDS, Roles
from velocity_ws.logs import get_logger

__all__ = ["RedisConnection"]

log = get_logger("velocity_ws.backplane")

MAX_SILENCE = 3
"""Looks after which a server that has not answered, nor sent anything else, is given up."""


class RedisConnection:
    """A connection, opened once. On the broker's loop only."""

    def __init__(
        self,
        connection: Any,
        roles: Roles,
        ended: Callable[[Exception], None],
        is_answer: Callable[[Any], bool] | None = None,
        demoted: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            connection: redis-py's, not connected.
            roles: says which servers may be published to.
            ended: called with the reason when the connection has ended by itself.
            is_answer: takes what arrives, and says whether it answers a command. ``None`` for a connection to publish
                on, where all of it does.
            demoted: called when the server has become a replica; ``None`` where that ends the connection.
        """
        self._connection = connection
        self._roles = roles
        self._ended = ended
        self._is_answer = is_answer
        self._demoted = demoted
        self._waiting: deque[_Pending] = deque()
        self._replies = hiredis.Reader(protocolError=InvalidResponse, replyError=connection._parser.parse_error)
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Event | None = None
        self._error: Exception | None = None
        self._role_command: str | None = None
        self._looking: _Pending | None = None
        self._arrivals = self._seen = self._silence = 0

    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: there is no server, it refuses the login, or it is none to publish to.
        """
        try:
            await self._connection.connect()
            self._role_command = await self._find_role()
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        self._keep()
        if self._transport is None:
            raise ConnectionError("the connection was closed")
        self._gone = asyncio.Event()
        Incoming(self._transport, self._receive, self._failed, self._lost)

    async def _find_role(self) -> str | None:
        """Which command the server tells its role by; ``None`` where none does."""
        why: object = None
        for command in ROLE_COMMANDS:
            try:
                await self._connection.send_command(command)
                reply = await self._connection.read_response()
            except ResponseError as error:
                why = error
                continue
            if self._roles.check(reply):
                return command
            why = f"{command} does not say"
        self._roles.complain(why)
        return None

    def _keep(self) -> None:
        """Keep the transport, to abort it: the library forgets it, and only closes it, when a call is cancelled."""
        writer: Any = getattr(self._connection, "_writer", None)
        if writer is not None:
            self._transport = writer.transport

    async def send(self, commands: Sequence[tuple[str | bytes, ...]], answers: int) -> None:
        """Send commands, and wait for their answers.

        Args:
            commands: each with its arguments.
            answers: how many answers come.

        Raises:
            OSError: the connection has ended, or the server is no primary any more.
        """
        await self._exchange(commands, _Pending(answers))

    async def ask(self, commands: Sequence[tuple[str | bytes | int, ...]], *, is_by_topic: bool = False) -> list[Any]:
        """Send commands, and return their replies, in order; one that is an error is a `ResponseError` among them.

        Several calls may wait at once; what a cancelled one has sent is done all the same.

        Args:
            commands: each with its arguments.
            is_by_topic: whether each is answered by its topic. The connection ends where another topic comes: a server
                also says by itself that a topic is subscribed to no more, which may be taken for an answer.

        Raises:
            OSError: the connection has ended, or the server is no primary any more.
        """
        if not commands:
            return []
        waiting = _Pending(len(commands), [])
        if is_by_topic:
            waiting.topics = [str(command[1]).encode() for command in commands]
        await self._exchange(commands, waiting)
        return waiting.replies or []

    async def about(self, section: str) -> dict[str, str]:
        """What the server tells of itself; nothing where the login may not ask.

        Args:
            section: of the answer to ``INFO``.

        Raises:
            OSError: the connection has ended.
        """
        (said,) = await self.ask([("INFO", section)])
        lines = said.decode().splitlines() if isinstance(said, bytes) else ()
        return dict(line.partition(":")[::2] for line in lines)

    async def _exchange(self, commands: Sequence[tuple[str | bytes | int, ...]], waiting: _Pending) -> None:
        if self._error is not None:
            raise ConnectionError(str(self._error)) from self._error
        if self._gone is None or self._transport is None:  # what it answers then is read by `open`
            raise ConnectionError("there is no connection yet")
        if self._transport.is_closing():
            raise ConnectionError("the connection was closed")
        self._waiting.append(waiting)
        self._transport.write(b"".join(self._connection.pack_commands(commands)))
        await waiting.done

    def look(self, *, gives_up: bool) -> None:
        """Ask the server whether it is there, and whether it is a primary still. Called now and then, used or not.

        One that does not answer is given up at a later look, by which the connection ends by itself. Looks are counted
        and not the time, as a loop that was held up has not looked.
        """
        if self._error is not None or self._transport is None or self._transport.is_closing():
            return
        if self._looking is not None and self._looking.left:
            self._silence = self._silence + 1 if self._seen == self._arrivals else 0
            self._seen = self._arrivals
            if gives_up and self._silence == MAX_SILENCE:
                self._end(TimeoutError("the server does not answer"))
            return
        self._silence, self._seen = 0, self._arrivals
        # A server answers nothing else on a connection that is subscribed; its role is asked on the other one.
        role = self._role_command if self._is_answer is None else None
        self._looking = _Pending(1, [])
        self._looking.asks_role = role is not None
        self._looking.topics = [b""] if self._is_answer is not None else []  # as PING is answered there
        self._waiting.append(self._looking)
        self._transport.writelines(self._connection.pack_command(role or "PING"))

    def abort(self) -> None:
        """End it now, with what is not written yet, which must not arrive after what the next connection carries."""
        self._keep()
        if self._transport is not None:
            self._transport.abort()
        self._fail(ConnectionError("the connection was closed"))

    async def wait_closed(self) -> None:
        """Wait until it has ended, once it was aborted."""
        if self._gone is not None:
            await self._gone.wait()
        await self._connection.disconnect(nowait=True)

    def _receive(self, data: bytes) -> None:
        """Take what has come.

        Raises:
            RedisError: the connection cannot be used any more.
            OSError: the server is no primary any more, or an answer is missing.
        """
        self._arrivals += 1  # of reads, as a long message may take longer than a server is silent that is gone
        self._replies.feed(data)
        while (reply := self._replies.gets()) is not False:
            if isinstance(reply, RedisError):
                if not isinstance(reply, ResponseError) or not self._waiting or self._waiting[0].replies is None:
                    raise reply
                is_answer = True
            else:  # what is published comes as a list
                is_answer = self._is_answer is None or type(reply) is bytes or self._is_answer(reply)
            if is_answer and self._waiting:
                self._answered(self._waiting[0], reply)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, RedisError | OSError):
            log.error("what the engine sent could not be taken", exc_info=error)
        self._end(ConnectionError(str(error)))

    def _lost(self, error: Exception | None) -> None:
        self._connection._writer = None  # or the library takes it for open, and says so when it is freed
        if self._gone is not None:
            self._gone.set()
        self._end(ConnectionError(str(error or "the server has closed the connection")))

    def _answered(self, answers: _Pending, reply: Any) -> None:
        if answers.topics and type(reply) is list and reply[1] != answers.topics[-answers.left]:
            raise ConnectionError("an answer is missing, or was taken for another")
        answers.left -= 1
        if answers.asks_role:
            self._check_role(reply)
        elif answers.replies is not None:
            answers.replies.append(reply)
        if not answers.left:
            self._waiting.popleft().settle(None)

    def _check_role(self, reply: Any) -> None:
        try:
            self._roles.check(reply)
        except ConnectionError:
            if self._demoted is None:
                raise
            self._demoted()

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._fail(error)
            self._ended(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        for answers in self._waiting:
            answers.settle(error)
        self._waiting.clear()


class _Pending:
    """The answers that a caller still waits for; or the one to a look, which may be the server's role."""

    __slots__ = ("asks_role", "done", "left", "replies", "topics")

    def __init__(self, left: int, replies: list[Any] | None = None) -> None:
        self.left = left
        self.replies = replies
        self.topics: list[bytes] = []
        self.asks_role = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # retrieved, as the caller may have been cancelled
