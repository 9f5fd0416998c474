"""A model that needs no key: what it says follows from the prompt, and it takes its time, as others do.

A real one is one line, in place of the fake one's in `answer`. Knows nothing of who reads it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator

TOKENS_PER_SECOND = 40.0


async def answer(prompt: str) -> AsyncIterator[str]:
    """What the model answers, token by token.

    Raises:
        RuntimeError: the prompt asks it to fail.
    """
    tokens = fake(prompt)
    # A real one, of OpenAI or of others that speak as it does (OPENAI_BASE_URL): `pip install openai`, set OPENAI_API_KEY,
    # `from openai import AsyncOpenAI`, and in place of the line above:
    # tokens = (part.choices[0].delta.content or "" async for part in await AsyncOpenAI().chat.completions.create(
    #     model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}], stream=True))
    async for token in tokens:
        yield token


async def fake(prompt: str) -> AsyncIterator[str]:
    """The tokens of `text_of`, at the pace of a model. Where the prompt says so, it fails in the middle."""
    tokens = re.findall(r"\s*\S{1,6}|\s+$", text_of(prompt))
    for number, token in enumerate(tokens):
        if number == len(tokens) // 3 and re.search(r"\bfail\b", prompt, re.IGNORECASE):
            raise RuntimeError("the model was asked to fail")
        await asyncio.sleep(1 / TOKENS_PER_SECOND)
        yield token


def text_of(prompt: str) -> str:
    """What the fake model has to say, which is the same for the same prompt."""
    draw = random.Random(prompt)
    subject = " ".join(prompt.split()).rstrip(".?!")[:60] or "nothing"
    points = draw.sample(POINTS, 4)
    steps = draw.sample(STEPS, 3)
    return "\n\n".join(
        [
            f"{draw.choice(OPENINGS)} You asked: *{subject}*.",
            "## In short",
            draw.choice(SUMMARIES),
            "\n".join(f"- **{name}**: {text}" for name, text in points),
            "## Step by step",
            "\n".join(f"{number}. {text}" for number, text in enumerate(steps, 1)),
            f"```python\n{draw.choice(PROGRAMS)}\n```",
            draw.choice(CLOSINGS),
        ]
    )


OPENINGS = [
    "Good question.",
    "Let us look at that without haste.",
    "I have thought about it for as long as a random generator can.",
    "Here is what I would tell a colleague.",
]
SUMMARIES = [
    "I am not a model: I draw these sentences from a small list, at forty tokens a second. What you can try with me is "
    "all that happens *around* a model, which is where answers get lost.",
    "Nothing here was understood, but all of it was delivered. The same prompt gives the same text, so you can "
    "compare what two devices show, character by character.",
    "Take this text for whatever a real model would say. It is as long, it comes as slowly, and it survives the same "
    "accidents.",
]
POINTS = [
    ("Refresh this page", "the text so far is there at once, and the rest follows as it comes."),
    ("Open it on another device", "both show the same, however late the second one came."),
    ("Close the page", "I go on writing. I belong to the server, and not to your connection."),
    ("Press Stop", "it works from *any* device, whichever worker I run on."),
    ("Switch off the network", "what you have missed comes when it is back, once and in order."),
    ("Kill my worker", "what I have said so far stays, and you are told that the rest is lost."),
    ("Ask something else meanwhile", "answers do not wait for each other."),
]
STEPS = [
    "The question gets an id before it is sent, so that sending it twice asks once.",
    "The server starts a stream under that id, and goes on with other things.",
    "Everybody in the room reads it: `ws.stream(id)` has all that was said, and then what comes.",
    "When it ends, the end is a part of it: done, stopped, failed or lost.",
    "Another attempt is another id, so no answer is ever mixed with a second one.",
]
PROGRAMS = [
    "async def answer(prompt):\n    async for token in model(prompt):\n        yield token  # <b>never</b> read as HTML\n\n\n"
    'await broker.streams.start("answer-42", room="chat:7", source=answer("why?"))',
    'def backwards(words):\n    """The words of a text, the last one first."""\n    return " ".join(reversed(words.split()))\n\n\n'
    'assert backwards("lost is nothing") == "nothing is lost"',
    'state = await broker.streams.read("answer-42")\nif state.end == "lost":\n    print("the worker died after:", state.text[-40:])',
]
CLOSINGS = [
    "That is all. Ask me again, and I will say it in the same words.",
    "I could go on, but I have come to the end of my list.",
    "If this reached you in one piece, then it worked.",
]
