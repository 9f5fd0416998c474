"""velocity-ws: the realtime layer for Python web apps, on plain WebSockets. Public names only."""

from __future__ import annotations

from velocity_ws.app import WebSocketApp
from velocity_ws.broker import Broker
from velocity_ws.client import Client
from velocity_ws.emitter import Emitter
from velocity_ws.errors import (
    BackplaneUnavailable,
    BrokerError,
    ClientError,
    ClientGone,
    ClientIdError,
    ClientNotFound,
    ClientTimeout,
    Close,
    CloseCode,
    EncodeError,
    HookError,
    InvalidCloseError,
    InvalidNameError,
    InvalidPathError,
    Reject,
    ServerError,
    SettingsError,
    VelocityError,
    WouldDeadlockError,
    may_reconnect,
)
from velocity_ws.members import ClusterStats, Members, RoomMember
from velocity_ws.messages import Message
from velocity_ws.middleware import WebSocketMiddleware
from velocity_ws.server import Server
from velocity_ws.settings import Settings
from velocity_ws.stats import Stats
from velocity_ws.target import Target

__version__ = "0.1.0"

__all__ = [
    "BackplaneUnavailable",
    "Broker",
    "BrokerError",
    "Client",
    "ClientError",
    "ClientGone",
    "ClientIdError",
    "ClientNotFound",
    "ClientTimeout",
    "Close",
    "CloseCode",
    "ClusterStats",
    "Emitter",
    "EncodeError",
    "HookError",
    "InvalidCloseError",
    "InvalidNameError",
    "InvalidPathError",
    "Members",
    "Message",
    "Reject",
    "RoomMember",
    "Server",
    "ServerError",
    "Settings",
    "SettingsError",
    "Stats",
    "Target",
    "VelocityError",
    "WebSocketApp",
    "WebSocketMiddleware",
    "WouldDeadlockError",
    "__version__",
    "may_reconnect",
]
