"""Envelopes: what is appended to a room's log, and read back, in the form in which nodes publish it. Pure."""

from __future__ import annotations

import msgspec

from velocity_ws.cluster.envelopes import (
    InvalidEnvelope,
    Notification,
    Publication,
    decode_body,
    decode_header,
    encode_body,
    encode_unstamped,
)
from velocity_ws.history.hearing import Opened
from velocity_ws.messages.ids import node_of

__all__ = ["CLEARED", "NOTICE", "REMOVED", "encode_entry", "encode_notice", "open_envelope"]

NOTICE = "history"
"""The name of the notification by which nodes hear that a log was changed otherwise than by a message."""
REMOVED = "removed"
CLEARED = "cleared"
_NO_STAMP = bytes(40)


def encode_entry(node_id: str, room: str, payload: bytes, excluded: frozenset[str], key: str = "") -> bytes:
    """Encode a message for a room's log; the engine puts its stamp behind it.

    Args:
        node_id: the id of the node that sends it.
        room: the room.
        payload: the JSON of the message, without a room and a place.
        excluded: the ids of clients that do not get it.
        key: as in `Opened`.
    """
    names = tuple(name for name in excluded if node_of(name) is not None) if excluded else ()
    return encode_unstamped(node_id, Publication("rooms", (room,), 0, names, True, payload, False, key))


def encode_notice(node_id: str, what: str) -> bytes:
    """Encode a notice for those who hear a room: `REMOVED` or `CLEARED`."""
    return encode_unstamped(node_id, Notification(NOTICE, msgspec.Raw(encode_body(what))))


def open_envelope(envelope: bytes) -> Opened | None:
    """Read what the engine has kept; ``None`` where it is nothing that a node of this version has appended."""
    data = envelope + _NO_STAMP
    try:
        decode_header(data)
        body = decode_body(data)
    except InvalidEnvelope:
        return None
    if not isinstance(body, Publication) or not body.is_text or body.kind != "rooms":
        return None
    return Opened(body.payload, frozenset(body.excluded), body.key)
