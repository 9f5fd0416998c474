"""Limits: a client's rate of messages, and how many connections there may be. Knows no connection; clocks are given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

__all__ = ["Admission", "RateLimiter"]


class RateLimiter:
    """A token bucket: ``burst`` messages at once, ``rate`` a second in the long run."""

    __slots__ = ("_at", "_capacity", "_clock", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        """
        Args:
            rate: messages a second; greater than 0.
            burst: messages at once; 0 means one second's worth of the rate, and at least one.
            clock: seconds, never going back.
        """
        self._rate = rate
        self._capacity = float(burst or max(1, math.ceil(rate)))
        self._clock = clock
        self._tokens = self._capacity
        self._at = clock()

    def acquire(self) -> float:
        """Count one message; 0 where it is within the limit, else the seconds until one would be."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class Admission:
    """Counts connections, handshakes included, in total and for each address."""

    def __init__(self, limit: int, limit_per_ip: int) -> None:
        """
        Args:
            limit: connections in total; 0 = no limit.
            limit_per_ip: connections from one address; 0 = no limit.
        """
        self._limit = limit
        self._limit_per_ip = limit_per_ip
        self._total = 0
        self._by_ip: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is counted in."""
        return not self._total and not self._by_ip

    def enter(self, ip: str | None) -> str | None:
        """Count a connection in; what refuses it, or ``None`` where it may come.

        An unknown address (a Unix socket without a proxy's header) counts in the total alone.
        """
        if self._limit and self._total >= self._limit:
            return "WS_MAX_CONNECTIONS"
        if ip is not None and self._limit_per_ip and self._by_ip[ip] >= self._limit_per_ip:
            return "WS_MAX_CONNECTIONS_PER_IP"
        self._total += 1
        if ip is not None:
            self._by_ip[ip] += 1
        return None

    def leave(self, ip: str | None) -> None:
        """Count a connection out that `enter` let in."""
        self._total -= 1
        if ip is not None:
            self._by_ip[ip] -= 1
            if not self._by_ip[ip]:
                del self._by_ip[ip]
