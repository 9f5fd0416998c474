"""Signed login tokens: whoever has the key can check one, so they outlive a restart without being stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time

LIFETIME = 12 * 3600.0

# Fit for a demonstration on one's own machine only: who knows the key can be anybody. Set CHAT_SECRET elsewhere.
DEVELOPMENT_KEY = "a development key that everybody knows"


def issue(name: str) -> str:
    """A token that says its bearer is `name`."""
    payload = base64.urlsafe_b64encode(json.dumps({"name": name, "until": time.time() + LIFETIME}).encode()).decode()
    return f"{payload}.{_signature(payload)}"


def check(token: str) -> str | None:
    """The name in a token, if it was issued here and has not expired."""
    payload, _, signature = token.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload).encode()):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload))
        name, until = str(claims["name"]), float(claims["until"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return name if time.time() < until else None


def _signature(payload: str) -> str:
    key = os.environ.get("CHAT_SECRET") or DEVELOPMENT_KEY
    return hmac.new(key.encode(), payload.encode(), hashlib.sha256).hexdigest()
