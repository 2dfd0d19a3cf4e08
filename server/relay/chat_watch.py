"""Chats of those who watch: that one has begun, how far it is, how it ended and what it cost.

The gateway tells of both ends of a call, and that is all that a call pays for. Once a second one loop asks which of the
users with calls are watched at all, on whichever process, and only then looks at their calls.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import trio

from proxy.audience import RunningCall
from proxy.ledger import Settlement
from server.relay.event_frames import NewEvent
from server.relay.server_events import build_chat_finished, build_chat_progress, build_chat_started
from storage.errors import StorageError
from storage.watched import WatchedUsers

ROUND_SECONDS = 1.0
MOST_ENDED = 10_000
"""Of one round. What is more is not told: nothing of it is kept for longer."""

Publish = Callable[[UUID, NewEvent], Awaitable[object]]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    call: RunningCall
    began_at: datetime
    is_told: bool = False
    told_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Ended:
    """Without the call itself, which may hold on to a whole prompt."""

    model: str
    began_at: datetime
    is_told: bool
    settlement: Settlement


class ChatWatch:
    """One per process; it is the gateway's audience."""

    def __init__(self, watched: WatchedUsers) -> None:
        self._watched = watched
        self._running: dict[UUID, _Running] = {}
        self._ended: list[_Ended] = []
        self._news = trio.Event()
        self._is_away = False

    def note_started(self, call: RunningCall) -> None:
        self._running[call.request_id] = _Running(call, datetime.now(UTC))
        self._news.set()

    def note_ended(self, call: RunningCall, settlement: Settlement | None) -> None:
        running = self._running.pop(call.request_id, None)
        if running is not None and settlement is not None and len(self._ended) < MOST_ENDED:
            self._ended.append(_Ended(call.model.id, running.began_at, running.is_told, settlement))

    async def keep_telling(self, publish: Publish) -> None:
        """Never returns. Sleeps while no call runs."""
        while True:
            if not self._running and not self._ended:
                self._news = trio.Event()
                await self._news.wait()
            await trio.sleep(ROUND_SECONDS)
            try:
                await self.tell(publish)
            except StorageError as error:
                self._note_away(error)

    async def tell(self, publish: Publish) -> None:
        """One round. Raises StorageError; then what has ended meanwhile is not told."""
        ended, self._ended = self._ended, []
        running = list(self._running.values())
        users = {one.call.user_id for one in running} | {one.settlement.user_id for one in ended}
        watched = await self._watched.find(users)
        for one in running:
            if one.call.user_id in watched and one.call.request_id in self._running:
                await self._tell_running(publish, one)
        await self._tell_ended(publish, [one for one in ended if one.settlement.user_id in watched])
        self._is_away = False

    async def _tell_running(self, publish: Publish, one: _Running) -> None:
        call, model = one.call, one.call.model.id
        if not one.is_told:
            one.is_told = True
            await publish(call.user_id, build_chat_started(call.request_id, model, one.began_at))
        usage = call.usage_so_far()
        if usage.completion_tokens > one.told_tokens:
            one.told_tokens = usage.completion_tokens
            await publish(call.user_id, build_chat_progress(call.request_id, model, usage))

    async def _tell_ended(self, publish: Publish, ended: Sequence[_Ended]) -> None:
        for one in ended:
            settlement = one.settlement
            if not one.is_told:
                await publish(settlement.user_id, build_chat_started(settlement.hold_id, one.model, one.began_at))
            await publish(settlement.user_id, build_chat_finished(one.model, settlement))

    def _note_away(self, error: StorageError) -> None:
        if not self._is_away:
            logger.warning("chats could not be told to who watches them", extra={"reason": str(error)})
        self._is_away = True
