"""Messages: each part is begun once, and ended."""

from __future__ import annotations

from velocity_ws.adapters.message import Message


def test_nothing_is_said_of_an_empty_text() -> None:
    assert Message().say("a", "text", "") == []


def test_each_writer_has_a_part_of_its_own_and_one_at_a_time() -> None:
    message = Message()
    chunks = [*message.say("a", "text", "1"), *message.say("b", "text", "2"), *message.say("a", "text", "3")]
    chunks += [*message.say("a", "reasoning", "4"), *message.close()]
    assert [(each["type"], each["id"]) for each in chunks] == [
        ("text-start", "text-1"),
        ("text-delta", "text-1"),
        ("text-start", "text-2"),
        ("text-delta", "text-2"),
        ("text-delta", "text-1"),
        ("text-end", "text-1"),
        ("reasoning-start", "reasoning-3"),
        ("reasoning-delta", "reasoning-3"),
        ("text-end", "text-2"),
        ("reasoning-end", "reasoning-3"),
    ]


def test_a_step_is_ended_once_with_its_parts() -> None:
    message = Message()
    chunks = [*message.start_step(), *message.say("a", "text", "1"), *message.start_step(), *message.finish("stop")]
    assert [each["type"] for each in chunks] == [
        "start-step", "text-start", "text-delta", "text-end", "finish-step", "start-step", "finish-step", "finish",
    ]  # fmt: skip
    assert message.finish() == [{"type": "finish"}]


def test_a_call_without_any_input_has_an_empty_one() -> None:
    message = Message()
    message.call("a", "call_1", "now", "")
    assert message.knows("call_1")
    assert message.called("call_1", "now")[0]["input"] == {}
