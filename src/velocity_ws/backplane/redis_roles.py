"""Roles: whether a Redis server passes on what is published to it, by what it says of its role.

Knows what servers answer, and not how they are asked. A replica takes a message, answers as if all were well, and gives
it to its own subscribers alone: of two nodes, one of them on a replica, each hears only itself.
"""

from __future__ import annotations

from typing import Any

from velocity_ws.logs import get_logger

__all__ = ["ROLE_COMMANDS", "Roles"]

log = get_logger("velocity_ws.backplane")

ROLE_COMMANDS = ("HELLO", "ROLE")
"""The commands by which a server may tell its role; no ACL forbids the first, which came with Redis 6."""
_DEAD_ENDS = (b"replica", b"slave", b"sentinel")


class Roles:
    """What the servers of an engine say, for all connections of one backplane. On the broker's loop only."""

    def __init__(self, *, is_sharded: bool = False) -> None:
        """
        Args:
            is_sharded: whether a topic lives on one shard of a cluster; else a cluster carries every message to all of
                its servers, from its replicas as well.
        """
        self._is_sharded = is_sharded
        self._has_complained = False

    def check(self, reply: Any) -> bool:
        """Whether an answer of a server tells its role.

        Args:
            reply: the answer to one of `ROLE_COMMANDS`.

        Raises:
            ConnectionError: the server is none to publish to.
        """
        if not isinstance(reply, list) or not reply:
            return False
        said: dict[Any, Any] = {b"role": reply[0]}
        if reply[0] == b"server":  # the answer to HELLO, a list of keys and values; the one to ROLE begins with it
            said = dict(zip(reply[::2], reply[1::2], strict=False))
        role = said.get(b"role")
        if role in _DEAD_ENDS and (self._is_sharded or said.get(b"mode") != b"cluster"):
            raise ConnectionError(
                f"the server is a {role.decode()}, and what is published there reaches nobody else; the URL has to "
                "lead to the primary"
            )
        return role is not None

    def complain(self, why: object) -> None:
        """Log, once, that a server does not tell its role.

        Args:
            why: what it answered.
        """
        if not self._has_complained:
            self._has_complained = True
            log.warning(
                "the engine does not tell whether it is a primary (%s); should it be a replica, messages are lost", why
            )
