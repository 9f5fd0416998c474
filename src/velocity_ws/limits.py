"""Limits: a client's rate of messages, and how many connections there may be. Knows no connection; clocks are given."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Callable

__all__ = ["ConnectionLimits", "RateLimiter", "network_of"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as an IPv6-only server sees them (RFC 6052)."""


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

    def acquire(self, cost: float = 1.0) -> float:
        """Count one message, or so many; 0 where that is within the limit, else the seconds until it would be."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) / self._rate


class ConnectionLimits:
    """Counts connections, handshakes included, in total and for each address."""

    def __init__(self, limit: int, limit_per_ip: int) -> None:
        """
        Args:
            limit: connections in total; 0 = no limit.
            limit_per_ip: connections from one address, as `network_of` has it; 0 = no limit.
        """
        self._limit = limit
        self._limit_per_ip = limit_per_ip
        self._total = 0
        self._by_ip: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is counted in."""
        return not self._total and not self._by_ip

    def count_in(self, ip: str | None) -> str | None:
        """Count a connection in; what refuses it, or ``None`` where it may come.

        An unknown address (``None``, or empty: a Unix socket without a proxy's header) counts in the total alone.
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
        """Count a connection out that `count_in` let in."""
        self._total -= 1
        if ip and self._limit_per_ip:
            network = network_of(ip)
            self._by_ip[network] -= 1
            if not self._by_ip[network]:
                del self._by_ip[network]


def network_of(ip: str) -> str:
    """What counts as one address, however it is spelled: an IPv4 address, or an IPv6 one's /64, which one host has.

    An IPv4 address inside an IPv6 one (mapped, or by NAT64) is itself. A link-local address is one host's, and what is
    no address stands for itself.
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
