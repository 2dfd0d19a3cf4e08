"""Budgets: how much of what a caller may have in a window. Pure.

Before sign-in a budget belongs to an address, after it to a user; each API key has one of its own beside its user's.
"""

from dataclasses import dataclass, replace

from server.settings import Settings, read_count

KEY_PERCENT = 80
"""Of its user's budget: an API key that runs wild leaves room for the user's apps and other keys."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` units (requests, or tokens) in any window of `window_seconds`. What only reads stays open, within a bound
    kept by this process alone, while Redis is away; everything else is closed then. With `is_by_device` a device that
    its token is bound to has all of it for itself: one that comes again and again locks out none of its user's others.
    """

    name: str
    limit: int
    window_seconds: float
    is_open_without_redis: bool = False
    is_by_device: bool = False

    def of_key(self) -> "Budget":
        """What one API key may have of it."""
        return replace(self, limit=max(1, self.limit * KEY_PERCENT // 100))


@dataclass(frozen=True, slots=True)
class Budgets:
    """By address: `public` (pages, and whoever brings no credentials that hold), `sign_ins`, `polls` (by login and
    address; `poll_floods` by address), `accounts` (made) and `webhooks`. By user, and again by key: `reads`, `writes`,
    `llm_requests`, `llm_tokens`. By device where the token says which, else as those: `sockets` (opened).
    """

    public: Budget
    sign_ins: Budget
    polls: Budget
    poll_floods: Budget
    accounts: Budget
    sockets: Budget
    webhooks: Budget
    reads: Budget
    writes: Budget
    llm_requests: Budget
    llm_tokens: Budget

    def find(self, name: str) -> Budget:
        budget: Budget = getattr(self, name)
        return budget


def read_budgets(settings: Settings) -> Budgets:
    """The names and the two windows are those that operators of the reference server know; defaults are ours."""
    window = settings.read("RATE_LIMIT_WINDOW_MS", 60_000, read_count) / 1000
    account_window = settings.read("ACCOUNT_CREATION_RATE_LIMIT_WINDOW_MS", 3_600_000, read_count) / 1000

    def read(name: str, setting: str, limit: int, **rules: bool) -> Budget:
        return Budget(name, settings.read(setting, limit, read_count), window, **rules)

    accounts = settings.read("ACCOUNT_CREATION_RATE_LIMIT_MAX_REQUESTS", 5, read_count)
    return Budgets(
        public=read("public", "RATE_LIMIT_MAX_REQUESTS", 60, is_open_without_redis=True),
        sign_ins=read("sign_ins", "RATE_LIMIT_SIGN_INS", 30),
        polls=read("polls", "RATE_LIMIT_POLLS", 60),
        poll_floods=read("poll_floods", "RATE_LIMIT_POLLS_PER_ADDRESS", 600),
        accounts=Budget("accounts", accounts, account_window),
        # Open without Redis: devices that are connected to the same process go on to find each other.
        sockets=read("sockets", "RATE_LIMIT_SOCKETS", 60, is_open_without_redis=True, is_by_device=True),
        webhooks=read("webhooks", "RATE_LIMIT_WEBHOOKS", 600),
        reads=read("reads", "RATE_LIMIT_READS", 300, is_open_without_redis=True),
        writes=read("writes", "RATE_LIMIT_WRITES", 120),
        llm_requests=read("llm_requests", "RATE_LIMIT_LLM_REQUESTS", 60),
        llm_tokens=read("llm_tokens", "RATE_LIMIT_LLM_TOKENS", 1_000_000),
    )
