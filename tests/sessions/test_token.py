"""A token is read by who has the key, as it was written; whatever else a client gives names nobody."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.messages.ids import new_client_id, new_node_id
from velocity_ws.sessions.token import MAX_IDS, seal, unseal

KEY, OTHER = b"k" * 32, b"o" * 32
NODE = new_node_id()
IDS = [new_client_id(NODE) for _ in range(20)]


@given(st.binary(min_size=32, max_size=32), st.integers(1, MAX_IDS))
def test_what_was_sealed_is_read(key: bytes, count: int) -> None:
    assert unseal(key, seal(key, IDS[:count])) == tuple(IDS[:count])


def test_the_newest_ids_are_kept() -> None:
    assert unseal(KEY, seal(KEY, IDS)) == tuple(IDS[-MAX_IDS:])


def test_it_is_sealed_with_one_key() -> None:
    assert unseal(OTHER, seal(KEY, IDS[:1])) == ()


@given(st.data())
def test_one_other_character_and_it_names_nobody(data: st.DataObject) -> None:
    token = seal(KEY, IDS[:3])
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters(exclude_characters=token[at]))
    assert unseal(KEY, token[:at] + character + token[at + 1 :]) == ()


def test_ids_cannot_be_added_taken_away_or_put_in_another_order() -> None:
    token = seal(KEY, IDS[:2])
    proof, one, two = token.split("~")
    for other in (f"{proof}~{one}", f"{proof}~{two}~{one}", f"{token}~{IDS[2]}", f"{proof}~{IDS[2]}"):
        assert unseal(KEY, other) == ()


def test_what_the_key_proves_elsewhere_is_no_token() -> None:
    elsewhere = base64.urlsafe_b64encode(hmac.digest(KEY, IDS[0].encode(), "sha256")).rstrip(b"=").decode()
    assert unseal(KEY, f"{elsewhere}~{IDS[0]}") == ()


@pytest.mark.parametrize(
    "given_back",
    [None, 7, True, [], {}, b"bytes", "", "~", "x" * 43, "x" * 43 + "~", "~".join(["x" * 43] + ["y"] * 1000), "ä" * 78],
)
def test_anything_else_names_nobody(given_back: Any) -> None:
    assert unseal(KEY, given_back) == ()
