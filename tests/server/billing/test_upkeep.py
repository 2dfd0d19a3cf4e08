"""What time does to the accounts."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio
import trio.testing

from server.billing.upkeep import PAYLOAD_DAYS, Upkeep
from storage.bookings import Bookings
from storage.errors import DatabaseUnavailable
from storage.stripe_events import StripeEvents


@dataclass(slots=True)
class Due:
    """What is due of both, and what was asked for; `failures` times PostgreSQL is away."""

    credits: int = 0
    payloads: int = 0
    failures: int = 0
    asked: list[tuple[float, str]] = field(default_factory=list)

    async def expire_free(self) -> int:
        self.asked.append((trio.current_time(), "credits"))
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("PostgreSQL is away")
        done, self.credits = min(self.credits, 2), max(self.credits - 2, 0)
        return done

    async def purge_payloads(self, older_than_days: int) -> int:
        assert older_than_days == PAYLOAD_DAYS
        self.asked.append((trio.current_time(), "payloads"))
        done, self.payloads = min(self.payloads, 1), max(self.payloads - 1, 0)
        return done

    def as_upkeep(self) -> Upkeep:
        me: Any = self
        return Upkeep(cast(Bookings, me), cast(StripeEvents, me), period_seconds=60)


async def test_a_round_goes_on_until_nothing_is_due() -> None:
    due = Due(credits=5, payloads=2)
    await due.as_upkeep().run_once()
    assert (due.credits, due.payloads) == (0, 0)
    assert [what for _, what in due.asked] == ["credits"] * 4 + ["payloads"] * 3


async def test_a_round_comes_every_minute_also_after_a_failure(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    due = Due(failures=1)
    with trio.move_on_after(150):
        await due.as_upkeep().keep_up()
    assert due.asked == [(0, "credits"), (60, "credits"), (60, "payloads"), (120, "credits"), (120, "payloads")]
    assert "PostgreSQL is away" in caplog.text
