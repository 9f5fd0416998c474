"""velocity-ws: the realtime layer for Python web apps, on plain WebSockets. Public names only."""

from __future__ import annotations

from velocity_ws.asgi.app import WebSocketApp
from velocity_ws.asgi.browser_files import browser_client_path
from velocity_ws.asgi.middleware import WebSocketMiddleware
from velocity_ws.broker.broker import Broker
from velocity_ws.broker.decorators import EventRouter
from velocity_ws.broker.emitter import Emitter
from velocity_ws.broker.members import ClusterStats, Connections, Members, RoomMember, UserConnection
from velocity_ws.broker.rooms import Rooms
from velocity_ws.broker.stream_handles import Stream, StreamReader, StreamWriter
from velocity_ws.broker.streams_api import StreamsAPI
from velocity_ws.broker.target import Target
from velocity_ws.close import Close, CloseCode, may_reconnect
from velocity_ws.errors import (
    BackplaneUnavailable,
    BrokerError,
    ClientError,
    ClientGone,
    ClientIdError,
    ClientNotFound,
    ClientTimeout,
    EncodeError,
    HistoryError,
    HookError,
    InvalidCloseError,
    InvalidExpiryError,
    InvalidHeaderError,
    InvalidNameError,
    InvalidPathError,
    LoginExpired,
    Reject,
    ServerError,
    SettingsError,
    UpstreamError,
    VelocityError,
    WouldDeadlockError,
)
from velocity_ws.history.values import Entry, Joined, Sent
from velocity_ws.messages.inbound import Message
from velocity_ws.retention import History
from velocity_ws.sessions.accept import Accept
from velocity_ws.sessions.client import Client
from velocity_ws.settings import Settings
from velocity_ws.stats import Stats
from velocity_ws.stream_errors import StreamEnded, StreamError, StreamGone, StreamNotFound, StreamTooLarge
from velocity_ws.streams.values import StreamInfo, StreamState
from velocity_ws.uvicorn.server import Server

__version__ = "0.1.0"

__all__ = [
    "Accept",
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
    "Connections",
    "Emitter",
    "EncodeError",
    "Entry",
    "EventRouter",
    "History",
    "HistoryError",
    "HookError",
    "InvalidCloseError",
    "InvalidExpiryError",
    "InvalidHeaderError",
    "InvalidNameError",
    "InvalidPathError",
    "Joined",
    "LoginExpired",
    "Members",
    "Message",
    "Reject",
    "RoomMember",
    "Rooms",
    "Sent",
    "Server",
    "ServerError",
    "Settings",
    "SettingsError",
    "Stats",
    "Stream",
    "StreamEnded",
    "StreamError",
    "StreamGone",
    "StreamInfo",
    "StreamNotFound",
    "StreamReader",
    "StreamState",
    "StreamTooLarge",
    "StreamWriter",
    "StreamsAPI",
    "Target",
    "UpstreamError",
    "UserConnection",
    "VelocityError",
    "WebSocketApp",
    "WebSocketMiddleware",
    "WouldDeadlockError",
    "__version__",
    "browser_client_path",
    "may_reconnect",
]
