"""Signatures: what a type checker lets a hook of each kind be. Says nothing at run time.

A hook's first parameter is one of its own values, or it has none; what comes behind may be anything, as dependencies
are. So a checker also refuses what works at run time, but need not be written: a dependency before the client, and
parameters that are keywords only. A hook that answers nobody returns nothing, so that a generator is none. Handlers of
events, ``authenticate``, ``refresh`` and ``authorize`` may begin with any parameter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Concatenate, Union

from typing_extensions import ParamSpec, TypeVar

from velocity_ws.close import Close
from velocity_ws.messages.inbound import Message
from velocity_ws.sessions.accept import Accept
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.client_info import UserT

__all__ = [
    "AsyncLogin",
    "AuthorizeHook",
    "BinaryHook",
    "CancelHook",
    "ClientHook",
    "DisconnectHook",
    "ErrorHook",
    "EventHook",
    "Info",
    "Login",
    "MessageHook",
    "MoveHook",
    "P",
    "PresenceInfo",
    "SomeUserT",
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
CancelHook = TypeVar("CancelHook", bound=Callable[..., bool | Awaitable[bool]])

P = ParamSpec("P")
SomeUserT = TypeVar("SomeUserT")
"""A user, be it that clients may be nobody: who is nobody has no id, and is not told of."""
LoggedIn = Union[UserT, Accept[UserT], None]  # noqa: UP007 - it is subscribed, which what | makes is not, before 3.14
AsyncLogin = Callable[P, Coroutine[Any, Any, LoggedIn[UserT]]]
Login = Callable[P, LoggedIn[UserT] | Awaitable[LoggedIn[UserT]]]
"""What says who a client is: typed by what the broker's users are, so that one of another type is refused."""
Info = TypeVar("Info", bound=Mapping[str, Any] | Awaitable[Mapping[str, Any]])
PresenceInfo = Callable[Concatenate[SomeUserT, P], Info]
