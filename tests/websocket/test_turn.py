"""What one connection may use up of a turn of the event loop."""

from __future__ import annotations

import pytest

from velocity_ws.websocket import turn as module
from velocity_ws.websocket.turn import BYTES, TURN, Turn


def test_messages_use_a_turn_up_by_their_number_and_their_size() -> None:
    turn = Turn()
    for _ in range(TURN - 1):
        assert not turn._spend(1, BYTES - 1)
    assert turn._budget == 1
    turn._begin_turn(1.0)
    assert turn._spend(1, 3 * BYTES)
    assert turn._budget == TURN - 4


def test_what_takes_long_uses_a_turn_up_and_rests_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    monkeypatch.setattr(module, "SECONDS_PER_TURN", 0.0)
    turn._watch_time()
    assert turn._budget == TURN
    turn._until -= 0.05
    turn._watch_time()
    assert turn._budget == 0
    assert 0.05 <= turn._rest <= module.MAX_REST
    turn._until -= 10.0
    turn._watch_time()
    assert turn._rest == module.MAX_REST
    turn._begin_turn(2.0)
    assert (turn._budget, turn._rest) == (TURN, 0.0)
