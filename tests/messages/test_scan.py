"""What is said of a JSON text without building it is what somebody would say who reads it character by character."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from velocity_ws.messages.inbound import Malformed, Message, decode
from velocity_ws.messages.scan import MAX_DEPTH, TOKENS, find_id, is_too_deep

# Ids in the data, and strings that look like one, are what must not be mistaken.
keys = st.sampled_from(["id", "event", 'say "id":5', "[{", "}]", "\\", '\\"', "é"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
scalars = st.none() | st.booleans() | st.integers() | keys
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)
ids = st.integers() | keys
HERE = "what is broken is here"
BROKEN = [
    '"\\ud83d"', '"\\ude00 x"', '"a\\ud83d\\n"', '"\\ude00\\ud83d"', '"\\ud83d\\""', '"\\\\\\ud83d"', '"\\q"',
    '"\\u12"', '"a\nb"', "NaN", "-Infinity", "1e999", "01", "+1", "1" * 5000, "undefined", "'x'", "[1,]", "[,]", "",
    "1 2", "{a:1}",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_id_of_a_broken_message_is_found_wherever_it_stands(data: st.DataObject) -> None:
    broken: Any = HERE
    for _ in range(data.draw(st.integers(0, 3))):
        broken = data.draw(
            st.tuples(st.lists(values), st.just(broken), values).map(lambda parts: [*parts[0], *parts[1:]])
            | st.tuples(keys, st.just(broken)).map(lambda parts: {"id": 1, parts[0] + "?": parts[1], "event": 2})
        )
    members = {"event": data.draw(keys), "data": broken, "id": data.draw(ids), "more": data.draw(values)}
    order = data.draw(st.permutations(list(members)))
    separators = data.draw(st.sampled_from([(",", ":"), (" ,\n", "\t: ")]))
    text = json.dumps(
        {key: members[key] for key in order}, ensure_ascii=data.draw(st.booleans()), separators=separators
    )
    text = text.replace(json.dumps(HERE), data.draw(st.sampled_from(BROKEN)))
    result = decode(text)
    assert isinstance(result, Malformed)
    assert result.id == members["id"]
    assert type(result.id) is type(members["id"])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_other_id_is_found_in_a_message_that_was_cut_off(data: st.DataObject) -> None:
    request_id = data.draw(ids)
    text = json.dumps({"data": data.draw(values), "id": request_id, "more": [{"id": data.draw(values)}]})
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert find_id(cut) in (None, request_id)
    if '"more": [' in cut and isinstance(request_id, str):
        assert find_id(cut) == request_id


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_is_raised_and_the_id_is_that_of_a_whole_parser_where_there_is_one(data: st.DataObject) -> None:
    raw = bytearray(json.dumps({"id": data.draw(ids), "data": data.draw(values)}, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        length = data.draw(st.integers(0, 3))
        raw[at : at + length] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"]", b'"', b"\\", b"1", b"NaN"])
        )
    text = raw.decode(errors="replace")
    found = find_id(text)
    assert found is None or type(found) in (int, str)
    try:
        whole = json.loads(text)
    except ValueError:
        return
    expected = whole.get("id") if isinstance(whole, dict) else None
    assert found == (expected if type(expected) in (int, str) else None)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.characters(codec=None)) | st.text('{}[]":,\\ id1u d8'))
@example('{"id":\ud800}')
@example('{"a":"')
@example("\\")
def test_nothing_is_raised_for_any_text(text: str) -> None:
    assert find_id(text) is None or type(find_id(text)) in (int, str)
    assert is_too_deep(text) in (True, False)


@pytest.mark.parametrize(
    ("text", "request_id"),
    [
        ('{"event":"a","data":"\\ud83d","id":7}', 7),
        ('{"id":7,"event":"a","data":"\\ud83d"}', 7),
        ('{"event":"\\ud83d","id":"x"}', "x"),
        ('{"event":"a","data":{"id":3},"x":"\\ud83d","id":7}', 7),
        ('{"event":"a","data":[{"id":3},"\\ud83d"]}', None),
        ('{"event":"a","data":"\\ud83d, \\"id\\":3"}', None),
        ('{"event":"a","data":"\\ud83d","id":"\\ud83d\\ude00"}', "😀"),
        ('{"event":"a","data":"\\ud83d","\\u0069d":7}', 7),
        ('{"id":1,"data":NaN,"id":2}', 2),
        ('{"id":1,"data":NaN,"id":"2\\\\3"}', "2\\3"),
        ('{"data":NaN,"id":"a\\"b"}', 'a"b'),
        # Not an id that could be answered, not the message's, or not all of it.
        ('{"event":"a","id":"\\ud83d"}', None),
        ('{"data":NaN,"id":1.5}', None),
        ('{"data":NaN,"id":true}', None),
        ('{"data":NaN,"id":[7]}', None),
        ('{"data":NaN,"id":7', None),
        ('{"id":7', None),
        ('{"event":"a"}{"id":7}', None),
        ('{"event":"a"},"id":7}', None),
        ('[{"id":7,"data":NaN}]', None),
        ('[NaN,{"id":7}]', None),
        ('"id":7', None),
        ('NaN{"id":7}', None),
        ('{"data":"no end,"id":7}', None),
    ],
)
def test_an_id(text: str, request_id: int | str | None) -> None:
    assert find_id(text) == request_id


def test_the_id_behind_half_an_emoji_is_found_in_the_longest_message() -> None:
    chunk = ["half \ud83d", {"id": 1}, [], "\\"]
    text = json.dumps({"event": "a", "data": chunk * 14_000, "id": 7})
    assert len(text) > 500_000
    assert find_id(text) == 7


def test_so_much_is_looked_at_behind_what_is_no_json() -> None:
    assert find_id('{"data":NaN,"x":[' + "[1]," * 9_000 + '0],"id":7}') == 7
    assert find_id('{"data":NaN,"x":[' + "[1]," * TOKENS + '0],"id":7}') is None


# --- nesting


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]"), ('["[[[",', "]")])
def test_one_level_of_nesting_too_many_is_no_json(opening: str, closing: str) -> None:
    levels = (MAX_DEPTH - 1) // len(closing)
    good = decode('{"event":"a","data":' + nested(levels, opening, closing) + ',"id":7}')
    assert isinstance(good, Message)
    bad = decode('{"event":"a","data":' + nested(levels + 1, opening, closing) + ',"id":7}')
    assert isinstance(bad, Malformed)
    assert (bad.code, bad.id) == ("INVALID_JSON", 7)
    assert str(MAX_DEPTH) in bad.message


def test_the_id_behind_whatever_is_nested_too_deeply_is_found() -> None:
    for depth in (501, 990, 2_000, 100_000):
        for text in ('{"data":' + nested(depth) + ',"id":7}', '{"id":7,"data":' + nested(depth) + "}"):
            result = decode(text)
            assert isinstance(result, Malformed)
            assert result.id == 7, depth


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@settings(max_examples=150, deadline=None)
@given(values, st.integers(485, 515), st.integers(0, 120), st.integers(0, 300))
def test_the_depth_is_that_of_the_parsed_value(value: Any, depth: int, before: int, after: int) -> None:
    inner = [[]] * before + [value] + [{"[[[": "]]]"}] * after
    text = nested(depth).replace("1", json.dumps(inner))
    assert is_too_deep(text) is (depth + depth_of(inner) > MAX_DEPTH)
