"""Which processes live, and which are to be called gone: from what each reading of the set of instances says. Pure.

Who cannot renew in time, because Redis is away or slow, cannot know whether others could: nobody is called gone until
all of them have had the whole time to renew.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import trio

from storage.relay_instances import Census

MOST_GONE = 1_000
"""So many are remembered, the newest."""


@dataclass(frozen=True, slots=True)
class Tempo:
    renew_seconds: float = 2
    expiry_seconds: float = 10
    undeliverable_seconds: float = 10
    """A letter that has not left by then is given up, and all that wait behind it."""

    @property
    def late_seconds(self) -> float:
        """Whoever renews with less than this left was held up."""
        return self.expiry_seconds / 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gone`: each is told once. `was_written_off`: the others think, or thought, that this process is gone."""

    gone: Collection[str] = ()
    was_written_off: bool = False


class _Gone(NamedTuple):
    since: float
    last_sign_at: float


class Liveness:
    """As one process sees it. `instance` is its own name."""

    def __init__(self, instance: str, tempo: Tempo, clock: Callable[[], float] = trio.current_time) -> None:
        self._instance = instance
        self._tempo = tempo
        self._clock = clock
        self._known: dict[str, float] = {}
        """Who lives, or is yet to be looked for, and since when it has been asked for."""
        self._signs: dict[str, float] = {}
        """When each of them last renewed."""
        self._gone: dict[str, _Gone] = {}
        self._settled_at = math.inf
        self._renewed_at: float | None = None

    def knows(self, instance: str) -> bool:
        """Whether something is known of it, by a reading or as it is yet to be looked for."""
        return instance == self._instance or instance in self._known or instance in self._gone

    def is_alive(self, instance: str) -> bool:
        """One that nothing is known of lives, until the next reading says otherwise."""
        if instance in self._gone:
            return False
        if not self.knows(instance):
            self._known[instance] = self._clock()
        return True

    def is_gone(self, instance: str) -> bool:
        return instance in self._gone

    def find_last_sign(self, instance: str) -> float:
        """Of one that is gone: when it last renewed, by the clock; else now."""
        gone = self._gone.get(instance)
        return self._clock() if gone is None else gone.last_sign_at

    @property
    def others(self) -> Collection[str]:
        return tuple(self._known)

    def note(self, census: Census, asked_at: float) -> Verdict:
        """What Redis said, when it was asked at this time of the clock."""
        is_first, left_seconds = self._renewed_at is None, self._find_left(census)
        if is_first or left_seconds < self._tempo.late_seconds:
            self._settled_at = self._clock() + self._tempo.expiry_seconds
        self._renewed_at = asked_at
        living = {name: left for name, left in census.living.items() if name != self._instance}
        gone = self._find_gone(living, asked_at) if self._clock() >= self._settled_at else []
        for instance, left in living.items():
            self._revive(instance, asked_at, asked_at + min(0, left - self._tempo.expiry_seconds))
        for instance in gone:
            self._bury(instance, self._signs.get(instance, asked_at - self._tempo.expiry_seconds))
        return Verdict(gone, was_written_off=not is_first and left_seconds <= 0)

    def note_farewell(self, instance: str) -> bool:
        """It says itself that it goes, and is gone from now on, unless a later reading has it. False if it was."""
        if instance in self._gone:
            return False
        self._bury(instance, self._clock())
        return True

    def _bury(self, instance: str, last_sign_at: float) -> None:
        self._known.pop(instance, None)
        self._signs.pop(instance, None)
        self._gone[instance] = _Gone(self._clock(), last_sign_at)
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def _find_left(self, census: Census) -> float:
        """What Redis says may be of a renewal that was given up long ago, and carried out late: what we know of counts
        as well.
        """
        if census.left_seconds is None or self._renewed_at is None:
            return -math.inf
        return min(census.left_seconds, self._renewed_at + self._tempo.expiry_seconds - self._clock())

    def _find_gone(self, living: Collection[str], asked_at: float) -> list[str]:
        return [name for name, since in self._known.items() if name not in living and since < asked_at]

    def _revive(self, instance: str, asked_at: float, sign_at: float) -> None:
        """One that has been gone since then may have been seen before it went."""
        gone = self._gone.get(instance)
        if gone is None or gone.since < asked_at:
            self._gone.pop(instance, None)
            self._known.setdefault(instance, asked_at)
            self._signs[instance] = sign_at
