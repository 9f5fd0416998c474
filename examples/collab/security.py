"""Passwords and tokens. A token is a JWT that says who somebody is, what it is for, and until when."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal

import jwt
from pydantic import BaseModel

from examples.collab.config import config

ALGORITHM = "HS256"


class Claims(BaseModel):
    sub: int
    aud: str
    exp: datetime


def issue_token(user_id: int, purpose: Literal["session", "ticket"], lifetime: timedelta) -> str:
    claims = {"sub": str(user_id), "aud": purpose, "exp": datetime.now(UTC) + lifetime}
    return jwt.encode(claims, config.secret, ALGORITHM)


def read_token(token: str, purpose: Literal["session", "ticket"]) -> Claims | None:
    """What a token says; ``None`` for one that is not ours, is over, or was issued for something else."""
    try:
        claims = jwt.decode(token, config.secret, [ALGORITHM], audience=purpose, options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        return None
    return Claims.model_validate(claims)


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_scrypt(password, salt)}"


def is_password(password: str, password_hash: str) -> bool:
    salt, _, expected = password_hash.partition("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), expected)


def _scrypt(password: str, salt: bytes) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()
