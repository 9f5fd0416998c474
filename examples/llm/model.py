"""A model that needs no key: what it says follows from the prompt, and it takes its time, as others do.

A real one is one line, in place of the fake one's in `answer`. Knows nothing of who reads it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator

from examples.llm import sentences

TOKENS_PER_SECOND = 40.0


async def answer(prompt: str) -> AsyncIterator[str]:
    """What the model answers, token by token.

    Raises:
        RuntimeError: the prompt asks it to fail.
    """
    tokens = fake(prompt)
    # A real one is this line in place of that, with `pip install openai`, `from openai import AsyncOpenAI`, and
    # OPENAI_API_KEY in the environment (OPENAI_BASE_URL, too, for others that speak as OpenAI does):
    # tokens = (part.choices[0].delta.content or "" async for part in await AsyncOpenAI().chat.completions.create(  # noqa: ERA001
    #     model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}], stream=True))
    async for token in tokens:
        yield token


async def fake(prompt: str) -> AsyncIterator[str]:
    """The tokens of `text_of`, at the pace of a model. Where the prompt says so, it fails in the middle."""
    tokens = re.findall(r"\s*\S{1,6}", text_of(prompt))
    for number, token in enumerate(tokens):
        if number == len(tokens) // 3 and re.search(r"\bfail\b", prompt, re.IGNORECASE):
            raise RuntimeError("the model was asked to fail")
        await asyncio.sleep(1 / TOKENS_PER_SECOND)
        yield token


def text_of(prompt: str) -> str:
    """What the fake model has to say, which is the same for the same prompt."""
    draw = random.Random(prompt)
    subject = " ".join(prompt.split()).rstrip(".?!")[:60] or "nothing"
    points = draw.sample(sentences.POINTS, 4)
    steps = draw.sample(sentences.STEPS, 3)
    return "\n\n".join(
        [
            f"{draw.choice(sentences.OPENINGS)} You asked: *{subject}*.",
            "## In short",
            draw.choice(sentences.SUMMARIES),
            "\n".join(f"- **{name}**: {text}" for name, text in points),
            "## Step by step",
            "\n".join(f"{number}. {text}" for number, text in enumerate(steps, 1)),
            f"```python\n{draw.choice(sentences.PROGRAMS)}```",
            draw.choice(sentences.CLOSINGS),
        ]
    )
