"""Trails: what became of every message of a room, for every client that was ever in it. Knows no socket.

A message carries a number that no other one of its room has. The order of the log is that of the positions that senders
and readers are told of; this is the one place among the tests that looks into a position.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, NamedTuple

from tests.support.lives import Lives
from velocity_ws.history.positions import Position

__all__ = ["REASONS", "Log", "Place", "Trail", "place_of"]

REASONS = {"evicted", "expired", "epoch", "rewound", "too_many", "forbidden"}
"""Why a join does not recover."""
GAPS = {"evicted", "expired", "epoch", "dropped"}
"""Why members are told of a gap."""
_is_at = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


class Place(NamedTuple):
    """Where an entry is in a log, as a position says it; what proves it differs with the revision."""

    epoch: bytes
    offset: int
    revision: int
    proof: bytes

    def is_at(self, other: Place) -> bool:
        """Whether both speak of the same entry, as far as can be seen."""
        return self[:2] == other[:2] and (self.revision != other.revision or self.proof == other.proof)

    def __str__(self) -> str:
        return f"{self.epoch.hex()[:4]}/{self.offset}"


def place_of(at: object) -> Place:
    """The place of which a position speaks."""
    assert isinstance(at, str), at
    assert _is_at(at), at
    return Place(*Position.parse(at))


class Log:
    """What was said to a room.

    Attributes:
        room: its name.
        begun: how many messages were begun to be sent; their numbers are 0 and the following.
        places: where those are that are known to be in the log, by number.
        refused: the numbers of which it is certain that nobody has them.
        undone: the numbers that the engine has taken and lost, so that nobody can be told of them.
        gone: the numbers that the engine has confirmed and lost; who has not had them is told that the log went back.
        said_anew: the numbers that were lost with their keys, and said again: who had the one may have the other too.
        not_for: the names of those whom a message was not for, by number.
        is_straight: whether offsets only ever grew, as they do not where an engine goes back.
        is_latest: whether the newest message stands for all before it.
        lives: those of the log, by their epochs.
    """

    def __init__(self, room: str, *, is_latest: bool = False) -> None:
        self.lives = Lives()
        self.room = room
        self.is_latest = is_latest
        self.not_for: dict[int, set[str]] = {}
        self.begun = 0
        self.places: dict[int, Place] = {}
        self.refused: set[int] = set()
        self.undone: set[int] = set()
        self.gone: set[int] = set()
        self.said_anew: set[int] = set()
        self.is_straight = True
        self._unknown: set[int] = set()
        self._begun: list[list[bytes]] = []
        """The lives of which somebody knew when a message was begun, by its number."""
        self._tops: dict[bytes, int] = {}
        self._numbers: dict[Place, int] = {}

    def begin(self) -> int:
        """Count one more message; its number."""
        number, self.begun = self.begun, self.begun + 1
        self._begun.append(self.lives.seen())
        return number

    def taken(self, number: int, at: object) -> None:
        """The sender was told where it is."""
        fault = self.seen(number, place_of(at))
        assert fault is None, fault

    def failed(self, number: int, outcome: str) -> None:
        """The sender was told that it is refused, or that this is unknown."""
        if outcome != "refused":
            self._unknown.add(number)
        elif number not in self._unknown:  # else an earlier attempt may have done it
            self.refused.add(number)

    def seen(self, number: int, place: Place) -> str | None:
        """Somebody knows where a message is; what is wrong with that."""
        if number in self.refused:
            return f"{number} was refused, and is at {place}"
        if (known := self.places.setdefault(number, place)) != place:
            if self.is_straight:
                return f"{number} is at {known} and at {place}"
            self.said_anew.add(number)
            self.places[number] = place
        if (other := self._numbers.setdefault(place, number)) != number:
            return f"both {other} and {number} are at {place}"
        # An engine does not come back to a life that it has lost: those known before are over, or are this one.
        self.lives.follows(place.epoch, self._begun[number] if self.is_straight else ())
        self._tops[place.epoch] = max(self._tops.get(place.epoch, 0), place.offset)
        return None

    def index(self, place: Place) -> int:
        """Which life of the log a place is of, in their order."""
        return self.lives.index(place.epoch)

    def most(self, epoch: bytes) -> int:
        """The offset up to which it may go: what was begun may be there."""
        return self._tops.get(epoch, 0) + self.begun - len(self.places) - len(self.refused)

    def is_between(self, place: Place, begin: Place, end: Place) -> bool:
        """Whether a place is behind one position and not behind another one."""
        if begin.epoch == end.epoch:
            return place.epoch == end.epoch and begin.offset < place.offset <= end.offset
        if place.epoch == begin.epoch:
            return place.offset > begin.offset
        if place.epoch == end.epoch:
            return place.offset <= end.offset
        return self.index(begin) < self.index(place) < self.index(end)

    def is_before(self, place: Place, begin: Place) -> bool:
        """Whether a place is not behind a position."""
        if place.epoch == begin.epoch:
            return place.offset <= begin.offset
        return self.index(place) < self.index(begin)


class Trail:
    """What one client was told of one room, in order, over all of its connections.

    Attributes:
        at: the last position it was told, which is what it says when it comes back.
        is_in: whether it is in the room, as it knows.
        got: the numbers that it has, and the place of each.
        answers: the data of what answered its joins.
        gaps: the data of each gap.
        left: the reasons for which it was put out.
        faults: what must never be.
        steps: the last things that happened, to be read by people.
    """

    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name
        self.at: str | None = None
        self.is_in = False
        self.got: dict[int, Place] = {}
        self.answers: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.left: list[str] = []
        self.faults: list[str] = []
        self.steps: deque[str] = deque(maxlen=25)
        self._stand: Place | None = None
        self._first: Place | None = None
        self._lost: list[tuple[Place, Place]] = []
        self._doubtful: list[Place] = []  # up to there it is told that the log is another one than it knows
        self._jumps: list[tuple[Place, Place]] = []
        self._is_fresh = False

    # --- what it is told

    def joined(self, data: dict[str, Any], since: object) -> None:
        """A join was answered.

        Args:
            data: of the answer.
            since: what the join said; ``None`` for nothing.
        """
        self.steps.append(f"joined since {self._say(since)}: {self._told(data)}")
        self.answers.append(data)
        place = self._place(data)
        if data.get("room") != self.log.room:
            self._fault(f"the answer is of room {data.get('room')!r}")
        was_in, self.is_in = self.is_in, True
        if place is None:
            return
        if (
            was_in
            and self._stand is not None
            and place.is_at(self._stand)
            and (data.get("recovered"), data.get("missed")) == (True, 0)
        ):
            self.at = data["at"]
            return  # it was there all the time
        before, self.at = self._stand, data["at"]
        if isinstance(since, str) and since != "start":
            self._goes_to(place_of(since), before)
        recovered = data.get("recovered")
        if since is None:
            if recovered is not None:
                self._fault("nothing was to be recovered")
            if before is not None:
                self._lost.append((before, place))  # it did not ask for it
        elif recovered is True:
            self._recovered(data, place, since)
        elif recovered is False:
            if data.get("reason") not in REASONS:
                self._fault(f"the reason is {data.get('reason')!r}")
            if isinstance(since, str) and since != "start":
                self._is_led(place_of(since), place)
                if data.get("reason") == "rewound":
                    self._doubtful.append(place)
        else:
            self._fault("the answer does not say whether it recovered")
        self._stand, self._is_fresh = place, True
        if self._first is None:
            self._first = place

    def _recovered(self, data: dict[str, Any], place: Place, since: object) -> None:
        missed = data.get("missed")
        if not isinstance(missed, int) or isinstance(missed, bool) or missed < 0:
            self._fault(f"missed is {missed!r}")
            return
        if isinstance(since, str) and since != "start":
            begin = place_of(since)
            if missed == 0 and self._may_jump(begin, place):
                self._jumps.append((begin, place))
            elif not place.is_at(begin) and not self.log.is_latest:
                self._fault(f"it stood at {begin}, and recovered from {place}")
            if self.log.is_latest:
                self._lost.append((begin, place))
        else:
            self._ask_again(place)
        if self.log.not_for or self.log.is_latest:
            return  # how many that are is another matter
        most = self.log.most(place.epoch) - place.offset
        if self.log.is_straight and missed > most:  # fewer are what a node has not heard of yet
            self._fault(f"{missed} missed, and there are {most} at most")

    def _goes_to(self, begin: Place, stand: Place | None) -> None:
        """It asks for what comes after a position, which need not be where it stands."""
        if stand is not None and not begin.is_at(stand) and self.log.is_before(stand, begin):
            self._lost.append((stand, begin))  # it did not ask for it
        else:
            self._ask_again(begin)

    def _ask_again(self, begin: Place) -> None:
        """It goes back to where it has been, and gets what it has."""
        self.got = {
            number: place
            for number, place in self.got.items()
            if place.epoch != begin.epoch or place.offset <= begin.offset
        }
        self._lost = [(one, two) for one, two in self._lost if self.log.is_before(two, begin)]
        if self._first is not None and self.log.is_before(begin, self._first):
            self._first = begin

    def message(self, number: int, at: object) -> None:
        """A message came."""
        self.steps.append(f"{number} at {self._say(at)}")
        place = self._place({"at": at})
        if place is None:
            return
        if not self.is_in:
            self._fault(f"{number} came to somebody who is not in the room")
        if (fault := self.log.seen(number, place)) is not None:
            self._fault(fault)
        stand = self._stand
        if stand is None:
            self._fault(f"{number} came before the answer to the join")
        elif self._may_jump(stand, place):
            self._jumps.append((stand, place))
        elif (place.epoch, place.offset) != (stand.epoch, stand.offset + 1):
            what = "another life of the log" if place.epoch != stand.epoch else "a hole"
            if place.epoch == stand.epoch and place.offset <= stand.offset:
                what = "a repeat" if self.got.get(number) == place else "an inversion"
            self._fault(f"{what}: it stood at {stand}, and {number} came, which is at {place}")
        self.got[number] = place
        self._stand, self.at, self._is_fresh = place, str(at), False

    def _may_jump(self, stand: Place, place: Place) -> bool:
        """Whether it may come from there to here, as what is between may not be for it; that shows later."""
        if place.epoch != stand.epoch or place.offset <= stand.offset + 1:
            return False
        return bool(self.log.not_for) or (self.log.is_latest and self._is_fresh)

    def gap(self, data: dict[str, Any]) -> None:
        """It was told that something is lost."""
        self.steps.append(f"gap: {self._told(data)}")
        self.gaps.append(data)
        if set(data) - {"room", "missed", "reason", "from", "at"} or data.get("reason") not in GAPS:
            self._fault(f"a gap of another form: {data}")
            return
        place = self._place(data)
        if place is None:
            return
        stand, missed = self._stand, data.get("missed")
        if "from" in data and stand is not None and not place_of(data["from"]).is_at(stand):
            self._fault(f"it stood at {stand}, and the gap begins at {place_of(data['from'])}")
        if stand is None:
            self._fault("a gap before the answer to the join")
        else:
            self._is_led(stand, place)
            if data["reason"] == "epoch" and stand.epoch == place.epoch:
                self._doubtful.append(place)
            is_one = stand.epoch == place.epoch and self.log.is_straight
            if missed is not None and is_one and missed != place.offset - stand.offset:
                self._fault(f"the gap says {missed}, and it is {place.offset - stand.offset}")
        self._stand, self.at = place, data["at"]

    def _is_led(self, begin: Place, end: Place) -> None:
        """It is told that what is between is lost, and goes on from there."""
        if self.log.is_straight and self.log.lives.is_after(begin.epoch, end.epoch):
            self._fault(f"it stood at {begin}, and is led back to {end}, which was over then")
        self.log.lives.follows(end.epoch, [begin.epoch])
        self._lost.append((begin, end))

    def put_out(self, reason: str) -> None:
        """It is in the room no longer."""
        self.steps.append(f"left: {reason}")
        self.left.append(reason)
        self.is_in = False

    def away(self, how: str) -> None:
        """The connection is over, or it has left by itself."""
        self.steps.append(how)
        self.is_in = False

    # --- what follows from it

    def proves(self) -> tuple[int, int]:
        """Check that everything that was published since it came first it has, or was told that it is lost, not both.

        Returns:
            How many messages it has, and how many it was told are lost.
        """
        delivered = told = 0
        for number, place in sorted(self.log.places.items(), key=lambda item: item[1].offset):
            has = number in self.got
            is_lost = any(self.log.is_between(place, *lost) for lost in self._lost)
            if number in self.log.gone and not has and self._doubtful:
                told += 1
                continue
            delivered += has
            told += is_lost
            if self.name in self.log.not_for.get(number, ()):
                if has:
                    self.faults.append(f"it has {number}, which was not for it")
            elif has and is_lost and number not in self.log.said_anew:
                self.faults.append(f"it has {number}, and was told that it is lost")
            elif self.log.is_latest and any(self.log.is_between(place, *jump) for jump in self._jumps):
                continue  # the newest stood for it
            elif not has and not is_lost and number not in self.log.undone and self._is_owed(place):
                self.faults.append(f"nothing tells that {number} at {place} is lost")
        self.is_clean()
        return delivered, told

    def _is_owed(self, place: Place) -> bool:
        if self._first is None or self._stand is None or self.log.is_before(place, self._first):
            return False
        if not self.is_in and not (self.log.is_straight and self.log.is_before(place, self._stand)):
            return False  # it would get that when it comes back
        return not any(self.log.is_before(place, end) for end in self._doubtful)

    def is_clean(self) -> None:
        """Check that so far nothing was missing, repeated or out of order that was not told."""
        assert not self.faults, self.explain()

    def explain(self) -> str:
        """What is wrong, and what came before."""
        faults = "\n  ".join(self.faults[:10])
        return f"{self.name} in {self.log.room}:\n  {faults}\nwhat it saw last:\n  " + "\n  ".join(self.steps)

    def numbers(self) -> list[int]:
        """What it has, in the order of the log; of one life of the log alone."""
        return sorted(self.got, key=lambda number: self.got[number].offset)

    def _place(self, data: dict[str, Any]) -> Place | None:
        try:
            place = place_of(data.get("at"))
        except (AssertionError, ValueError):
            self._fault(f"this is no position: {data.get('at')!r}")
            return None
        self.log.index(place)
        return place

    def _fault(self, what: str) -> None:
        self.faults.append(what)
        self.steps.append(f"  <-- {what}")

    @staticmethod
    def _say(at: object) -> str:
        try:
            return str(place_of(at))
        except (AssertionError, ValueError):
            return repr(at)

    def _told(self, data: dict[str, Any]) -> str:
        return ", ".join(
            f"{key} {self._say(value) if key in ('at', 'from') else value}"
            for key, value in data.items()
            if key != "room"
        )
