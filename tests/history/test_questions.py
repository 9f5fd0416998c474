"""Questions: whatever is asked together, each has its own answer, and calls keep their bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import eventually
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history import questions as history_questions
from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Refused
from velocity_ws.history.questions import MOST_AT_ONCE, Questions

MOST, BYTES, WAITING = 4, 10, 12

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2 * BYTES)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("answer"), st.sampled_from(["well", "well", "refused"])),
        st.tuples(st.sampled_from(["turn", "turn", "close", "open"])),
    ),
    max_size=60,
)


class Engine:
    """Answers a question, which is its number and a weight, by the number, when it is let.

    Attributes:
        asked: the questions of each call.
    """

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, int]]] = []
        self._running: list[asyncio.Future[str]] = []

    async def ask(self, questions: list[tuple[int, int]]) -> list[int | Refused]:
        """Answer questions."""
        self.asked.append(questions)
        running: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running.append(running)
        assert len(self._running) <= MOST_AT_ONCE
        try:
            how = await running
        finally:
            self._running.remove(running)
        if how == "refused":
            raise Refused("engine", "all of it")
        return [number if weight else Refused("engine", "this one") for number, weight in questions]

    def answer(self, how: str) -> None:
        """Let the call that has run longest go on."""
        if self._running and not self._running[0].done():
            self._running[0].set_result(how)


async def each_has_its_answer(happening: list[tuple[Any, ...]], is_change: bool) -> None:
    engine, calls = Engine(), Calls(60)
    calls.begin(lambda error: pytest.fail(str(error)))
    questions: Questions[tuple[int, int], int] = Questions(
        engine.ask, calls, 60, most=MOST, weigh=lambda question: question[1], is_change=is_change
    )
    questions.open()
    tasks: list[asyncio.Task[int]] = []
    for name, *arguments in happening:
        if name == "ask":
            tasks.append(asyncio.create_task(questions.ask((len(tasks), arguments[0]))))
        elif name == "cancel" and arguments[0] < len(tasks):
            tasks[arguments[0]].cancel()
        elif name == "answer":
            engine.answer(arguments[0])
        elif name == "turn":
            await asyncio.sleep(0)
        elif name == "close":
            questions.close("it is closed")
            await calls.end()
            calls.begin(lambda error: pytest.fail(str(error)))
        elif name == "open":
            questions.open()
    finishing = asyncio.gather(*tasks, return_exceptions=True)
    while not finishing.done():
        await asyncio.sleep(0)
        engine.answer("well")
    results = await finishing
    questions.close("it is over")
    await calls.end()

    numbers = [number for batch in engine.asked for number, _ in batch]
    assert numbers == sorted(set(numbers))  # in order, and each once
    for batch in engine.asked:
        assert 0 < len(batch) <= MOST
        assert len(batch) == 1 or sum(weight for _, weight in batch) <= BYTES
    for number, result in enumerate(results):
        if isinstance(result, BackplaneUnavailable):
            assert result.outcome == "refused" or (is_change and number in numbers)
        else:
            assert result == number or isinstance(result, asyncio.CancelledError)
            assert number in numbers or isinstance(result, asyncio.CancelledError)


@settings(max_examples=100, deadline=None)
@given(steps, st.booleans())
@example([("ask", 0), ("turn",), ("turn",), ("close",)], True)
def test_each_has_its_answer_and_calls_their_bounds(happening: list[tuple[Any, ...]], is_change: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_questions, "BATCH_BYTES", BYTES)
        patch.setattr(history_questions, "MAX_WAITING", WAITING)
        asyncio.run(each_has_its_answer(happening, is_change))


async def test_what_one_turn_asks_is_one_call_and_the_next_joins_the_next() -> None:
    engine, calls = Engine(), Calls(60)
    calls.begin(lambda error: pytest.fail(str(error)))
    questions: Questions[tuple[int, int], int] = Questions(engine.ask, calls, 60)
    questions.open()
    tasks = [asyncio.create_task(questions.ask((number, 1))) for number in range(3)]
    await eventually(lambda: engine.asked)
    tasks += [asyncio.create_task(questions.ask((number, 1))) for number in range(3, 5)]
    await eventually(lambda: len(engine.asked) == 2)
    tasks += [asyncio.create_task(questions.ask((number, 1))) for number in range(5, 9)]
    await asyncio.sleep(0)
    engine.answer("well")
    await eventually(lambda: len(engine.asked) == 3)
    while not all(task.done() for task in tasks):
        engine.answer("well")
        await asyncio.sleep(0)
    assert [task.result() for task in tasks] == list(range(9))
    assert [len(batch) for batch in engine.asked] == [3, 2, 4]
    await calls.end()
