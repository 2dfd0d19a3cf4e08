"""Rate limits as they are meant, without Redis: what was drawn in a twelfth counts through the twelve after it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from storage.rate_limits import Draw


@dataclass(frozen=True, slots=True)
class Expected:
    """`free_at` and `whole_at` are the twelfths in which there is room, and in which nothing counts any more."""

    is_granted: bool
    budget: int
    remaining: int
    whole_at: int
    free_at: int | None


@dataclass(slots=True)
class BudgetModel:
    """Time is counted in twelfths, and stands still unless `twelfth` is moved."""

    twelfth: int = 0
    drawn: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each key, the twelfth of every single unit."""

    def counting(self, key: str) -> list[int]:
        return sorted(twelfth for twelfth in self.drawn[key] if self.twelfth - twelfth <= 12)

    def take(self, draws: Sequence[Draw]) -> Expected:
        free_at = [self._find_room(draw) for draw in draws]
        refused = [free for free in free_at if free is not None]
        if refused:
            budget = free_at.index(max(refused))
            return self._tell(draws, budget, max(refused))
        for draw in draws:
            self.drawn[draw.key] += [self.twelfth] * min(draw.cost, draw.limit)
        shares = [(draw.limit - len(self.counting(draw.key))) / draw.limit for draw in draws]
        return self._tell(draws, shares.index(min(shares)), None)

    def adjust(self, draw: Draw, drawn_in: int, by: int) -> None:
        if by > 0:
            self.drawn[draw.key] += [self.twelfth] * by
        for _ in range(min(-by, self.drawn[draw.key].count(drawn_in))):
            self.drawn[draw.key].remove(drawn_in)

    def _find_room(self, draw: Draw) -> int | None:
        counting = self.counting(draw.key)
        excess = len(counting) + min(draw.cost, draw.limit) - draw.limit
        return counting[excess - 1] + 13 if excess > 0 else None

    def _tell(self, draws: Sequence[Draw], budget: int, free_at: int | None) -> Expected:
        counting = self.counting(draws[budget].key)
        return Expected(
            free_at is None, budget, max(0, draws[budget].limit - len(counting)), counting[-1] + 13, free_at
        )
