"""Stream forms: offsets, limits, producers, bodies and cursors are read as they were written, or refused."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.asgi.stream_forms import (
    CURSOR_EPOCH,
    Wanted,
    cursor_after,
    etag_of,
    offset_of,
    parse_body,
    parse_offset,
    producer_of,
    seq_of,
    tag_of,
    wants_end,
)
from velocity_ws.streams.items import WRITER_SIZE, End, Summary
from velocity_ws.streams.notes import Meta, Note, Producer
from velocity_ws.streams.pieces import Piece, pack, unpack
from velocity_ws.streams.requests import Found, Problem

TAG = "0123456789abcdef"
LONG = 10 * 365 * 86400
tags = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
header_texts = st.text(st.characters(max_codepoint=255), max_size=40)


def found(length: int = 0, note: Note | None = None, end: End = "", writer: bytes = b"w" * WRITER_SIZE) -> Found:
    return Found(Summary("a", "topic", "", writer, 1, length, end, 0, 0), note)


def a_note(content_type: str = "text/plain", tag: str = TAG) -> Note:
    return Note(Meta(content_type, tag))


def refused(call: Any, *arguments: Any, **more: Any) -> str:
    """Why something is refused."""
    with pytest.raises(Problem) as caught:
        call(*arguments, **more)
    return caught.value.why


# --- offsets


@given(st.integers(1, 2**53 - 1), st.integers(0, 2**20), tags)
def test_an_offset_leads_back_to_its_place(position: int, more: int, tag: str) -> None:
    assert parse_offset(offset_of(position, tag), found(position + more, a_note(tag=tag))) == position


@given(st.lists(st.integers(0, 2**53 - 1), min_size=2, max_size=2), tags)
def test_offsets_of_a_stream_sort_as_texts_as_their_places_do(places: list[int], tag: str) -> None:
    one, two = places
    assert (offset_of(one, tag) < offset_of(two, tag)) == (one < two)


@given(st.integers(1, 1000), st.integers(0, 1000), tags, tags)
def test_an_offset_of_another_stream_or_beyond_the_end_is_refused(at: int, length: int, tag: str, other: str) -> None:
    stream = found(length, a_note(tag=tag))
    if other != tag or at > length:
        assert refused(parse_offset, offset_of(at, other), stream) == "invalid"


def test_the_beginning_is_the_same_of_every_stream() -> None:
    stream = found(7, a_note())
    assert [parse_offset(text, stream) for text in (None, "-1", offset_of(0, "f" * 16))] == [0, 0, 0]
    assert parse_offset("now", stream) == 7


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f_]{30,36}"), st.from_regex(r"\d{16}_[0-9a-f]{16}")))
def test_any_text_is_an_offset_within_the_stream_or_refused(text: str) -> None:
    stream = found(7, a_note())
    try:
        position = parse_offset(text, stream)
    except Problem as problem:
        assert problem.why == "invalid"  # noqa: PT017 - either is right
        return
    assert 0 <= position <= 7
    assert text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "-0", "-2", "NOW", "now ", " -1", "7", "7_" + TAG, f"{7:016d}", f"{7:016d}_", f"{7:016d}_{TAG}\n",
        f"{7:016d}_{TAG.upper()}", f"{7:015d}_{TAG}", f"{7:017d}_{TAG}", "\u0660" * 15 + "7_" + TAG, f"+{7:015d}_{TAG}",
        f"{8:016d}_{TAG}", "9" * 16 + "_" + TAG, "x" * 10_000,
    ],
)  # fmt: skip
def test_forged_offsets_are_refused(text: str) -> None:
    assert refused(parse_offset, text, found(7, a_note())) == "invalid"


def test_a_stream_of_the_application_has_offsets_of_its_own_that_do_not_tell_its_writer() -> None:
    one, two = found(5), found(5, writer=b"v" * WRITER_SIZE)
    assert tag_of(one) != tag_of(two)
    assert len(tag_of(one)) == 16
    assert b"w".hex() * 4 not in tag_of(one)
    assert parse_offset(offset_of(3, tag_of(one)), one) == 3
    assert refused(parse_offset, offset_of(3, tag_of(two)), one) == "invalid"
    assert tag_of(found(5, a_note())) == TAG


states = st.tuples(st.just(False), st.just("")) | st.tuples(st.just(True), st.sampled_from(get_args(End)))


@given(st.integers(0, 9), st.integers(0, 9), states, st.integers(0, 9), st.integers(0, 9), states)
def test_an_entity_tag_is_of_one_part_in_one_state(
    a: int, b: int, c: tuple[bool, End], d: int, e: int, f: tuple[bool, End]
) -> None:
    one, two = etag_of(a, b, TAG, is_all=c[0], end=c[1]), etag_of(d, e, TAG, is_all=f[0], end=f[1])
    assert (one == two) == ((a, b, c) == (d, e, f))
    assert one[0] == one[-1] == '"'
    assert one.count('"') == 2


# --- cursors


@given(st.floats(CURSOR_EPOCH, CURSOR_EPOCH + 10**9), st.none() | st.text(max_size=20) | st.integers(0).map(str))
def test_a_cursor_is_never_what_it_was_before(now: float, cursor: str | None) -> None:
    after = cursor_after(cursor, now)
    assert after.isdigit()
    assert int(after) >= (now - CURSOR_EPOCH) // 20
    if cursor is not None and re.fullmatch("0|[1-9][0-9]{0,15}", cursor):
        assert int(after) > int(cursor) or int(after) == (now - CURSOR_EPOCH) // 20 > int(cursor)
        assert int(after) <= max(int(cursor) + 180, (now - CURSOR_EPOCH) // 20)


def test_those_without_a_cursor_get_one_in_an_interval() -> None:
    assert cursor_after(None, CURSOR_EPOCH) == cursor_after("x", CURSOR_EPOCH + 19.9) == "0"
    assert cursor_after(None, CURSOR_EPOCH + 20) == "1"


# --- what a new stream is


@given(st.integers(0, LONG))
def test_a_number_of_seconds_is_a_limit(seconds: int) -> None:
    wanted = Wanted.of({"stream-ttl": str(seconds)})
    assert (wanted.ttl, wanted.expires, wanted.meta(TAG).ttl) == (seconds, None, seconds)


@pytest.mark.parametrize("ttl", ["", "-1", "+1", "01", "1.5", "1e3", "1s", " 1", "٣", "0x10", str(LONG + 1), "9" * 400])
def test_what_is_no_number_of_seconds_is_refused(ttl: str) -> None:
    assert refused(Wanted.of, {"stream-ttl": ttl}) == "invalid"


zones = st.builds(timezone, st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda delta: timedelta(minutes=delta // timedelta(minutes=1))
))  # fmt: skip


@given(st.datetimes(timezones=st.one_of(st.just(UTC), zones)))
def test_a_moment_is_the_same_in_every_time_zone(moment: datetime) -> None:
    text = moment.isoformat()
    try:
        expected = moment.astimezone(UTC).timestamp()
    except OverflowError:
        assert refused(Wanted.of, {"stream-expires-at": text}) == "invalid"
        return
    wanted = Wanted.of({"stream-expires-at": text})
    assert (wanted.expires, wanted.expires_at, wanted.ttl) == (expected, text, None)
    assert wanted.meta(TAG).expires == expected


@given(header_texts)
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        Wanted.of({"stream-expires-at": text})
    except Problem as problem:
        assert problem.why == "invalid"  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "text", ["", "2030-01-01", "2030-01-01T00:00:00", "2030-01-01 00:00:00Z", "tomorrow", "0001-01-01T00:00:00+01:00"]
)
def test_what_is_no_moment_of_one_time_zone_is_refused(text: str) -> None:
    assert refused(Wanted.of, {"stream-expires-at": text}) == "invalid"


def test_a_stream_has_one_limit_at_most() -> None:
    assert refused(Wanted.of, {"stream-ttl": "1", "stream-expires-at": "2030-01-01T00:00:00Z"}) == "invalid"
    assert Wanted.of({}).meta(TAG) == Meta("application/octet-stream", TAG)


@pytest.mark.parametrize(
    ("type_", "is_one"),
    [
        ("text/plain", True), ("text/plain; charset=utf-8", True), ("application/x.y+json", True),
        ("text/plain;", True),
        ("text", False), ("text/", False), ("/plain", False), ("text/plain\r\nx: y", False), ("text/pl ain", False),
        ("text/plain; \x7f", False), ("text/plain;é", False), ("é/plain", False), ("a/" + "b" * 300, False),
    ],
)  # fmt: skip
def test_a_content_type_is_one(type_: str, is_one: bool) -> None:
    if is_one:
        assert Wanted.of({"content-type": type_}).type == type_
    else:
        assert refused(Wanted.of, {"content-type": type_}) == "invalid"


@pytest.mark.parametrize(
    ("headers", "fork"),
    [
        ({}, (None, None, 0)),
        ({"stream-forked-from": "/s/a"}, ("/s/a", None, 0)),
        ({"stream-forked-from": "/s/a", "stream-fork-offset": "1_x"}, ("/s/a", "1_x", 0)),
        ({"stream-forked-from": "/s/a", "stream-fork-offset": "1", "stream-fork-sub-offset": "7"}, ("/s/a", "1", 7)),
        ({"stream-forked-from": "/s/a", "stream-fork-sub-offset": "0"}, ("/s/a", None, 0)),
        ({"stream-forked-from": "/s/a", "stream-fork-sub-offset": "1"}, None),
        ({"stream-forked-from": "/s/a", "stream-fork-offset": "1", "stream-fork-sub-offset": "-1"}, None),
        ({"stream-fork-offset": "1"}, None),
        ({"stream-fork-sub-offset": "1"}, None),
    ],
)
def test_a_fork_says_of_what_and_where(
    headers: dict[str, str], fork: tuple[str | None, str | None, int] | None
) -> None:
    if fork is None:
        assert refused(Wanted.of, headers) == "invalid"
    else:
        wanted = Wanted.of(headers)
        assert (wanted.source, wanted.offset, wanted.sub_offset) == fork


def test_a_fork_has_what_it_does_not_say_from_its_source() -> None:
    source = found(9, Note(Meta("text/html", TAG, 60)))
    meta = Wanted.of({"stream-forked-from": "/s/a", "stream-fork-offset": "x"}).forked(source, 5)
    assert meta == Meta("text/html", TAG, 60, source="a", fork="x+0", forked_at=5)
    own = Wanted.of({"stream-forked-from": "/s/a", "stream-ttl": "7", "content-type": "text/html;x"}).forked(source, 5)
    assert (own.ttl, own.type, own.fork) == (7, "text/html;x", "+0")
    at = {"stream-forked-from": "/s/a", "stream-expires-at": "2030-01-01T00:00:00Z"}
    assert Wanted.of(at).forked(source, 5).ttl is None
    assert refused(Wanted.of({"content-type": "text/plain"}).forked, source, 5) == "conflict"
    assert refused(Wanted.of({}).forked, found(9), 5) == "conflict"


@pytest.mark.parametrize(
    ("value", "is_end"), [("true", True), ("True", True), ("TRUE", True), ("1", False), ("", False)]
)
def test_a_stream_is_closed_by_one_word(value: str, is_end: bool) -> None:
    assert wants_end({"stream-closed": value}) is is_end
    assert Wanted.of({"stream-closed": value}).is_closed is is_end
    assert not wants_end({})


# --- who sent it

numbers = st.integers(0, 2**53 - 1)


@given(st.text(st.characters(max_codepoint=255), min_size=1, max_size=256), numbers, numbers)
def test_a_producer_is_who_it_says(id_: str, epoch: int, seq: int) -> None:
    headers = {"producer-id": id_, "producer-epoch": str(epoch), "producer-seq": str(seq)}
    assert producer_of(headers) == Producer(id_, epoch, seq)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "producer-id": header_texts,
            "producer-epoch": header_texts | numbers.map(str),
            "producer-seq": header_texts | numbers.map(str),
        },
    )
)
def test_a_producer_that_is_said_by_halves_or_wrong_is_refused(headers: dict[str, str]) -> None:
    try:
        producer = producer_of(headers)
    except Problem as problem:
        assert problem.why == "invalid"  # noqa: PT017 - either is right
        assert headers
        return
    said = {} if producer is None else {
        "producer-id": producer.id, "producer-epoch": str(producer.epoch), "producer-seq": str(producer.seq),
    }  # fmt: skip
    assert said == headers


@pytest.mark.parametrize(
    "wrong", [{"producer-seq": str(2**53)}, {"producer-epoch": "-1"}, {"producer-id": ""}, {"producer-id": "x" * 257}]
)
def test_numbers_of_a_producer_have_bounds(wrong: dict[str, str]) -> None:
    assert refused(producer_of, {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0", **wrong}) == "invalid"


def test_a_sequence_text_has_a_bound() -> None:
    assert seq_of({}) is None
    assert seq_of({"stream-seq": "x" * 256}) == "x" * 256
    assert refused(seq_of, {"stream-seq": "x" * 257}) == "invalid"


# --- bodies

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
        st.characters(exclude_categories=["Cs"])
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(json_values, st.booleans(), st.booleans())
def test_a_body_of_json_is_its_items_as_they_were_sent(value: Any, is_ascii: bool, has_spaces: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii, indent=2 if has_spaces else None).encode()
    items = value if isinstance(value, list) else [value]
    said = parse_body(body, a_note("application/json"), "", is_first=True)
    assert (said.kind, said.length) == ("items", len(items))
    assert json.loads(b"[%b]" % said.data) == items
    if items:
        piece = Piece(0, 0, said.length, said.kind, "", said.data)
        assert unpack(pack(piece)) == piece
    else:
        assert refused(parse_body, body, a_note("application/json"), "") == "invalid"


@given(st.binary(max_size=40) | st.text('[]{}",:1 \\u\n', max_size=20).map(str.encode))
def test_any_body_is_json_or_refused(body: bytes) -> None:
    try:
        said = parse_body(body, a_note("application/json; charset=utf-8"), "", is_first=True)
    except Problem as problem:
        assert problem.why == "invalid"  # noqa: PT017 - either is right
        return
    assert len(json.loads(b"[%b]" % said.data)) == said.length


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'["\xff"]', b"1 2", b"[1],[2]", b"1]", b"NaN", b"", b"\xef\xbb\xbf1", b"[1,1e999]", b"9" * 5000],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refused(parse_body, body, a_note("application/json"), "") == "invalid"


@given(st.binary(max_size=40))
def test_a_body_of_no_room_is_its_bytes(body: bytes) -> None:
    assert parse_body(body, a_note("text/plain"), "") == ("bytes", len(body), body)


@given(st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode))
def test_a_body_of_a_room_is_whole_characters(body: bytes) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        assert refused(parse_body, body, a_note("text/plain"), "room") == "invalid"
        return
    assert parse_body(body, a_note("text/plain"), "room") == ("text", len(text), body)
    assert refused(parse_body, body, a_note("image/png"), "room") == "invalid"
