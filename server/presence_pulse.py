"""When a connection's link is to be refreshed, and when its device has been silent for too long. Pure."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import trio

Step = Literal["refresh", "wait", "silent"]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A link must hold for longer than silence and poll together, or one that lives may expire. Clients show life every
    30 seconds; who has missed that twice is gone.
    """

    refresh_seconds: float = 30
    """A link is refreshed so often at most; less by up to a fifth, for those that came together must not stay so."""
    silence_seconds: float = 75
    poll_seconds: float = 5
    """So late it may be noticed that a device shows life after a pause."""
    retry_seconds: float = 2
    """After a refresh that failed; up to twice as long."""
    doubt_seconds: float = 3
    """A link that may be lost is refreshed so soon; less by up to a fifth. By then whoever took it for lost has done
    so, and nobody does any more.
    """


class Pulse:
    """Of one connection. Seconds are the clock's."""

    def __init__(self, rhythm: Rhythm, clock: Callable[[], float] = trio.current_time) -> None:
        self._rhythm = rhythm
        self._clock = clock
        self._opened_at = self._last_life_at = clock()
        self._refreshed_at = self._last_life_at
        self._refresh_at = self._last_life_at + self._vary(rhythm.refresh_seconds)
        self._is_overdue = False

    def note_life(self) -> None:
        """Anything came from the device."""
        self._last_life_at = self._clock()

    def note_refresh(self, asked_at: float) -> None:
        """The link was refreshed with what had been seen by then."""
        self._refreshed_at = asked_at
        self._refresh_at = asked_at + self._vary(self._rhythm.refresh_seconds)
        self._is_overdue = False

    def note_failure(self) -> None:
        """The link was not refreshed, or not even entered: that is due whether or not more life is shown."""
        self._refresh_at = self._clock() + self._rhythm.retry_seconds * random.uniform(1, 2)  # noqa: S311 - no secret
        self._is_overdue = True

    def note_doubt(self) -> None:
        """The link may be lost: it is refreshed soon, whether or not more life is shown."""
        self._refresh_at = min(self._refresh_at, self._clock() + self._vary(self._rhythm.doubt_seconds))
        self._is_overdue = True

    def now(self) -> float:
        return self._clock()

    @property
    def open_seconds(self) -> float:
        return self._clock() - self._opened_at

    def next_step(self) -> Step:
        now = self._clock()
        if now >= self._silent_at:
            return "silent"
        return "refresh" if now >= self._refresh_at and self._has_news else "wait"

    def seconds_to_wait(self) -> float:
        """Until there may be something else to do."""
        now = self._clock()
        next_at = self._refresh_at if now < self._refresh_at else now + self._rhythm.poll_seconds
        return max(0.0, min(next_at, self._silent_at) - now)

    @property
    def _silent_at(self) -> float:
        return self._last_life_at + self._rhythm.silence_seconds

    @property
    def _has_news(self) -> bool:
        return self._is_overdue or self._last_life_at > self._refreshed_at

    def _vary(self, seconds: float) -> float:
        return seconds * random.uniform(0.8, 1)  # noqa: S311 - not for secrets
