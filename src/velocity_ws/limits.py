"""Limits: a client's rate of messages, and the number of connections. Knows no connection; clocks are given."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Callable

__all__ = ["ConnectionLimits", "RateLimiter", "network_of"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix under which an IPv6-only server sees IPv4 addresses (RFC 6052)."""


class RateLimiter:
    """A token bucket: allows ``burst`` messages at once, and ``rate`` a second in the long run."""

    __slots__ = ("_at", "_capacity", "_clock", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        """
        Args:
            rate: messages (or bytes) a second; greater than 0.
            burst: messages at once; 0 means one second's worth of the rate, and at least one.
            clock: returns seconds that never go back.
        """
        self._rate = rate
        self._capacity = float(burst or max(1, math.ceil(rate)))
        self._clock = clock
        self._tokens = self._capacity
        self._at = clock()

    def acquire(self, cost: float = 1.0) -> float:
        """Count a message if it is within the limit.

        Args:
            cost: how many messages (or bytes) to count.

        Returns:
            0 if it was counted, else the seconds until it would be.
        """
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) / self._rate


class ConnectionLimits:
    """Counts connections, handshakes included, in total and for each client address."""

    def __init__(self, limit: int, limit_per_ip: int) -> None:
        """
        Args:
            limit: connections in total; 0 = no limit.
            limit_per_ip: connections from one address, as `network_of` normalizes it; 0 = no limit.
        """
        self._limit = limit
        self._limit_per_ip = limit_per_ip
        self._total = 0
        self._by_ip: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether no connection is counted in."""
        return not self._total and not self._by_ip

    def count_in(self, ip: str | None) -> str | None:
        """Count a connection in, if the limits allow it.

        Args:
            ip: the client's address; unknown if ``None`` or empty (a Unix socket without a proxy's header), which
                counts in the total only.

        Returns:
            ``None`` if the connection was counted in, else the variable of the limit that refuses it.
        """
        if self._limit and self._total >= self._limit:
            return "WS_MAX_CONNECTIONS"
        if ip and self._limit_per_ip:
            network = network_of(ip)
            if self._by_ip[network] >= self._limit_per_ip:
                return "WS_MAX_CONNECTIONS_PER_IP"
            self._by_ip[network] += 1
        self._total += 1
        return None

    def count_out(self, ip: str | None) -> None:
        """Count out a connection that was counted in with this address."""
        self._total -= 1
        if ip and self._limit_per_ip:
            network = network_of(ip)
            self._by_ip[network] -= 1
            if not self._by_ip[network]:
                del self._by_ip[network]


def network_of(ip: str) -> str:
    """Normalize an address to what counts as one client: an IPv4 address, or the /64 of an IPv6 one.

    A host has a whole /64 of IPv6 addresses. An IPv4 address inside an IPv6 one (mapped, or by NAT64) counts as the
    IPv4 address, a link-local address by itself; text that is not an address is returned as it is.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(address.packed[12:])
        elif address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_link_local:
            return str(ipaddress.IPv6Address(address.packed[:8] + bytes(8)))
    return str(address)
