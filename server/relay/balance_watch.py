"""Balances of those who watch: whatever changes one, on whichever process, is told within two seconds.

They are read again and again, all in one statement, as long as somebody watches: so calls, purchases and refunds know
nothing of it and cost nothing more, and what expires by itself is told too.
"""

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from uuid import UUID

import trio

from server.relay.event_frames import build_passing_frame
from server.relay.server_events import BALANCE_CHANGED, describe_balance
from server.relay.watchers import Watcher, Watchers
from storage.credits import Credits
from storage.errors import StorageError

ROUND_SECONDS = 2.0
READ_AT_ONCE = 1000

logger = logging.getLogger(__name__)


class BalanceWatch:
    """One per process."""

    def __init__(self, credits_: Credits, watchers: Watchers) -> None:
        self._credits = credits_
        self._watchers = watchers
        self._is_away = False

    async def keep_telling(self) -> None:
        """Never returns."""
        while True:
            await self._watchers.wait_somebody()
            try:
                await self.tell()
            except StorageError as error:
                self._note_away(error)
            await trio.sleep(ROUND_SECONDS)

    async def tell(self) -> None:
        """To each whose balance is another than it was told, and at first, for nobody knows what it has seen. Raises
        StorageError.
        """
        users = [user for user in self._watchers.users if self._list_listening(user)]
        for start in range(0, len(users), READ_AT_ONCE):
            for user_id, balance in (await self._credits.balances(users[start : start + READ_AT_ONCE])).items():
                self._tell(user_id, describe_balance(balance))
        self._is_away = False

    def _tell(self, user_id: UUID, payload: bytes) -> None:
        frame = build_passing_frame(BALANCE_CHANGED, payload, datetime.now(UTC))
        for watcher in self._list_listening(user_id):
            if watcher.told_balance != payload:
                watcher.told_balance = payload
                watcher.outbox.put_frame(frame)

    def _list_listening(self, user_id: UUID) -> Collection[Watcher]:
        watchers = self._watchers.list(user_id)
        return [one for one in watchers if one.wish.wants(BALANCE_CHANGED) and one.hears.is_set()]

    def _note_away(self, error: StorageError) -> None:
        if not self._is_away:
            logger.warning("balances could not be watched, and are told later", extra={"reason": str(error)})
        self._is_away = True
