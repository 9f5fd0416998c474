"""Notes: what is kept is read again, what is none is none, and producers are known, those that wrote last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.streams.notes import MOST_PRODUCERS, PRODUCER_HOURS, Meta, Note, Producer, normal_type, read_note

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(0, 2**53 - 1)
metas = st.builds(
    Meta,
    texts,
    texts,
    st.none() | st.integers(0, 2**40),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    texts,
    texts,
    texts,
    numbers,
)
producers = st.builds(Producer, texts, numbers, numbers)
notes = st.builds(
    Note,
    metas,
    st.binary(max_size=6),
    st.none() | texts,
    st.dictionaries(texts, st.tuples(numbers, numbers), max_size=4),
    st.none() | producers,
    st.booleans(),
    numbers,
)


@given(notes)
def test_a_note_is_read_as_it_was_kept(note: Note) -> None:
    assert read_note(note.data) == note


@given(st.binary(max_size=40))
def test_any_bytes_are_a_note_or_none(data: bytes) -> None:
    note = read_note(data)
    assert note is None or read_note(note.data) == note


@given(notes, st.integers(0, 2**20))
def test_a_note_that_is_cut_off_is_none(note: Note, at: int) -> None:
    assert read_note(note.data[: at % len(note.data)]) is None


def test_what_is_too_deep_is_no_note() -> None:
    assert read_note(b"\x81\xa4meta" + b"\x91" * 100_000) is None


sent_at = st.tuples(st.builds(Producer, st.integers(0, 110).map(str), numbers, numbers), st.integers(0, 7200))


@given(st.lists(sent_at, max_size=300))
def test_those_are_known_that_wrote_but_for_one_that_has_not_for_a_day(sent: list[tuple[Producer, int]]) -> None:
    note, now = Note(Meta("text/plain", "tag")), 0
    last: dict[str, tuple[int, int]] = {}
    wrote: dict[str, int] = {}
    for producer, seconds in sent:
        now += seconds
        oldest = next(iter(last), "")
        is_full = len(last) == MOST_PRODUCERS and producer.id not in last
        takes = note.takes(producer, now)
        assert takes == (not is_full or now // 3600 - wrote[oldest] // 3600 >= PRODUCER_HOURS)
        if not takes:
            continue
        if is_full:
            del last[oldest]
        last.pop(producer.id, None)
        last[producer.id], wrote[producer.id] = (producer.epoch, producer.seq), now
        note = note.with_producer(producer, now)
    assert note.producers == last
    assert list(note.producers) == list(last)
    assert note.hours == tuple(wrote[id_] // 3600 for id_ in last)
    assert read_note(note.data) == note


def test_a_producer_of_which_no_time_was_kept_is_not_forgotten() -> None:
    note = Note(Meta("text/plain", "tag"), producers={str(number): (0, 0) for number in range(MOST_PRODUCERS)})
    assert not note.takes(Producer("new", 0, 0), 1e9)
    again = note.with_producer(Producer("0", 1, 0), 1e9)
    assert len(again.producers) == MOST_PRODUCERS
    assert list(again.producers)[-1] == "0"
    assert not again.takes(Producer("new", 0, 0), 1e9)
    assert again.takes(Producer("new", 0, 0), 1e9 + 86400)
    new = again.with_producer(Producer("new", 0, 0), 1e9 + 86400)
    assert len(new.producers) == MOST_PRODUCERS
    assert "1" not in new.producers


@given(metas, metas)
def test_two_ask_for_the_same_stream_where_all_is_the_same_but_the_tag(one: Meta, two: Meta) -> None:
    assert bool(one.differs(two)) == bool(two.differs(one))
    assert not one.differs(Meta(one.type, "other", one.ttl, one.expires, "other", one.source, one.fork, 7))


@pytest.mark.parametrize(
    "other",
    [
        Meta("text/html", "t", 1, 2.0, "", "s", "f"),
        Meta("text/plain", "t", None, 2.0, "", "s", "f"),
        Meta("text/plain", "t", 1, 3.0, "", "s", "f"),
        Meta("text/plain", "t", 1, 2.0, "", "", "f"),
        Meta("text/plain", "t", 1, 2.0, "", "s", ""),
    ],
)
def test_two_that_differ_in_anything_ask_for_two(other: Meta) -> None:
    assert Meta("text/plain", "t", 1, 2.0, "", "s", "f").differs(other)


@pytest.mark.parametrize(
    ("type_", "is_json", "is_text"),
    [
        ("application/json", True, False),
        ("Application/JSON ; charset=utf-8", True, False),
        ("application/x-ndjson", False, False),
        ("text/plain", False, True),
        (" TEXT/html;x", False, True),
        ("image/png", False, False),
    ],
)
def test_a_content_type_says_what_a_stream_has(type_: str, is_json: bool, is_text: bool) -> None:
    meta = Meta(type_, "t")
    assert (meta.is_json, meta.is_text) == (is_json, is_text)
    assert normal_type(type_) == type_.split(";")[0].strip().lower()
