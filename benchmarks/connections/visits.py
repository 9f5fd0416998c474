"""Who comes, from which page and with which token, and what the servers say to them. Knows no server and no socket."""

from __future__ import annotations

from typing import Any

__all__ = ["MANY", "ORIGINS", "USERS", "room_of", "token_of", "welcome"]

ORIGINS = ("https://app.example.com", "https://www.example.com")
"""The pages that may connect; clients come from the first."""
MANY = 40_000


def token_of(number: int) -> str:
    """What a client shows; so many are different."""
    return f"token-{number % MANY:08}"


USERS = {token_of(number): str(number) for number in range(MANY)}
"""Users by their tokens."""


def room_of(number: int, rooms: int) -> str:
    """The room that a client asks for, if there are so many."""
    return str(number % rooms)


def welcome(user: str, room: str) -> dict[str, Any]:
    """The data of the message that a client gets when it is in its room."""
    return {"user": user, "room": room}
