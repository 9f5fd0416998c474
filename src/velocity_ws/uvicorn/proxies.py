"""Proxies: which peers uvicorn believes when they name the client's address. Knows no connection."""

from __future__ import annotations

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

__all__ = ["trusts"]


def trusts(config: Config, ip: str | None = None) -> bool:
    """Whether uvicorn believes a peer's word of the client's address (``--forwarded-allow-ips``).

    Args:
        config: uvicorn's, which is loaded.
        ip: the peer's address; ``None`` to ask whether any peer is believed.
    """
    app = config.loaded_app
    if not isinstance(app, ProxyHeadersMiddleware):
        return False
    return app.trusted_hosts.always_trust if ip is None else ip in app.trusted_hosts
