"""Wire: a head and a payload are an envelope, and a piece is a message that any client can read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.envelopes import StreamPiece, decode_body, decode_header, encode_body
from velocity_ws.messages.ids import new_node_id
from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import Piece
from velocity_ws.streams.wire import Frames, Heads

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize("size", [0, 1, 22, 255, 256, 65_535, 65_536, 1_000_000])
def test_a_head_and_a_payload_are_one_envelope(size: int) -> None:
    node_id, payload = new_node_id(), b"x" * size
    data = Heads(node_id, "chat:é", "answer 𝄞").of(size) + payload
    header = decode_header(data)
    assert header is not None
    assert header.origin == node_id
    said = StreamPiece("chat:é", "answer 𝄞", payload)
    assert decode_body(data) == said
    assert data.endswith(encode_body(said))


@given(
    plain_text,
    st.text(min_size=1, max_size=20),
    st.text(max_size=20),
    st.integers(0, 2**53),
    st.sampled_from(["", "done"]),
)
def test_text_is_a_message(text: str, id_: str, room: str, start: int, end: End) -> None:
    message = Frames(room, id_).of(Piece(0, start, len(text), "text" if text else "", end, text.encode()))
    data = {"id": id_, "from": start, "text": text} | ({"end": end} if end else {})
    assert message.is_text
    assert json.loads(message.text) == {"event": "stream", "data": data, "room": room}


def test_items_are_a_message() -> None:
    message = Frames("chat:7", "a").of(Piece(3, 5, 2, "items", "error", b'{"a":1},"text"'))
    data = {"id": "a", "from": 5, "items": [{"a": 1}, "text"], "end": "error"}
    assert json.loads(message.text) == {"event": "stream", "data": data, "room": "chat:7"}
