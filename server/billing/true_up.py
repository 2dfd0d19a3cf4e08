"""Charges that were made by our own count are made exact, as soon as the provider says what the call has used.

Of an answer that broke off the provider never said so itself. Where it can be asked afterwards (OpenRouter), it is; the
user is charged or given the difference. A call whose process was killed left no id behind to ask by: its charge, exact
to what was delivered, stays provisional. So does one of which the provider still knows nothing after the last check.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import cast

import trio

from proxy.errors import UpstreamError, UsageOutOfBounds
from proxy.events import Usage
from proxy.ledger import Outcome, Settlement
from proxy.meter import merge_usage
from proxy.pricing import cost_usd, decode_price
from storage.credits import Credits
from storage.errors import StorageError
from storage.unchecked_usage import MAX_CHECKS, UncheckedUsage, UncheckedUsages

PAUSE_SECONDS = 5.0
LOOK_UP_SECONDS = 20

LookUp = Callable[[str, str], Awaitable[Usage | None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrueUp:
    """`look_up` asks a provider about one answer: the provider's code, and its id for the answer. `provider_codes` are
    those that can be asked.
    """

    usages: UncheckedUsages
    credits: Credits
    look_up: LookUp
    provider_codes: Sequence[str]

    async def keep_truing_up(self) -> None:
        """Never returns. On every process at once, if need be."""
        while True:
            try:
                await self.true_up()
            except StorageError:
                logger.warning("provisional charges could not be checked; the next round tries again", exc_info=True)
            await trio.sleep(PAUSE_SECONDS)

    async def true_up(self) -> int:
        """Check every charge whose turn it is, one after the other, and say how many were made exact."""
        done = 0
        while self.provider_codes and (due := await self.usages.find_due(self.provider_codes)):
            for usage in due:
                done += await self._check(usage)
        return done

    async def _check(self, usage: UncheckedUsage) -> bool:
        extra = {"call_id": usage.hold_id, "provider": usage.provider_code, "upstream_id": usage.upstream_id}
        try:
            with trio.fail_after(LOOK_UP_SECONDS):
                reported = await self.look_up(usage.provider_code, usage.upstream_id)
            settlement = None if reported is None else build_settlement(usage, reported)
        except (UpstreamError, UsageOutOfBounds, trio.TooSlowError) as error:
            logger.info("a provider could not be asked what a call has used: %s", error, extra=extra)
            settlement = None
        if settlement is not None:
            return await self.credits.true_up(settlement)
        if usage.checks >= MAX_CHECKS:
            logger.warning("a charge stays as it was counted here: its provider does not say more", extra=extra)
        return False


def build_settlement(usage: UncheckedUsage, reported: Usage) -> Settlement:
    """The exact charge, by the price that the call was held with. Zeros are no word: there our own count stays.

    Raises UsageOutOfBounds.
    """
    counted = Usage(**{field.name: getattr(usage.progress, field.name) for field in fields(Usage)})
    exact = merge_usage(counted, reported)
    return Settlement(
        hold_id=usage.hold_id,
        user_id=usage.user_id,
        outcome=cast(Outcome, usage.outcome),
        charge_usd=cost_usd(decode_price(usage.price), exact),
        usage=exact,
        provisional=False,
        provider_code=usage.provider_code,
        upstream_id=usage.upstream_id,
    )
