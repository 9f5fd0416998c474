"""Terms: what WebSockets of one application have in common: sizes, times, pings, compression. Knows no connection."""

from __future__ import annotations

import math
from typing import NamedTuple

from uvicorn.config import Config

from velocity_ws.close import CloseCode
from velocity_ws.settings import Settings
from velocity_ws.websocket.keepalive import Keepalive
from velocity_ws.websocket.unfinished import UnfinishedMessages

__all__ = ["Terms", "of_broker", "of_server"]

DRAIN_TIMEOUT = 10.0
"""Seconds that a stopping server gives the connections of an application without a broker."""


class Terms(NamedTuple):
    """One object for all connections, which would else have eight values each, copied as each begins.

    Attributes:
        deflate: whether compression may be agreed to.
        drain_timeout: seconds that a stopping server gives the connections.
        keepalive: pings them; ``None`` where there are no pings.
        max_size: bytes of the longest message, after decompression.
        restart_code: what they are closed with when the server stops.
        unfinished: bounds messages that have come in part.
        waits_for_session: whether nothing is read before a broker's session is open.
    """

    deflate: bool
    drain_timeout: float
    keepalive: Keepalive | None
    max_size: int
    restart_code: int
    unfinished: UnfinishedMessages
    waits_for_session: bool


def of_server(config: Config, unfinished: UnfinishedMessages, keepalive: Keepalive | None) -> Terms:
    """Those of an application without a broker, by uvicorn's options."""
    return Terms(
        deflate=config.ws_per_message_deflate,
        drain_timeout=float(config.timeout_graceful_shutdown or DRAIN_TIMEOUT),
        keepalive=keepalive,
        max_size=config.ws_max_size,
        restart_code=int(CloseCode.SERVICE_RESTART),
        unfinished=unfinished,
        waits_for_session=False,
    )


def of_broker(settings: Settings, config: Config, unfinished: UnfinishedMessages, keepalive: Keepalive | None) -> Terms:
    """Those of a broker's clients, by its settings; the server may stop sooner than a broker would."""
    graceful = config.timeout_graceful_shutdown
    return Terms(
        deflate=settings.enable_compression,
        drain_timeout=min(settings.drain_timeout, math.inf if graceful is None else graceful),
        keepalive=keepalive,
        max_size=settings.max_message_size,
        restart_code=settings.restart_code,
        unfinished=unfinished,
        waits_for_session=True,
    )
