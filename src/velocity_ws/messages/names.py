"""Names: the rules for names of rooms, events and users. Pure: knows no room, no event and no user."""

from __future__ import annotations

from velocity_ws.errors import InvalidNameError

__all__ = ["MAX_NAME_LENGTH", "name_user", "validate_room", "validate_text", "validate_user_id"]

MAX_NAME_LENGTH = 256
"""Longest name of an event, a room or a user, in characters."""


def validate_room(room: str) -> str:
    """Check a room's name, which may be any string of up to 256 characters.

    Raises:
        InvalidNameError: it is not.
    """
    if not isinstance(room, str) or len(room) > MAX_NAME_LENGTH:
        raise InvalidNameError(f"a room is a string of at most {MAX_NAME_LENGTH} characters, not {room!r:.80}")
    return room


def validate_text(name: str) -> str:
    """Check a name that is to travel between processes, which half a surrogate pair cannot.

    Raises:
        InvalidNameError: it is no valid Unicode.
    """
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidNameError(f"between processes a name must be valid Unicode, not {name!r:.80}") from None
    return name


def name_user(user_id: str | int) -> str:
    """The name of a user who is addressed: 42 is ``"42"``.

    Raises:
        TypeError: it is neither text nor a number.
        InvalidNameError: it is too long.
    """
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        return str(user_id)
    if not isinstance(user_id, str):
        raise TypeError(f"a user is named by a string or an integer, not by {user_id!r:.80}; use client.user_id")
    if len(user_id) > MAX_NAME_LENGTH:
        raise InvalidNameError(f"a user id is a string of at most {MAX_NAME_LENGTH} characters, not {user_id!r:.80}")
    return user_id


def validate_user_id(user_id: str | int | None) -> str | None:
    """What a user is called, if it can be a name: text of at most 256 characters, a number, or nothing.

    Raises:
        InvalidNameError: it is none.
    """
    if user_id is None or user_id == "":
        return None
    try:
        return validate_text(name_user(user_id))
    except TypeError as error:
        raise InvalidNameError(str(error)) from None
