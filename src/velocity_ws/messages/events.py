"""Events: every event that we send by ourselves, named and encoded. Pure: knows no client and no room."""

from __future__ import annotations

from typing import Any

from velocity_ws.messages.outbound import PreparedMessage, encode

__all__ = ["encode_error"]


def encode_error(
    code: str, message: str, details: dict[str, Any] | None = None, request_id: int | str | None = None
) -> PreparedMessage:
    """Encode ``event: "error"``.

    Raises:
        EncodeError: the details have no JSON form.
    """
    return encode("error", {**(details or {}), "code": code, "message": message}, request_id)
