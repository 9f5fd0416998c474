"""Members, Connections, ClusterStats: what questions to all nodes are answered with. Knows no client and no cluster."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from velocity_ws.stats import RECOVERIES, Stats

__all__ = ["ClusterStats", "Connections", "Members", "RoomMember", "UserConnection"]


@dataclass(frozen=True, slots=True)
class RoomMember:
    """One client in a room, on any node.

    Attributes:
        client_id: the client's.
        user: the id of its user; ``None`` where it has none.
        node: the node it is connected to.
        since: when it joined, in seconds since the epoch, by its node's clock.
    """

    client_id: str
    user: str | None
    node: str
    since: float


class Members(list[RoomMember]):
    """The members of a room, those who joined first first.

    Attributes:
        missing: nodes that did not answer in time, whose members are not here.
    """

    def __init__(self, members: Iterable[RoomMember], missing: Iterable[str] = ()) -> None:
        super().__init__(sorted(members, key=lambda member: (member.since, member.client_id)))
        self.missing = tuple(sorted(missing))


@dataclass(frozen=True, slots=True)
class UserConnection:
    """One client of a user, on any node.

    Attributes:
        client_id: the client's.
        node: the node it is connected to.
        since: when it connected, in seconds since the epoch, by its node's clock.
    """

    client_id: str
    node: str
    since: float


class Connections(list[UserConnection]):
    """The clients of a user, those who connected first first.

    Attributes:
        missing: nodes that did not answer in time, whose clients are not here.
    """

    def __init__(self, connections: Iterable[UserConnection], missing: Iterable[str] = ()) -> None:
        super().__init__(sorted(connections, key=lambda connection: (connection.since, connection.client_id)))
        self.missing = tuple(sorted(missing))


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """One moment's figures of all nodes; as `Broker.cluster_stats` returns them.

    Attributes:
        nodes: each node's, by its id.
        total: the sum; ``rooms`` counts a room once for each node it has members on, ``uptime`` is the longest.
        missing: nodes that did not answer in time.
    """

    nodes: dict[str, Stats]
    total: Stats
    missing: tuple[str, ...]

    @classmethod
    def of(cls, nodes: dict[str, Stats], missing: Iterable[str]) -> ClusterStats:
        """Add up the figures of all nodes; the ids of ``missing`` nodes are kept."""
        fields = [field.name for field in dataclasses.fields(Stats) if field.name != "recoveries"]
        sums: dict[str, Any] = {name: sum(getattr(stats, name) for stats in nodes.values()) for name in fields}
        recoveries = Counter(dict.fromkeys(RECOVERIES, 0))
        for stats in nodes.values():
            recoveries.update(stats.recoveries)
        sums["recoveries"] = dict(recoveries)
        sums["uptime"] = max((stats.uptime for stats in nodes.values()), default=0.0)
        return cls(nodes, Stats(**sums), tuple(sorted(missing)))
