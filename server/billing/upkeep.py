"""What time does to the accounts: free credits expire, and events of Stripe lose what they say of people."""

import logging
from dataclasses import dataclass

import trio

from storage.bookings import Bookings
from storage.errors import StorageError
from storage.stripe_events import StripeEvents

PAYLOAD_DAYS = 30
"""For so long an event that has ended can be looked at."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upkeep:
    bookings: Bookings
    events: StripeEvents
    period_seconds: float = 60.0

    async def keep_up(self) -> None:
        """Never returns. Expired credits cannot be used from their moment on; here their end is booked."""
        while True:
            try:
                await self.run_once()
            except StorageError as error:
                logger.warning("the accounts were not kept up, and will be in the next round: %s", error)
            await trio.sleep(self.period_seconds)

    async def run_once(self) -> None:
        """Everything that is due. Safe to repeat, and to run on every process at once."""
        while await self.bookings.expire_free():
            pass
        while await self.events.purge_payloads(PAYLOAD_DAYS):
            pass
