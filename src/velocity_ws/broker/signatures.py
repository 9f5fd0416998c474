"""Signatures: what a type checker lets a hook of each kind be. Says nothing at run time.

A hook's first parameter is one of its own values, or it has none; what comes behind may be anything, as dependencies
are. So a checker also refuses what works at run time, but need not be written: a dependency before the client, and
parameters that are keywords only. A hook that answers nobody returns nothing, so that a generator is none. Handlers of
events, ``authenticate`` and ``authorize`` may begin with any parameter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate

from typing_extensions import TypeVar

from velocity_ws.close import Close
from velocity_ws.messages.inbound import Message
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.client_info import UserT

__all__ = [
    "AuthorizeHook",
    "BinaryHook",
    "ClientHook",
    "DisconnectHook",
    "ErrorHook",
    "EventHook",
    "MessageHook",
    "MoveHook",
    "PresenceInfo",
    "UserT",
]

Done = Awaitable[object] | None
OfNothing = Callable[[], Done]
OfClient = Callable[Concatenate[Client[Any], ...], Done]

EventHook = TypeVar("EventHook", bound=Callable[..., Any])
ClientHook = TypeVar("ClientHook", bound=OfNothing | OfClient)
MessageHook = TypeVar("MessageHook", bound=OfNothing | OfClient | Callable[Concatenate[Message, ...], Done])
BinaryHook = TypeVar("BinaryHook", bound=OfNothing | OfClient | Callable[Concatenate[bytes, ...], Done])
DisconnectHook = TypeVar("DisconnectHook", bound=OfNothing | OfClient | Callable[Concatenate[Close, ...], Done])
MoveHook = TypeVar("MoveHook", bound=OfNothing | OfClient | Callable[Concatenate[str, ...], Done])
ErrorHook = TypeVar("ErrorHook", bound=OfNothing | OfClient | Callable[Concatenate[Exception, ...], Done])
AuthorizeHook = TypeVar("AuthorizeHook", bound=Callable[..., bool | Awaitable[bool]])
PresenceInfo = TypeVar("PresenceInfo", bound=Callable[..., Mapping[str, Any] | Awaitable[Mapping[str, Any]]])
