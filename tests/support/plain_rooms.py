"""Books of rooms without history: what was said there by whom, and what everyone there heard. Knows no socket.

A message carries the name of its voice, and a number that the voice counts up. Every voice speaks through one node, and
does not go on before it knows what became of the last number; so its numbers come in order to whom they come at all.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Ear", "PlainRoom"]


class Ear:
    """What one client hears in one room, that it never leaves.

    Attributes:
        name: for reports.
        node: which node it is on.
        got: the numbers that came, by voice.
        gaps: what it was told of messages it missed since the books were balanced: how many, or ``None`` for unknown.
    """

    def __init__(self, name: str, node: int) -> None:
        self.name = name
        self.node = node
        self.got: dict[str, list[int]] = {}
        self.gaps: list[int | None] = []
        self.balanced: dict[str, int] = {}

    def heard(self, voice: str, number: int) -> None:
        """A number came."""
        self.got.setdefault(voice, []).append(number)

    def last(self, voice: str) -> int:
        """The last number that came from a voice; -1 for none."""
        return self.got.get(voice, [-1])[-1]


class PlainRoom:
    """One room.

    Attributes:
        said: what became of each number, by voice: ``published``, ``refused``, ``unknown``, or nothing yet.
        nodes: the node of each voice.
        ears: everyone in the room.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: dict[str, list[str]] = {}
        self.nodes: dict[str, int] = {}
        self.ears: list[Ear] = []

    def begin(self, voice: str, node: int) -> int:
        """Count one more number of a voice; it."""
        self.nodes[voice] = node
        said = self.said.setdefault(voice, [])
        said.append("")
        return len(said) - 1

    def became(self, voice: str, number: int, outcome: str) -> None:
        """The voice was told what became of a number."""
        assert outcome in ("published", "refused", "unknown"), outcome
        self.said[voice][number] = outcome

    def wrong(self) -> list[str]:
        """What does not add up as of now; of what is still on its way it does not yet."""
        return [fault for ear in self.ears for fault in self._wrong(ear)]

    def balance(self) -> tuple[int, int]:
        """Begin new books, as these add up; how many messages were lost, and how many were told as of unknown number.

        Both are summed over all that are in the room.
        """
        lost = unknown = 0
        for ear in self.ears:
            lost += sum(len(self._lost(ear, voice)) for voice in self.said)
            unknown += ear.gaps.count(None)
            ear.balanced = {voice: ear.last(voice) for voice in self.said}
            ear.gaps.clear()
        return lost, unknown

    def hears(self, marks: dict[str, int]) -> bool:
        """Whether everyone has heard these numbers of all voices, or later ones."""
        return all(ear.last(voice) >= mark for ear in self.ears for voice, mark in marks.items())

    def marks(self) -> dict[str, int]:
        """The next number of each voice."""
        return {voice: len(said) for voice, said in self.said.items()}

    def faults(self) -> list[str]:
        """What must never be, whatever is still on its way: what came twice, out of order, or though it was refused."""
        return [
            f"{ear.name} in {self.name}: {fault}"
            for ear in self.ears
            for voice, numbers in ear.got.items()
            for fault in self._faults(ear, voice, numbers)
        ]

    def _faults(self, ear: Ear, voice: str, numbers: Sequence[int]) -> list[str]:
        said, faults = self.said.get(voice, []), list[str]()
        for before, number in zip([-1, *numbers], numbers, strict=False):
            if number <= before:
                faults.append(f"{number} of {voice} came behind {before}")
            if number >= len(said):
                faults.append(f"{number} of {voice} was never said")
            elif said[number] == "refused" and ear.node != self.nodes[voice]:
                faults.append(f"{number} of {voice} was refused, and came from another node")
            if number > before + 1 and ear.node == self.nodes[voice]:
                faults.append(f"between {before} and {number} of {voice} something is missing, of its own node")
        return faults

    def _lost(self, ear: Ear, voice: str) -> list[int]:
        """The numbers up to the last one that came which did not, though nobody said that they were refused."""
        first, last, said = ear.balanced.get(voice, -1) + 1, ear.last(voice), self.said[voice]
        got = set(ear.got.get(voice, ())[first - last - 1 :] if last >= first else ())
        return [number for number in range(first, last + 1) if number not in got and said[number] != "refused"]

    def _wrong(self, ear: Ear) -> list[str]:
        lost = {voice: numbers for voice in self.said if (numbers := self._lost(ear, voice))}
        count = sum(map(len, lost.values()))
        if None in ear.gaps or sum(gap or 0 for gap in ear.gaps) == count:
            return []
        became = {voice: [self.said[voice][number] for number in numbers] for voice, numbers in lost.items()}
        return [f"{ear.name} in {self.name}, on node {ear.node}: lost {lost} ({became}), told {ear.gaps}"]
