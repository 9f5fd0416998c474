"""Stream racing: the part of the contract about what happens to one stream at once, by chance. Knows no engine."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

from velocity_ws.streams.items import Append, End, Summary, Times
from velocity_ws.streams.pieces import unpack
from velocity_ws.testing.listener import Listener
from velocity_ws.testing.stream_engine import EngineOfStreams, Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, LONG, Pen
from velocity_ws.testing.stream_writing import heard

__all__ = ["StreamRacingContract"]

AT_ONCE = 10
"""Runs that go on side by side, as the others' are what disturbs each."""
STEPS = 12


class _Race:
    """Two writers that begin one id, append, renew, and are ended, in an order that a seed decides."""

    def __init__(self, seed: int, topic: str, scribes: Sequence[Scribe]) -> None:
        self.chance = chance_of(seed)
        self.lease = self.chance.choice([LONG, Times(1, HOUR, HOUR)])
        self.pens = [Pen(f"{topic} {seed}", topic, "room", self.lease) for _ in range(2)]
        self.scribes = scribes
        self.taken: list[Append] = []
        self.said: dict[bytes, End] = {}
        """What may end the stream: the heads that are published with it, and how."""

    async def run(self) -> None:
        """Let it happen."""
        async with asyncio.TaskGroup() as group:
            for index, pen in enumerate(self.pens):
                group.create_task(self.write(pen, self.scribes[index], chance_of(self.chance.random())))
            group.create_task(self.disturb(chance_of(self.chance.random())))

    async def write(self, pen: Pen, scribe: Scribe, chance: random.Random) -> None:
        """Begin, and go on for as long as the engine takes it."""
        is_mine = (await scribe.begin(pen)).stream.writer == pen.writer
        for step in range(STEPS):
            if chance.random() < 0.2:
                written = await scribe.renew(pen)
            else:
                end: End = "done" if step == STEPS - 1 else ""
                append = pen.say(chance.choice(["a", "é", "\U0001f600", ""]) * 3, end, b"piece\n")
                if chance.random() < 0.2:  # as a caller that does not know asks again
                    first, written = await scribe.append(append, append)
                    assert first == written
                else:
                    (written,) = await scribe.append(append)
                if written.is_taken:
                    self.taken.append(append)
            assert is_mine or not (written.is_taken or written.end)
            if not written.is_taken:
                return

    async def disturb(self, chance: random.Random) -> None:
        """End it, now and then."""
        pen, scribe = self.pens[0], self.scribes[2]
        for step in range(chance.randrange(6)):
            await asyncio.sleep(0)
            if chance.random() < 0.3:
                await scribe.look(pen.id)
                continue
            is_of_dead = chance.random() < 0.7
            end: End = "lost" if is_of_dead else "cancelled"
            head = b"end %d\n" % step
            self.said[head] = end
            found = await scribe.end(pen.end(end, is_of_dead=is_of_dead, head=head))
            assert found is None or found.end in ("", "done", "lost", "cancelled")
            assert found is None or is_of_dead or found.end
            assert not (found and found.end == "lost" and self.lease is LONG)

    async def judge(self, heard: list[bytes]) -> Summary:
        """Check what came of it."""
        pen = self.pens[0]
        found = await self.scribes[2].read(pen)
        mine = [append.payload for append in self.taken]
        bodies = [message.partition(b"\n") for message in heard]
        payloads = [body for _, _, body in bodies]
        pieces = [unpack(payload) for payload in payloads]
        assert [piece.number for piece in pieces] == list(range(found.stream.pieces))
        assert all(after.start == before.stop for before, after in itertools.pairwise(pieces))
        assert all(not piece.end for piece in pieces[:-1])
        assert (pieces[-1].end if pieces else "") == found.stream.end
        by_others = [head + b"\n" for head, _, _ in bodies if head != b"piece"]
        assert [payload for (head, _, _), payload in zip(bodies, payloads, strict=True) if head == b"piece"] == mine
        assert {append.writer for append in self.taken} <= {found.stream.writer}
        assert [self.said[head] for head in by_others] == [found.stream.end] * len(by_others)
        assert text_of(found) == "".join(piece.data.decode() for piece in pieces)
        assert found.stream.length == sum(piece.length for piece in pieces)
        return found.stream


def chance_of(seed: float) -> random.Random:
    """What happens by chance, and the same each time."""
    return random.Random(seed)  # noqa: S311 - which is not for secrets


class StreamRacingContract(EngineOfStreams):
    """Whatever happens at once: one writer, no hole, no repeat, one end, and all of it is heard as it is stored."""

    async def test_a_hundred_races(self) -> None:
        ends: set[str] = set()
        async with self.scribes(3) as scribes:
            for first in range(0, 100, AT_ONCE):
                topics = {seed: self.topic() for seed in range(first, first + AT_ONCE)}
                races = {seed: _Race(seed, topic, scribes) for seed, topic in topics.items()}
                async with await self.listening(*topics.values()) as listener:
                    await asyncio.gather(*[race.run() for race in races.values()])
                    for seed, race in races.items():
                        ends.add((await race.judge(await self.all_of(listener, race, topics[seed]))).end)
        assert ends >= {"done", "cancelled"}

    async def all_of(self, listener: Listener, race: _Race, topic: str) -> list[bytes]:
        """What was heard of a race, once it is all of it."""
        found = await race.scribes[0].seen(race.pens[0])
        return await heard(listener, topic, found.pieces)
