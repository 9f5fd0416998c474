"""What is fuzzed holds for what the fuzzer begins with, and would show a fault."""

from __future__ import annotations

import pytest

from tests.fuzz import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_the_fuzzer_begins_with(name: str) -> None:
    for seed in targets.SEEDS[name]:
        targets.TARGETS[name](seed)


@pytest.mark.parametrize("wrong", [3, (1, b"hallo", 12), (1, b"hello", 11), (2, b"hello", 12), (0, b"", 11)])
def test_a_fault_of_the_cutter_is_found(wrong: int | tuple[int, bytes, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = targets.SEEDS["cut"][0]
    assert targets.cut_frame(data + b"next", 1) == (1, b"hello", 12)
    monkeypatch.setattr(targets, "cut_frame", lambda data, start: wrong)
    with pytest.raises(AssertionError):
        targets.fuzz_cut(b"\x01" + data[1:] + b"next")


def test_a_difference_of_the_class_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.library.theirs", lambda data: ([], None))
    with pytest.raises(AssertionError):
        targets.fuzz_class(targets.SEEDS["class"][0])


def test_an_input_is_frames_and_stray_bytes() -> None:
    chunks = targets.chunks_of(b"\x00\x00\x00\x80" + b"\x22\x81hi" + b"\x03abc" + b"\x21")
    assert len(chunks) == 2
    assert b"".join(chunks) == b"\x81\x82" + b"\x02\x5a\x00\xff" + bytes((ord("h") ^ 2, ord("i") ^ 0x5A)) + b"abc"
    assert targets.chunks_of(b"") == [b""]


def test_a_control_frame_that_is_too_long_is_one_frame() -> None:
    # A ping of 200 bytes, read up to the size, which must be refused: what follows looks like a frame, and is none.
    stray = b"\x89\xfe\x00\xc8" + b"\x82\x80" + bytes(202)
    records = b"".join(bytes((len(stray[at : at + 16]),)) + stray[at : at + 16] for at in range(0, len(stray), 16))
    found = b"\x00\x00\x00\x05" + records
    assert [len(chunk) for chunk in targets.chunks_of(found)] == [4, 204]
    targets.fuzz_class(found)
