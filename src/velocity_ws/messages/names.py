"""Names: the rules for names of rooms, events, users, keys and streams. Pure: knows none of them."""

from __future__ import annotations

from velocity_ws.errors import InvalidNameError

__all__ = [
    "MAX_NAME_LENGTH",
    "name_user",
    "validate_key",
    "validate_room",
    "validate_stream_id",
    "validate_text",
    "validate_user_id",
]

MAX_NAME_LENGTH = 256
"""Characters of the longest name of an event, a room or a user, and of the longest key."""


def validate_room(room: str) -> str:
    """Check the name of a room, and return it.

    Raises:
        InvalidNameError: it is not a string, or has more than 256 characters.
    """
    if not isinstance(room, str) or len(room) > MAX_NAME_LENGTH:
        raise InvalidNameError(f"a room is a string of at most {MAX_NAME_LENGTH} characters, not {room!r:.80}")
    return room


def validate_key(key: str) -> str:
    """Check the key of a message, and return it.

    Raises:
        InvalidNameError: it is not a string of 1 to 256 characters, or not valid Unicode.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME_LENGTH:
        raise InvalidNameError(f"a key is a string of 1 to {MAX_NAME_LENGTH} characters, not {key!r:.80}")
    return validate_text(key)


def validate_stream_id(id_: str) -> str:
    """Check the id of a stream, and return it.

    Raises:
        InvalidNameError: it is not a string of 1 to 256 characters, or not valid Unicode, or has a zero byte, with
            which ids begin that are not the application's.
    """
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_NAME_LENGTH:
        raise InvalidNameError(f"the id of a stream is a string of 1 to {MAX_NAME_LENGTH} characters: {id_!r:.80}")
    validate_text(id_)
    if "\0" in id_:
        raise InvalidNameError(f"the id of a stream has no zero byte: {id_!r:.80}")
    return id_


def validate_text(name: str) -> str:
    """Check a name that has to travel between processes, which half a surrogate pair cannot; return it.

    Raises:
        InvalidNameError: it is not valid Unicode.
    """
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidNameError(f"between processes a name must be valid Unicode, not {name!r:.80}") from None
    return name


def name_user(user_id: str | int) -> str:
    """Turn a user's id, as an application gives it, into the user's name: 42 becomes ``"42"``.

    Raises:
        TypeError: it is neither a string nor an integer.
        InvalidNameError: it has more than 256 characters.
    """
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        return str(user_id)
    if not isinstance(user_id, str):
        raise TypeError(f"a user is named by a string or an integer, not by {user_id!r:.80}; use client.user_id")
    if len(user_id) > MAX_NAME_LENGTH:
        raise InvalidNameError(f"a user id is a string of at most {MAX_NAME_LENGTH} characters, not {user_id!r:.80}")
    return user_id


def validate_user_id(user_id: str | int | None) -> str | None:
    """Turn the id that an application gives a client's user into the user's name.

    Returns:
        The name; ``None`` for a client without a user (``None`` or an empty string).

    Raises:
        InvalidNameError: it is neither an integer nor valid Unicode of at most 256 characters.
    """
    if user_id is None or user_id == "":
        return None
    try:
        return validate_text(name_user(user_id))
    except TypeError as error:
        raise InvalidNameError(str(error)) from None
