"""Token: what a client gives back when it comes again, which proves the ids its session has had. Knows no session.

It is no secret of the client's and lets nobody in: it only says which messages of its own a client is not to get again.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from typing import Final

from velocity_ws.messages.ids import CLIENT_ID

__all__ = ["MAX_IDS", "seal", "unseal"]

MAX_IDS: Final = 16
"""Ids that a token names: a session that was lost more often has forgotten its first ones."""
_PURPOSE: Final = b"velocity-ws session 1\0"
"""Goes before what is proved, as other things may be proved with the same key."""
_is_token = re.compile(rf"([\w-]{{43}})~({CLIENT_ID}(?:~{CLIENT_ID}){{0,{MAX_IDS - 1}}})", re.ASCII).fullmatch


def seal(key: bytes, ids: Sequence[str]) -> str:
    """Make the token of a session.

    Args:
        key: the cluster's secret.
        ids: the ids of clients that the session has had, the newest last; of more than `MAX_IDS` the newest.
    """
    named = "~".join(ids[-MAX_IDS:])
    return f"{_proof(key, named)}~{named}"


def unseal(key: bytes, text: object) -> tuple[str, ...]:
    """Read a token that a client gives back, which may be anything.

    Args:
        key: the cluster's secret.
        text: what the client gave.

    Returns:
        The ids, the newest last; none of them where it is no token that was sealed with this key.
    """
    found = _is_token(text) if isinstance(text, str) else None
    if found is None or not hmac.compare_digest(found[1], _proof(key, found[2])):
        return ()
    return tuple(found[2].split("~"))


def _proof(key: bytes, named: str) -> str:
    digest = hmac.digest(key, _PURPOSE + named.encode("ascii"), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
