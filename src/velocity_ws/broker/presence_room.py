"""PresenceRoom: who is in one room, on all nodes, and what of it has not been told. Pure: it tells nobody.

Each change costs the same however many are in the room: counts are added up as they change, and what has changed since
the last telling is noted as it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from velocity_ws.broker.presence_wire import Counts, Info, Piece, Size, in_pieces

__all__ = ["PresenceRoom", "Share"]

FORCED = -1
"""In place of the number of clients that was told: whatever it is now, it has to be told."""


class Share:
    """What one node has of a room.

    Attributes:
        version: of which moment; 0 where it has nothing.
        users: the number of its clients by user; those without one under an empty name.
    """

    __slots__ = ("users", "version")

    def __init__(self, version: int, users: Counts) -> None:
        self.version = version
        self.users = users


class PresenceRoom:
    """One room that has members on this node.

    Attributes:
        version: the last that the other nodes were told.
        members: the user as which each client of this node is counted, by client id; empty for none.
        here: the number of this node's clients by user; those without one under an empty name.
        total: the same of all nodes.
        clients: the clients in the room, on all nodes.
    """

    def __init__(self, node_id: str) -> None:
        """
        Args:
            node_id: this node's.
        """
        self.version = 0
        self.members: dict[str, str] = {}
        self.here: Counts = {}
        self.total: Counts = {}
        self.clients = 0
        self._node_id = node_id
        self._there: dict[str, Share] = {}
        self._infos: dict[str, dict[str, Info]] = {}
        self._changed: dict[str, int] = {}
        """What members were told of each user that may have changed since."""
        self._unsaid: dict[str, int] = {}
        """The same of other nodes, and of clients of this one."""

    @property
    def users(self) -> int:
        """How many users are in the room, on all nodes."""
        return len(self.total) - ("" in self.total)

    @property
    def anonymous(self) -> int:
        """How many clients without a user are in the room, on all nodes."""
        return self.total.get("", 0)

    # --- this node

    def enter(self, client_id: str, user: str) -> bool:
        """Count a client of this node; whether it was not there, or was another user's."""
        before = self.members.get(client_id)
        if before == user:
            return False
        if before is not None:
            self._count_here(before, -1)
        self.members[client_id] = user
        self._count_here(user, 1)
        return True

    def leave(self, client_id: str) -> bool:
        """Count a client of this node no more; whether it was there."""
        user = self.members.pop(client_id, None)
        if user is None:
            return False
        self._count_here(user, -1)
        return True

    def inform(self, user: str, info: Info) -> None:
        """Set what this node's application says of one of its users."""
        if user in self.here:
            self._set_info(self._node_id, user, info)

    def _count_here(self, user: str, difference: int) -> None:
        before = self.here.get(user, 0)
        self._unsaid.setdefault(user, before)
        self._set_count(self._node_id, self.here, user, before + difference)

    # --- other nodes

    def version_of(self, node_id: str) -> int:
        """The version of what another node has told; 0 where it has told nothing."""
        share = self._there.get(node_id)
        return 0 if share is None else share.version

    def versions(self) -> dict[str, int]:
        """The same of all nodes that have told something."""
        return {node_id: share.version for node_id, share in self._there.items()}

    def update(self, node_id: str, version: int, users: Counts, infos: Mapping[str, Info]) -> bool:
        """Take a node's changes; whether there was one.

        Args:
            node_id: the node's.
            version: of all that it has, with them.
            users: the number of its clients of each user that has changed, and of those in ``infos``.
            infos: what it says of those of whom it says something else, or for the first time.
        """
        share = self._there.get(node_id)
        if share is None:
            share = self._there[node_id] = Share(0, {})
        share.version = version
        was_changed = False
        for user, count in users.items():
            if share.users.get(user, 0) != count:
                was_changed = True
                self._set_count(node_id, share.users, user, count)
        for user, info in infos.items():
            if user in share.users and self._set_info(node_id, user, info):
                was_changed = True
        if not version:
            del self._there[node_id]
        return was_changed

    def replace(self, node_id: str, version: int, users: Counts, infos: Mapping[str, Info]) -> bool:
        """Take all that a node has, in place of what it had; whether anything is different."""
        share = self._there.get(node_id)
        known = {} if share is None else share.users
        gone = {user: 0 for user in known if user not in users}
        none = {user: Info(0) for user in known if user not in infos and node_id in self._infos.get(user, ())}
        return self.update(node_id, version, {**gone, **users}, {**none, **infos})

    def remove(self, node_id: str) -> bool:
        """A node is gone; whether it had somebody here."""
        return node_id in self._there and self.replace(node_id, 0, {}, {})

    # --- what was not told

    def unsaid(self, limit: int) -> Iterator[Piece]:
        """Take what has changed on this node, in pieces of at most ``limit`` bytes."""
        unsaid, self._unsaid = self._unsaid, {}
        here = self.here
        changed = {user: before for user, before in unsaid.items() if here.get(user, 0) != before}
        return in_pieces(
            changed,
            lambda user: here.get(user, 0),
            lambda user: self._info_here(user) or (Info(0) if user in here and changed[user] == FORCED else None),
            limit,
        )

    def all_here(self, limit: int) -> Iterator[Piece]:
        """All that this node has, in such pieces."""
        return in_pieces(self.here, self.here.__getitem__, self._info_here, limit)

    def changed(self, limit: int, size: Size) -> tuple[Counts, dict[str, bytes]] | None:
        """Take what members have not been told, up to ``limit`` bytes; ``None`` where there is nothing.

        What is returned has 0 for users who have left, and what is said of the others, where there is something.

        Args:
            limit: bytes; one user may have more.
            size: the bytes of a name.
        """
        users: Counts = {}
        left = limit
        changed = self._changed
        while changed and (left > 0 or not users):
            user = next(iter(changed))
            before, now = changed.pop(user), self.total.get(user, 0)
            if now != before:
                users[user] = now
                left -= size(user) + len(self.info(user))
        return (users, self._infos_of(users)) if users else None

    @property
    def waiting(self) -> int:
        """How many users there are of whom members have not been told what may have changed."""
        return len(self._changed)

    def forget_changes(self) -> None:
        """Members need not be told what has changed so far."""
        self._changed.clear()

    def some(self, names: Iterable[str], limit: int, size: Size) -> tuple[Counts, dict[str, bytes], int]:
        """As many of some users as go into ``limit`` bytes, with what is said of them; and how many names were used."""
        users: Counts = {}
        used = 0
        left = limit
        for user in names:
            if left <= 0:
                break
            used += 1
            count = self.total.get(user, 0)
            if count:
                users[user] = count
                left -= size(user) + len(self.info(user))
        return users, self._infos_of(users), used

    def info(self, user: str) -> bytes:
        """What is said of a user, as JSON: the newest of what its nodes say; empty where they say nothing."""
        infos = self._infos.get(user) if self._infos else None
        if not infos:
            return b""
        return max((info.at, node_id, info.json) for node_id, info in infos.items())[2]

    def _infos_of(self, users: Iterable[str]) -> dict[str, bytes]:
        return {user: info for user in users if (info := self.info(user))} if self._infos else {}

    def _info_here(self, user: str) -> Info | None:
        return self._infos.get(user, {}).get(self._node_id) if self._infos else None

    # --- counting

    def _set_count(self, node_id: str, counts: Counts, user: str, count: int) -> None:
        difference = count - counts.get(user, 0)
        if count:
            counts[user] = count
        else:
            counts.pop(user, None)
            self._set_info(node_id, user, Info(0))
        before = self.total.get(user, 0)
        self._changed.setdefault(user, before)
        self.clients += difference
        if before + difference:
            self.total[user] = before + difference
        else:
            self.total.pop(user, None)

    def _set_info(self, node_id: str, user: str, info: Info) -> bool:
        """Set what a node says of a user; whether members have to be told something else than before."""
        infos = self._infos.get(user)
        if infos is None:
            if not info.json:
                return False
            infos = self._infos[user] = {}
        before = self.info(user)
        if info.json:
            infos[node_id] = info
        else:
            infos.pop(node_id, None)
        if not infos:
            del self._infos[user]
        if node_id == self._node_id:
            self._unsaid[user] = FORCED
        is_new = self.info(user) != before
        if is_new:
            self._changed[user] = FORCED
        return is_new
