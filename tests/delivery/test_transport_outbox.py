"""The outbox on a transport: one write for each turn of the loop, of bounded size."""

from __future__ import annotations

import pytest

from tests.support.outboxes import LIMIT, TransportRig
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.messages.outbound import PreparedMessage, encode


async def test_one_write_for_each_turn() -> None:
    rig = TransportRig(False)
    rig.offer(*range(10))
    assert rig.writes == []
    await rig.sees(*range(10))
    assert len(rig.writes) == 1
    rig.offer(10)
    await rig.sees(*range(11))
    assert len(rig.writes) == 2
    assert rig.counters.bytes_sent == sum(len(encode("e", number).payload) for number in range(11))


async def test_a_turns_worth_of_bytes_is_bounded() -> None:
    rig = TransportRig(False)
    assert all(rig.offer(*["x" * 100] * 50))
    assert len(rig.writes) > 5, "before the turn is over"
    await rig.sees(*["x" * 100] * 50)
    assert max(map(len, rig.writes)) < LIMIT
    assert rig.direct.queued_bytes == 0


async def test_nothing_goes_to_a_transport_that_closes() -> None:
    rig = TransportRig(False)
    rig.offer("a", "b")
    rig.abort()
    rig.flusher.flush()
    assert (rig.seen, rig.counters.dropped, rig.counters.messages_sent) == ([], 2, 0)


async def test_one_that_cannot_be_written_to_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, well = TransportRig(False), TransportRig(False)
    flusher = Flusher()
    broken.direct._flusher = well.direct._flusher = flusher

    def fail(data: bytes) -> None:
        raise OSError(data)

    monkeypatch.setattr(broken, "write", fail)
    broken.offer("a")
    well.offer("b")
    await well.sees("b")
    assert broken.is_closing()
    assert "is cut" in caplog.text


async def test_a_ping_is_the_connections() -> None:
    assert await TransportRig(False).outbox.ping() == 0.5


def with_key(data: object, key: str = "k") -> PreparedMessage:
    message = encode("e", data)
    message.set_lossy(volatile=False, key=key)
    return message


async def test_a_replacement_over_the_limit_goes_out_where_nothing_else_waits() -> None:
    rig = TransportRig(True)
    await rig.hold()
    assert [rig.outbox.offer(with_key(data)) for data in ("small", "x" * LIMIT * 2)] == [True, True]
    assert not rig.outbox.offer(with_key("y", "another"))
    rig.read()
    await rig.sees("x" * LIMIT * 2, "gap 1")


async def test_what_the_transport_does_not_take_yet_can_still_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = TransportRig(False)
    await rig.hold()
    for number in range(8):
        assert rig.outbox.offer(with_key("x" * 90, str(number)))
    write, rig.is_paused = rig.write, False

    def write_once(data: bytes) -> None:
        write(data)
        rig.is_paused = True

    with monkeypatch.context() as patched:
        patched.setattr(rig, "write", write_once)
        rig.direct.resume()
    left = len(rig.seen)
    assert 0 < left < 8
    assert all(rig.outbox.offer(with_key("new", str(number))) for number in range(left, 8))
    rig.read()
    await rig.sees(*["x" * 90] * left, *["new"] * (8 - left))
    assert rig.counters.replaced == 8 - left
    assert rig.direct.queued_bytes == 0
