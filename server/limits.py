"""Rate limits as requests meet them: which budgets a request draws on, and what happens while Redis is away."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from proxy.ledger import Allowance
from server.budgets import Budget, Budgets
from server.errors import LimitExceeded
from server.local_quota import LocalQuota
from server.outage import Outage
from storage.errors import RedisUnavailable
from storage.rate_limits import Draw, RateLimits, Verdict
from storage.redis import budget_key


class Limits:
    """Every method raises LimitExceeded, which carries the verdict, and RedisUnavailable where the budget is closed
    without Redis. A refused request has drawn on nothing.
    """

    def __init__(self, table: RateLimits, budgets: Budgets, outage: Outage) -> None:
        self.budgets = budgets
        self.outage = outage
        self._table = table
        self._quota = LocalQuota()

    async def take_for_address(self, address: str, budgets: Sequence[tuple[Budget, str]]) -> Verdict | None:
        """Before sign-in. Each budget, of at least one, with what it is counted by beside the address, or nothing."""
        draws = [_draw(address, budget, part) for budget, part in budgets]
        _, verdict = await self._take([budget for budget, _ in budgets], draws, [])
        return verdict

    async def give_back(self, address: str, counted: tuple[Budget, str], drawn: Verdict | None) -> None:
        """What was drawn before sign-in, for somebody who turned out to be known. Never raises."""
        if drawn is None:
            return
        draw = _draw(address, *counted)
        if not drawn.drawn_at:
            self._quota.give_back(draw)
            return
        with suppress(RedisUnavailable), self.outage.watch():
            await self._table.adjust([draw], drawn.drawn_at, -1)

    async def take_for_caller(
        self, owner: UUID, key_id: UUID | None, budget: Budget, lookups: Sequence[str], device_id: str | None = None
    ) -> tuple[list[bytes | None], Verdict | None]:
        """After sign-in: the user's budget and, if there is one, the key's; the device's instead, if the budget is one
        by device. `device_id` is what the credentials are bound to, never what a caller merely says. With the values of
        `lookups`: nothing known of them while Redis is away.
        """
        if budget.is_by_device and device_id is not None:
            return await self._take([budget], [_draw(str(owner), budget, device_id)], lookups)
        return await self._take([budget], _caller_draws(owner, key_id, budget), lookups)

    def open_allowance(self, owner: UUID, key_id: UUID | None, drawn: Verdict | None) -> Allowance:
        """The tokens of one LLM call. `drawn` is what its request has drawn on `llm_requests`: given back if there is
        no room for its tokens. Closed while Redis is away.
        """
        requests = _caller_draws(owner, key_id, self.budgets.llm_requests)
        tokens = _caller_draws(owner, key_id, self.budgets.llm_tokens)
        return TokenAllowance(self._table, self.outage, tokens, requests, drawn.drawn_at if drawn else 0)

    async def _take(
        self, budgets: Sequence[Budget], draws: Sequence[Draw], lookups: Sequence[str]
    ) -> tuple[list[bytes | None], Verdict | None]:
        try:
            with self.outage.watch():
                values, verdict = await self._table.take(draws, lookups)
        except RedisUnavailable:
            if not all(budget.is_open_without_redis for budget in budgets):
                raise
            values, verdict = [None] * len(lookups), self._quota.take(draws)
        if verdict is not None:
            _check(verdict, draws)
        return values, verdict


class TokenAllowance:
    """What `proxy.ledger.Allowance` asks for, of the budgets in Redis."""

    def __init__(
        self, table: RateLimits, outage: Outage, tokens: Sequence[Draw], requests: Sequence[Draw], requested_at: int
    ) -> None:
        self._table = table
        self._outage = outage
        self._tokens = tokens
        self._requests = requests
        self._requested_at = requested_at
        self._reserved = 0
        self._reserved_at = 0

    async def reserve(self, tokens: int) -> None:
        """Raises LimitExceeded, and then the request's own draw has been given back, or RedisUnavailable. A call that
        is larger than the smallest budget waits for all of that.
        """
        reserved = min([tokens, *(draw.limit for draw in self._tokens)])
        draws = [replace(draw, cost=reserved) for draw in self._tokens]
        with self._outage.watch():
            verdict = await self._table.take_or_give_back(draws, self._requests, self._requested_at)
        _check(verdict, draws)
        self._reserved = reserved
        self._reserved_at = verdict.drawn_at

    async def true_up(self, tokens: int) -> None:
        """What was really used. Never raises: a reservation that stays leaves the window by itself."""
        difference = tokens - self._reserved
        if self._reserved_at and difference:
            with suppress(RedisUnavailable), self._outage.watch():
                await self._table.adjust(self._tokens, self._reserved_at, difference)


def _check(verdict: Verdict, draws: Sequence[Draw]) -> None:
    if not verdict.is_granted:
        raise LimitExceeded(verdict, draws[verdict.budget].window_seconds)


def _caller_draws(owner: UUID, key_id: UUID | None, budget: Budget) -> list[Draw]:
    draws = [_draw(str(owner), budget, "")]
    if key_id is not None:
        draws.append(_draw(str(owner), budget.of_key(), str(key_id)))
    return draws


def _draw(owner: str, budget: Budget, part: str) -> Draw:
    name = f"{budget.name}:{part}" if part else budget.name
    return Draw(budget_key(owner, name), budget.limit, budget.window_seconds)
