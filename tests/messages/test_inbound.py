"""Inbound: whatever arrives is decoded or named malformed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.json_values import ids, names, values
from velocity_ws.messages.events import encode_error
from velocity_ws.messages.inbound import Malformed, Message, decode, head_of


def malformed(raw: str | bytes) -> Malformed:
    result = decode(raw)
    assert isinstance(result, Malformed), result
    return result


@settings(max_examples=150, deadline=None)
@given(names, values, st.none() | ids, st.booleans())
def test_decode_is_the_inverse_of_any_json_encoder(event: str, data: Any, request_id: Any, escape: bool) -> None:
    raw = json.dumps({"event": event, "data": data, "id": request_id}, ensure_ascii=escape)
    assert decode(raw) == Message(event, data, request_id)
    assert decode(raw.encode()) == Message(event, data, request_id)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"event":"a"}', Message("a")),
        ('{"event":"a","data":null,"id":null}', Message("a")),
        ('{"event":"a","data":0,"id":0}', Message("a", 0, 0)),
        ('{"event":"a","id":""}', Message("a", None, "")),
        ('{"event":"a","id":-9223372036854775809}', Message("a", None, -(2**63) - 1)),
        ('{"event":"a","data":1180591620717411303424}', Message("a", 2**70)),
        (' \r\n\t{ "data" : [ ] , "event" : "a" } ', Message("a", [])),
        ('{"event":"a","more":{"is":["ignored"]},"data":1}', Message("a", 1)),
        ('{"event":"\\ud83d\\ude00"}', Message("😀")),
        ('{"event":"' + "x" * 256 + '"}', Message("x" * 256)),
        ('{"event":"' + "😀" * 256 + '"}', Message("😀" * 256)),
        ('{"event":" "}', Message(" ")),
        ('{"event":"a","room":"tea","data":1}', Message("a", 1, None, "tea")),
        ('{"event":"a","room":null}', Message("a")),
        ('{"event":"a","room":""}', Message("a", None, None, "")),
        ('{"event":"a","room":"' + "😀" * 256 + '"}', Message("a", None, None, "😀" * 256)),
        ('{"event":"__proto__","data":{"__proto__":1}}', Message("__proto__", {"__proto__": 1})),
    ],
)
def test_good(raw: str, message: Message) -> None:
    assert decode(raw) == message


HUGE = "1" * 10_000
DEEP = 100_000


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(raw, id=name)
        for name, raw in {
            "nothing": "",
            "only spaces": " \n",
            "not json": "hello",
            "single quotes": "{'event':'a'}",
            "truncated object": '{"event":"a"',
            "truncated string": '{"event":"a',
            "truncated escape": '{"event":"\\u12',
            "truncated array": "[1,2",
            "truncated, wrong type first": '{"event":1',
            "truncated, wrong type of id": '{"id":true,"event":"a"',
            "truncated string at the top": '"abc',
            "truncated number": "-",
            "truncated literal": "nul",
            "trailing garbage": '{"event":"a"} x',
            "two messages": '{"event":"a"}{"event":"b"}',
            "trailing garbage after a wrong type": "[1,2] x",
            "trailing comma": '{"event":"a",}',
            "comment": '{"event":"a"/**/}',
            "unquoted key": '{event:"a"}',
            "NaN": '{"event":"a","data":NaN}',
            "nested NaN": '{"event":"a","data":[{"x":NaN}]}',
            "NaN at the top": "NaN",
            "Infinity": '{"event":"a","data":Infinity}',
            "-Infinity": '{"event":"a","data":-Infinity}',
            "NaN in an unknown field": '{"event":"a","x":NaN}',
            "too large for a float": '{"event":"a","data":1e999}',
            "leading zero": '{"event":"a","data":01}',
            "hexadecimal": '{"event":"a","data":0x1}',
            "lone high surrogate": '{"event":"a","data":"\\ud800"}',
            "lone low surrogate": '{"event":"a","data":"\\udc00"}',
            "swapped surrogates": '{"event":"a","data":"\\udc00\\ud800"}',
            "lone surrogate in the event": '{"event":"\\ud800"}',
            "lone surrogate in a key": '{"event":"a","data":{"\\ud800":1}}',
            "lone surrogate, not escaped": '{"event":"\ud800"}',
            "control character": '{"event":"a\nb"}',
            "null character": '{"event":"\x00"}',
            "byte order mark": '\ufeff{"event":"a"}',
            "deep list": "[" * DEEP,
            "deep list, closed": "[" * DEEP + "]" * DEEP,
            "deep data": '{"event":"a","data":' + "[" * DEEP + "]" * DEEP + "}",
            "deep objects": '{"event":"a","data":' + '{"a":' * DEEP + "1" + "}" * DEEP + "}",
            "deep unknown field": '{"event":"a","x":' + "[" * DEEP + "]" * DEEP + "}",
            "deep id": '{"event":"a","id":' + "[" * DEEP + "]" * DEEP + "}",
            "deep data and no event": '{"data":' + "[" * DEEP + "]" * DEEP + "}",
            "huge integer": f'{{"event":"a","data":{HUGE}}}',
            "huge negative integer": f'{{"event":"a","data":-{HUGE}}}',
            "huge id": f'{{"event":"a","id":{HUGE}}}',
            "huge event": f'{{"event":{HUGE}}}',
            "huge integer at the top": HUGE,
            "huge exponent": f'{{"event":"a","data":1e{HUGE}}}',
            "not UTF-8": b"\xff\xfe",
            "event not UTF-8": b'{"event":"\xff"}',
            "data not UTF-8": b'{"event":"a","data":"\xc3\x28"}',
            "unknown field not UTF-8": b'{"event":"a","x":"\xff"}',
            "unknown key not UTF-8": b'{"event":"a","\xff":1}',
            "encoded surrogate": b'{"event":"\xed\xa0\x80"}',
            "overlong encoding": b'{"event":"\xc0\xaf"}',
            "UTF-16": '{"event":"a"}'.encode("utf-16"),
        }.items()
    ],
)
def test_invalid_json(raw: str | bytes) -> None:
    result = malformed(raw)
    assert result.code == "INVALID_JSON"
    assert result.id is None
    # It is sent to the client, and must neither fail to be nor repeat a message of any size.
    assert len(encode_error(result.code, result.message).payload) < 300


@pytest.mark.parametrize(
    ("raw", "request_id"),
    [
        ("[1,2]", None),
        ("[]", None),
        ('"event"', None),
        ("null", None),
        ("true", None),
        ("5", None),
        ("{}", None),
        ('{"data":1}', None),
        ('{"Event":"a"}', None),
        ('{"event":""}', None),
        ('{"event":null}', None),
        ('{"event":5}', None),
        ('{"event":true}', None),
        ('{"event":["a"]}', None),
        ('{"event":{"event":"a"}}', None),
        ('{"event":"' + "x" * 257 + '"}', None),
        ('{"event":"' + "😀" * 257 + '"}', None),
        ('{"event":"' + "x" * 1_000_000 + '"}', None),
        ('{"event":"a","id":true}', None),
        ('{"event":"a","id":false}', None),
        ('{"event":"a","id":1.5}', None),
        ('{"event":"a","id":1.0}', None),
        ('{"event":"a","id":[1]}', None),
        ('{"event":"a","id":{}}', None),
        ('{"event":"","id":true}', None),
        # The id is echoed wherever it can be read, before or after what is wrong.
        ('{"id":7}', 7),
        ('{"id":0,"event":""}', 0),
        ('{"event":"","id":"seven"}', "seven"),
        ('{"event":5,"data":{},"id":7}', 7),
        ('{"id":"","event":null}', ""),
        ('{"event":[],"id":1180591620717411303424}', 2**70),
        ('{"event":"' + "x" * 257 + '","id":"é"}', "é"),
        ('{"event":"a","id":7,"room":5}', 7),
        ('{"event":"a","id":7,"room":["tea"]}', 7),
        ('{"event":"a","room":"' + "x" * 257 + '","id":7}', 7),
    ],
)
def test_invalid_event(raw: str, request_id: int | str | None) -> None:
    result = malformed(raw)
    assert result.code == "INVALID_EVENT"
    assert result.id == request_id
    assert type(result.id) is type(request_id)
    assert "event" in result.message
    assert len(encode_error(result.code, result.message, None, result.id).payload) < 400


def cost(function: Callable[[str], object], text: str, times: int) -> float:
    """Seconds of processor time that something takes so many times, at best; without what measures coverage."""
    took = []
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        for _ in range(3):
            began = time.process_time()
            for _ in range(times):
                function(text)
            took.append(time.process_time() - began)
    finally:
        sys.settrace(tracer)
    return min(took)


@pytest.mark.parametrize("number", ["1e308", "-1.7976931348623157e308", "2.2250738585072011e-308", "5e-324", "1e23"])
@pytest.mark.parametrize(
    "around",
    [
        '{"event":"a","data":%s}',
        '{"event":"a","data":%s,}',
        '{"event":5,"data":1,"id":%s}',
        '{"event":"a","id":%s,}',
        '{"event":%s}',
        "%s",
    ],
)
def test_numbers_that_are_hard_to_round_cost_about_what_others_do(number: str, around: str) -> None:
    for size, times in ((64 * 1024, 1), (800, 50)):
        numbers = f"[{','.join([number] * (size // len(number)))}]"
        assert cost(decode, around % numbers, times) < 8 * cost(json.loads, numbers, times) + 0.002


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1.7976931348623157e308)
@example(5e-324)
@example(2.2250738585072011e-308)
@example(1e23)
def test_a_number_is_the_same_in_a_long_message(number: float) -> None:
    text = f'{{"event":"a","data":{number!r}}}'
    assert decode(text + " " * 2000) == decode(text) == Message("a", number)


@pytest.mark.parametrize("number", ["1e309", "-1e309", "1.7976931348623159e308", "1e99999", "NaN", "Infinity", "1_0.5"])
@pytest.mark.parametrize("padding", [0, 2000])
def test_a_number_beyond_the_largest_is_no_json_however_long_the_message_is(number: str, padding: int) -> None:
    result = malformed(f'{{"event":"a","id":7,"data":{number}}}' + " " * padding)
    assert (result.code, result.id) == ("INVALID_JSON", 7)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.characters(codec=None, categories=["Cs"])) | st.binary())
@example(b"\x00")
@example("\ud800")
def test_decode_raises_for_nothing(raw: str | bytes) -> None:
    assert isinstance(decode(raw), Message | Malformed)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_decode_agrees_with_another_parser_on_mutations(data: st.DataObject) -> None:
    envelope = {"event": data.draw(names), "data": data.draw(values), "id": data.draw(ids)}
    raw = bytearray(json.dumps(envelope, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        length = data.draw(st.integers(0, 3))
        raw[at : at + length] = data.draw(st.binary(max_size=3) | st.sampled_from([b"{", b"]", b'"', b"\\", b"1"]))
    result = decode(bytes(raw))
    if isinstance(result, Malformed) and result.code == "INVALID_JSON":
        return
    # Python's parser takes everything that is JSON, and more: what is not even that must have been INVALID_JSON.
    reference = json.loads(raw.decode())
    if isinstance(result, Malformed):
        assert not _is_envelope(reference)
    else:
        assert _is_envelope(reference)
        assert result == Message(reference["event"], reference.get("data"), reference.get("id"))


def _is_envelope(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    event, request_id = value.get("event"), value.get("id")
    return isinstance(event, str) and 0 < len(event) <= 256 and type(request_id) in (int, str, type(None))


def test_a_message_cannot_be_changed() -> None:
    message = decode('{"event":"a"}')
    assert isinstance(message, Message)
    with pytest.raises(AttributeError):
        message.event = "b"  # type: ignore[misc] # what mypy says is what this test shows


@pytest.mark.parametrize(
    "raw",
    [
        '{"event": "x", "data": {"id": 2}, "id": 1, "room": "tea"}',
        r'{"\u0065vent": "\u0078", "room": null, "id": "a"}',
        '{"event": "x", "event": "y", "more": [1, {"event": "z"}]}',
        '{"event": "x", "id": 123456789012345678901234567890}',
    ],
)
def test_the_head_of_a_message_is_what_decode_finds(raw: str) -> None:
    head, message = head_of(raw), decode(raw)
    assert isinstance(message, Message)
    assert head is not None
    assert (head.event, head.id, head.room) == (message.event, message.id, message.room)


@pytest.mark.parametrize(
    "raw", ["", "[]", "{}", '{"event": 1}', '{"event": "x"', '{"event": "x", "id": []}', "[" * 9999]
)
def test_what_is_no_message_has_no_head(raw: str) -> None:
    assert head_of(raw) is None
