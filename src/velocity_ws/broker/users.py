"""What users are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["user_id_of"]


def user_id_of(user: Any) -> str | None:
    """What a user is called: itself, where it is a string or number, else its ``id``, ``user_id`` or ``sub``."""
    if user is None or isinstance(user, str):
        return user or None
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)
    for name in ("id", "user_id", "sub"):
        found = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if found is not None:
            return str(found)
    return None
