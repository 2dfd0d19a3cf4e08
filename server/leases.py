"""Leases of running calls: renewed while we live, settled from what is known when their owner is gone.

Every process sweeps: at its start it reads the journals that dead processes left on this machine, so that their calls
are settled at once and to the last token; after that, and for machines that are lost, it looks for holds that nobody
renews.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from uuid import UUID

import trio

from proxy.errors import UpstreamError, UsageOutOfBounds
from proxy.events import Usage
from proxy.ledger import Settlement
from proxy.meter import merge_usage
from proxy.pricing import cost_usd, decode_price
from storage.calls import ExpiredHold
from storage.credits import Credits
from storage.errors import StorageError
from storage.journal import Journal, Progress, find_journals, read_orphan

RENEWALS_PER_LEASE = 4
CALL_OFF_SECONDS = 20

CallOff = Callable[[str, str], Awaitable[Usage | None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leases:
    """`call_off` ends an answer that a provider makes in the background: its code and the provider's id for it.
    `end_call` ends a call of this process whose user has asked for it where nobody could reach us; it must not wait.
    """

    credits: Credits
    journal: Journal
    folder: Path
    call_off: CallOff
    end_call: Callable[[UUID], None]

    async def keep_renewing(self) -> None:
        """Never returns. One statement a round for all calls of this process."""
        while True:
            await trio.sleep(self.credits.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.renew()
            except StorageError:
                logger.warning("leases could not be renewed", exc_info=True)

    async def renew(self) -> None:
        """Extend the leases of running calls, and let those end whose calls have ended and could not be settled."""
        if running := self.journal.running():
            for cancelled in await self.credits.renew(running):
                self.end_call(cancelled)
        if left := self.journal.left_behind():
            await self._hand_over(left)
            self.journal.forget(left)

    async def keep_sweeping(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.sweep()
            except StorageError:
                logger.warning("orphaned calls could not be settled; the next round tries again", exc_info=True)
            await trio.sleep(self.credits.lease_seconds / RENEWALS_PER_LEASE)

    async def sweep(self) -> int:
        """Settle every call whose owner is gone, and say how many. Safe to repeat and to run on every process at
        once.
        """
        for path in await trio.to_thread.run_sync(find_journals, self.folder):
            await self._expire_journal(path)
        settled = 0
        while expired := await self.credits.find_expired():
            for hold in expired:
                settled += await self._try_to_settle(hold)
        if settled:
            logger.warning("calls were settled whose process is gone", extra={"calls": settled})
        return settled

    async def _try_to_settle(self, hold: ExpiredHold) -> bool:
        try:
            return await self._settle(hold)
        except StorageError:
            raise
        except Exception:  # the edge of a call: what is wrong with one must not keep the others, or end the server
            logger.exception("a hold could not be settled; it is tried again a lease later", extra={"call_id": hold.id})
            await self.credits.renew([hold.progress])
            return False

    async def _settle(self, hold: ExpiredHold) -> bool:
        """False if it was done before, or has to wait: an answer in the background that could not be called off keeps
        its hold for another lease, as long as it may be under way.
        """
        try:
            reported = await self._end_upstream(hold)
        except (UpstreamError, trio.TooSlowError):
            extra = {"call_id": hold.id, "provider": hold.upstream_provider, "upstream_id": hold.upstream_id}
            logger.warning("an answer in the background could not be called off", exc_info=True, extra=extra)
            if hold.is_young:
                await self.credits.renew([hold.progress])
                return False
            reported = None
        settlement = build_settlement(hold, reported)
        is_settled = await self.credits.settle_expired(settlement)
        if not is_settled and reported is not None:  # another sweep found the answer called off and heard nothing of it
            await self.credits.correct_expired(settlement)
        return is_settled

    async def _end_upstream(self, hold: ExpiredHold) -> Usage | None:
        """What an answer in the background has used that goes on although its call is lost. It is called off first.

        Raises UpstreamError, or TooSlowError.
        """
        if hold.upstream_provider is None or hold.upstream_id is None:
            return None
        with trio.fail_after(CALL_OFF_SECONDS):
            return await self.call_off(hold.upstream_provider, hold.upstream_id)

    async def _expire_journal(self, path: Path) -> None:
        with read_orphan(path) as progress:
            if progress:
                await self._hand_over(progress)

    async def _hand_over(self, ended: list[Progress]) -> None:
        """Let the sweep settle what these calls used; what a sweep has settled before, from older figures, is
        corrected.
        """
        await self.credits.expire(ended)
        known = {one.hold_id: one for one in ended}
        for hold in await self.credits.find_settled_as_expired(list(known)):
            await self.credits.settle(build_settlement(replace(hold, progress=known[hold.id])))


def build_settlement(hold: ExpiredHold, reported: Usage | None = None) -> Settlement:
    """The charge for what is known: the provider's usage if it had come, or was `reported` since and is not all zeros,
    else what was counted; nothing if nothing ran. Who answered is not known: the usage row says who was to.
    """
    progress = hold.progress
    known = Usage(**{field.name: getattr(progress, field.name) for field in fields(Usage)})
    usage = known if reported is None else merge_usage(known, reported)
    is_reported = progress.reported or usage == reported
    price = decode_price(hold.price)
    try:
        charge = cost_usd(price, usage)
    except UsageOutOfBounds:
        logger.exception("a hold expired with usage that cannot be", extra={"call_id": hold.id})
        usage = Usage()
        charge = cost_usd(price, usage)
    return Settlement(hold.id, hold.user_id, "cancelled", charge, usage, provisional=not is_reported)
