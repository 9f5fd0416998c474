"""Proxies: where a limit for each client address cannot hold, as the address is not the client's. Knows no server."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers

from velocity_ws.logs import get_logger, quote

__all__ = ["AddressCheck"]

log = get_logger("velocity_ws.asgi")

_PAGE = "docs/deployment.md, The client's address, has the lines for each proxy"


class AddressCheck:
    """Looks at the address of each handshake, where there is a limit for each, and says once what is wrong with it."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def look(self, ip: str | None, headers: Headers, *, trusts_everyone: bool) -> None:
        """Warn if the limit cannot hold, which this connection may show.

        Args:
            ip: what the limit counts by; ``None`` or empty where there is none.
            headers: of the handshake.
            trusts_everyone: whether the server takes the header of anybody.
        """
        forwarded = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
        if not ip:
            self._say(
                "none",
                "a client has no address, so nobody counts it: on a Unix socket the proxy has to set X-Forwarded-For "
                "to the address it sees, and the server to trust it (uvicorn --forwarded-allow-ips='*')",
            )
        elif forwarded and not any(ip in part for part in forwarded):
            self._say(
                "untrusted",
                f"X-Forwarded-For is not heeded, as the server does not trust {quote(ip)}: if that is your proxy, all "
                "its clients share one limit, until you name it (uvicorn --forwarded-allow-ips, FORWARDED_ALLOW_IPS)",
            )
        elif not forwarded and _is_loopback(ip):
            self._say(
                "loopback",
                f"a client's address is {quote(ip)}, this machine's: if a proxy stands in front, it does not set "
                "X-Forwarded-For, so that its clients share one limit, and a client that sends the header chooses an "
                "address of its own. If none does, the client is on this machine, and all is well",
            )
        elif trusts_everyone and len(forwarded) > 1:
            self._say(
                "several",
                "the first of several addresses in X-Forwarded-For counts, as the server trusts everybody "
                "(--forwarded-allow-ips='*'), and a client can send that one itself: have the proxy set the header in "
                "place of adding to it",
            )

    def _say(self, kind: str, what: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            log.warning("WS_MAX_CONNECTIONS_PER_IP cannot hold: %s. %s", what, _PAGE)


def _is_loopback(ip: str) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
