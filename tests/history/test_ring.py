"""Ring: against a plain list, whatever is taken and given up; and the one bound that all rings have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.history.entries import Stamp
from velocity_ws.history.positions import Position
from velocity_ws.history.ring import OVERHEAD, Frame, Ring, Rings
from velocity_ws.messages.outbound import encode, placed


def frame(offset: int, size: int = 0) -> Frame:
    """The frame of an offset, whose marks say what it is."""
    position = Position(b"epoch!", offset, 3, offset.to_bytes(8, "big"))
    stamp = Stamp(position, (offset - 1).to_bytes(8, "big"), 1000 + offset).pack()
    return Frame(stamp, offset, placed(encode("said", "x" * size).payload, "chat", "at", "before"), frozenset())


def offsets(frames: list[Frame]) -> list[int]:
    return [each.offset for each in frames]


def test_a_frame_says_what_its_stamp_says() -> None:
    found = frame(7)
    assert (found.time, found.mark, found.previous) == (1007, (7).to_bytes(8, "big"), (6).to_bytes(8, "big"))
    assert found.cost == found.message.size + OVERHEAD


STEPS = st.lists(st.tuples(st.sampled_from(["append", "append", "prepend", "popleft", "clear"]), st.integers(0, 5)))


@given(steps=STEPS, asked=st.integers(0, 30), first=st.integers(1, 20))
def test_it_is_as_a_plain_list(steps: list[tuple[str, int]], asked: int, first: int) -> None:
    rings = Rings(10**9)
    ring, other, model = Ring(rings), Ring(rings), list[Frame]()
    other.append(frame(1))
    end = first
    for step, count in steps:
        match step:
            case "append":
                model.append(frame(end, count))
                ring.append(model[-1])
                end += 1
            case "prepend" if model and model[0].offset > count:
                older = [frame(offset) for offset in range(model[0].offset - count, model[0].offset)]
                model[:0] = older
                ring.prepend(older)
            case "popleft" if model:
                assert ring.popleft() is model.pop(0)
            case "clear":
                model.clear()
                ring.clear()
                assert not ring.is_whole
    assert list(ring.frames) == model
    assert ring.size == sum(each.message.size for each in model)
    assert rings.size == sum(each.cost for each in [*model, *other.frames])
    assert ring.at(asked) is next((each for each in model if each.offset == asked), None)
    assert ring.after(asked) == [each for each in model if each.offset > asked]


def test_the_rooms_that_were_quiet_for_longest_give_first() -> None:
    cost = frame(1).cost
    rings = Rings(4 * cost)
    first, second, third = Ring(rings), Ring(rings), Ring(rings)
    for ring in (first, second, third):
        ring.is_whole = True
        ring.append(frame(1))
    first.append(frame(2))
    assert rings.size == 4 * cost
    third.append(frame(2))
    assert (len(first.frames), len(second.frames), len(third.frames)) == (2, 0, 2)
    assert (first.is_whole, second.is_whole, third.is_whole) == (True, False, True)
    second.append(frame(2))
    assert (offsets(list(first.frames)), first.is_whole) == ([2], False)


@given(limit=st.integers(0, 5000), rooms=st.lists(st.integers(0, 3), max_size=60))
def test_all_rooms_together_hold_no_more_than_the_bound(limit: int, rooms: list[int]) -> None:
    rings = Rings(limit)
    found = [Ring(rings) for _ in range(4)]
    for number, room in enumerate(rooms, 1):
        found[room].append(frame(number, number))
        assert rings.size == sum(each.cost for ring in found for each in ring.frames) <= limit
    for ring in found:
        ring.clear()
    assert rings.size == 0
    assert not rings._used
