"""What was said to whom and what its sender was told of it, held against what everybody heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.support import eventually
from tests.support.workers import Member, one_of_each_node

__all__ = ["Ledger", "Voice"]


class Voice:
    """Somebody who says numbers, each to a room: the place in `said` is the number.

    Attributes:
        node: the node that sends them, empty for one that is none.
        said: the room, and the outcome that the sender was told.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.said: list[tuple[str, str]] = []

    def to(self, room: str) -> list[int]:
        """The numbers said to a room."""
        return [number for number, (where, _) in enumerate(self.said) if where == room]


class Ledger:
    """All voices, by name."""

    def __init__(self) -> None:
        self.voices: dict[str, Voice] = {}

    def outcomes(self) -> Counter[str]:
        """How many ended how."""
        return Counter(outcome for voice in self.voices.values() for _, outcome in voice.said)

    def of(self, node: str) -> Counter[str]:
        """The same of one node alone."""
        return Counter(outcome for voice in self.voices.values() if voice.node == node for _, outcome in voice.said)

    def is_complete(self, people: Sequence[Member]) -> None:
        """Everyone got everything said to their room, once, in the order of each sender, and nothing else."""
        for member in people:
            expected = {name: numbers for name, voice in self.voices.items() if (numbers := voice.to(member.room))}
            assert member.got == expected
            assert member.gaps == []

    async def adds_up(self, people: Sequence[Member], *, were_deaf: bool = True) -> int:
        """Nothing came twice or out of order; what did not come was refused, or is counted and told.

        Args:
            people: all that are still connected; everything has come that was to.
            were_deaf: whether the engine was gone, so that everyone is told, be it of nothing.

        Returns:
            How many did not come to nodes that should have heard them.
        """
        lost: dict[tuple[str, str], set[tuple[str, int]]] = {}
        for member in people:
            mine = self._lost(member, {member.node for member in people})
            assert lost.setdefault((member.node, member.room), mine) == mine, "one node heard it, or did not"
        if were_deaf:  # it is told once the others were asked, or did not answer in time
            await eventually(lambda: all(_is_told(member, len(lost[member.node, member.room])) for member in people))
        sums: Counter[str] = Counter()
        for (node, _), numbers in lost.items():
            sums[node] += len(numbers)
        for member in one_of_each_node(people):
            assert (await member.request("stats"))["backplane_missed"] == sums[member.node]
        return sum(sums.values())

    def _lost(self, member: Member, living: set[str]) -> set[tuple[str, int]]:
        """What somebody should have got and did not, of those whose outcomes are known."""
        lost: set[tuple[str, int]] = set()
        for name, numbers in member.got.items():
            assert numbers == sorted(set(numbers)), f"{name} twice, or out of order"
        for name, voice in self.voices.items():
            planned, got = set(voice.to(member.room)), set(member.got.get(name, []))
            assert got <= planned
            if voice.node == member.node:
                assert got == planned, "its own node needs no engine"
                continue
            refused = {number for number in planned if voice.said[number][1] == "refused"}
            assert not got & refused, "no other node was to get it"
            if voice.node in living or not voice.node:
                lost |= {(name, number) for number in planned - refused - got}
        return lost


def _is_told(member: Member, lost: int) -> bool:
    told = [gap["missed"] for gap in member.gaps if gap["room"] == member.room]
    return None in told or (bool(told) and sum(told) == lost)
