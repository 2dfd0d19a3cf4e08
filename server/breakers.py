"""The circuit breakers as this process knows them: read once a second, and at once what it did itself.

A call to a healthy provider never waits for Redis. While Redis is away no breaker opens, and those that are open close
when their opening ends: calls go on, which costs those time that fail, and no more. Whoever finds Redis away has waited
half a second for it; after that nobody waits, until the loop has reached it again.
"""

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from proxy.breaker import BreakerState
from storage.breakers import Breaker, BreakerTable, Outcomes, ProbeAnswer, Standing
from storage.errors import StorageError

REFRESH_SECONDS = 1.0
ANSWER_SECONDS = 0.5
"""The longest that a call waits for Redis, to ask for a probe or to tell what came of one. Shorter than the deadline of
commands that must not be missed: here nothing is lost but an opinion.
"""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """An opening by this process's clock. Nobody need ask for a probe before `probe_at`."""

    id: int
    ends_at: float
    probe_at: float


class SharedBreakers:
    """Fits `proxy.breaker.Breakers`. One per process, with `keep_fresh` running.

    Which call was let through as a probe nobody tells: of two that end meanwhile in this process, the first counts.
    """

    def __init__(self, table: BreakerTable) -> None:
        self._table = table
        self._openings: dict[Breaker, Opening] = {}
        self._successes: Counter[Breaker] = Counter()
        """Since the last exchange."""
        self._probes: dict[Breaker, int] = {}
        """The openings that a call of ours was let through to probe, and has not yet told about."""
        self._asking: set[Breaker] = set()
        self._turns = 0
        self._is_redis_away = False
        self._looking = trio.Lock()
        self._seen: Mapping[Breaker, Outcomes] | None = None
        self._seen_until = -math.inf

    def state(self, provider: str, model: str) -> BreakerState:
        opening = self._openings.get((provider, model))
        if opening is None:
            return "closed"
        return "open" if trio.current_time() < opening.ends_at else "half_open"

    async def admit(self, provider: str, model: str) -> bool:
        """Fails open: a breaker that nobody can be asked about is closed."""
        breaker = (provider, model)
        opening = self._openings.get(breaker)
        if opening is None:
            return True
        if trio.current_time() < opening.probe_at or breaker in self._asking:
            return False
        return await self._ask_for_probe(breaker)

    async def note_success(self, provider: str, model: str) -> None:
        breaker = (provider, model)
        opening_id = self._probes.pop(breaker, None)
        if opening_id is None:
            self._successes[breaker] += 1
            return
        verdict = await self._reach(lambda: self._table.note_probe_success(breaker, opening_id))
        if verdict is not None:
            self._learn(breaker, verdict.standing)
            if verdict.has_turned:
                logger.warning("a circuit breaker closed", extra={"provider": provider, "model": model})

    async def note_failure(self, provider: str, model: str, retry_after_seconds: float | None = None) -> None:
        """Fails open: a failure that cannot be told is forgotten. Redis lost for a moment must not close a provider,
        and one process alone sees too little to judge.
        """
        breaker = (provider, model)
        opening_id, successes = self._probes.pop(breaker, 0), self._successes.pop(breaker, 0)
        retry_after = retry_after_seconds or 0
        verdict = await self._reach(lambda: self._table.note_failure(breaker, opening_id, successes, retry_after))
        if verdict is not None:
            self._learn(breaker, verdict.standing)
            if verdict.has_turned:
                told = {"provider": provider, "model": model, "seconds": verdict.standing.open_seconds}
                logger.warning("a circuit breaker opened", extra=told)

    async def read_outcomes(self, breakers: Sequence[Breaker]) -> Mapping[Breaker, Outcomes] | None:
        """What came of the calls of all processes, for people who look: up to two seconds old, whoever asks. None while
        Redis is away. Always ask for the same breakers.
        """
        async with self._looking:
            if trio.current_time() >= self._seen_until:
                self._seen = await self._look(breakers)
                self._seen_until = trio.current_time() + REFRESH_SECONDS
            return self._seen

    async def keep_fresh(self) -> None:
        """Never returns."""
        while True:
            await self.refresh()
            await trio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Tell of the successes, and read which breakers are not closed. What could not be told is dropped: it would be
        out of date. What one of our calls has turned meanwhile is newer than what was read.
        """
        successes, self._successes = self._successes, Counter()
        turns = self._turns
        try:
            standings = await self._table.exchange(successes)
        except StorageError as error:
            self._note_outage(error)
            return
        self._is_redis_away = False
        if turns == self._turns:
            now = trio.current_time()
            self._openings = {breaker: self._date(breaker, standings[breaker], now) for breaker in standings}
            self._probes = {breaker: id_ for breaker, id_ in self._probes.items() if self._is_last(breaker, id_)}

    async def _look(self, breakers: Sequence[Breaker]) -> Mapping[Breaker, Outcomes] | None:
        """Whoever looks in vain says nothing of Redis to those who call: they find out for themselves."""
        if self._is_redis_away:
            return None
        try:
            with trio.fail_after(ANSWER_SECONDS):
                return await self._table.read_outcomes(breakers)
        except (StorageError, trio.TooSlowError):
            return None

    async def _ask_for_probe(self, breaker: Breaker) -> bool:
        """One at a time asks; who comes meanwhile is refused, for at most one of them could be let through."""
        self._asking.add(breaker)
        try:
            answer = await self._reach(lambda: self._table.ask_for_probe(breaker))
        finally:
            self._asking.discard(breaker)
        if answer is None:
            self._learn(breaker, Standing())
            return True
        self._learn_of_probe(breaker, answer)
        return answer.is_granted or answer.standing.opening == 0

    async def _reach(self, request: Callable[[], Awaitable[T]]) -> T | None:
        """None while Redis is away."""
        if self._is_redis_away:
            return None
        try:
            with trio.fail_after(ANSWER_SECONDS):
                return await request()
        except (StorageError, trio.TooSlowError) as error:
            self._note_outage(error)
            return None

    def _note_outage(self, error: Exception) -> None:
        if not self._is_redis_away:
            logger.warning("circuit breakers are not shared for now, and calls go on", exc_info=error)
        self._is_redis_away = True

    def _learn(self, breaker: Breaker, standing: Standing) -> None:
        if self._is_last(breaker, standing.opening):
            return
        self._turns += 1
        if standing.opening:
            self._openings[breaker] = self._date(breaker, standing, trio.current_time())
        else:
            self._openings.pop(breaker, None)

    def _learn_of_probe(self, breaker: Breaker, answer: ProbeAnswer) -> None:
        self._learn(breaker, answer.standing)
        opening = self._openings.get(breaker)
        if opening is None:
            return
        probe_at = trio.current_time() + answer.standing.open_seconds + answer.probe_seconds
        self._openings[breaker] = Opening(opening.id, opening.ends_at, probe_at)
        if answer.is_granted:
            self._probes[breaker] = opening.id
            self._turns += 1

    def _is_last(self, breaker: Breaker, opening_id: int) -> bool:
        opening = self._openings.get(breaker)
        return opening_id == (opening.id if opening else 0)

    def _date(self, breaker: Breaker, standing: Standing, now: float) -> Opening:
        known = self._openings.get(breaker)
        if known is not None and known.id == standing.opening:
            return known
        ends_at = now + standing.open_seconds
        return Opening(standing.opening, ends_at, ends_at)
