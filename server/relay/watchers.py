"""Those who watch `/ws/events` on this process, and what all of them are told at once."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import trio

from server.auth.callers import Caller
from server.errors import TooManyWatchers
from server.relay.event_lines import WatchWish
from server.relay.outbox import Outbox
from server.relay.sign_in_check import SIGNED_OUT, list_owners

MOST_PER_USER = 32
"""On one process. Each may let megabytes wait."""
LAST_WORDS_SECONDS = 5.0
SLOW = 1013
"""https://www.iana.org/assignments/websocket/websocket.xml#close-code-number"""
DISCARDING = frozenset({SLOW, SIGNED_OUT})
"""What waits is not written: its client does not take it, or is not to have it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a socket is to end: a close code, and a word for people."""

    code: int
    reason: str


class Watcher:
    """One of them. What is put into its outbox is written to it."""

    def __init__(self, caller: Caller, wish: WatchWish) -> None:
        self.caller = caller
        self.wish = wish
        self.outbox = Outbox(self._overflow)
        self.ending: Ending | None = None
        self.writing = trio.CancelScope()
        self.is_open = True
        self.hears = trio.Event()
        """Set once nothing that happens from then on is missed."""
        self.told_balance = b""
        self.life_at = 0.0
        """When the client of its WebSocket has last shown that it lives."""
        self.is_writing = False

    @property
    def user_id(self) -> UUID:
        return self.caller.user_id

    def end(self, code: int, reason: str) -> None:
        """What waits is written first, if its client takes it and may have it. Safe to repeat: the first counts."""
        if self.ending is None:
            self.ending = Ending(code, reason)
            self.writing.deadline = trio.current_time() + LAST_WORDS_SECONDS
            self.outbox.close(discards=code in DISCARDING)

    def note_life(self) -> None:
        self.life_at = trio.current_time()

    def _overflow(self) -> None:
        self.end(SLOW, "too much was left unread: come again with the id of the last event")


class Watchers:
    """One per process."""

    def __init__(self) -> None:
        self._by_user: dict[UUID, set[Watcher]] = defaultdict(set)
        self._somebody = trio.Event()
        self._doubted: set[UUID] = set()
        self._doubt = trio.Event()

    @contextmanager
    def admit(self, watcher: Watcher) -> Iterator[None]:
        """It is told what concerns it for as long as the block lasts. Raises TooManyWatchers."""
        if len(self.list(watcher.user_id)) >= MOST_PER_USER:
            raise TooManyWatchers(f"at most {MOST_PER_USER} of yours may watch events here at once")
        self._by_user[watcher.user_id].add(watcher)
        self._somebody.set()
        try:
            yield
        finally:
            self._remove(watcher)

    @property
    def users(self) -> Collection[UUID]:
        return self._by_user.keys()

    def list(self, user_id: UUID) -> Collection[Watcher]:
        return tuple(self._by_user[user_id]) if user_id in self._by_user else ()

    def list_all(self) -> Collection[Watcher]:
        return [watcher for watchers in self._by_user.values() for watcher in watchers]

    def tell(self, user_id: UUID, event_type: str, frame: bytes) -> None:
        """To those of the user that want such events."""
        for watcher in self.list(user_id):
            if watcher.wish.wants(event_type):
                watcher.outbox.put_frame(frame)

    def tell_all(self, event_type: str, frame: bytes) -> None:
        for user_id in tuple(self._by_user):
            self.tell(user_id, event_type, frame)

    def doubt(self, owner: UUID) -> None:
        """An end that was told on that user's channel may have been missed."""
        self._doubted.add(owner)
        self._doubt.set()

    async def wait_doubts(self) -> None:
        """Not a checkpoint if there are any."""
        if not self._doubted:
            self._doubt = trio.Event()
            await self._doubt.wait()

    def take_doubtful(self) -> Collection[Watcher]:
        """Those whose end may have been missed. Each is returned once."""
        doubted, self._doubted = self._doubted, set()
        return [one for one in self.list_all() if not doubted.isdisjoint(list_owners(one.caller))] if doubted else []

    async def wait_somebody(self) -> None:
        """Until there is one. Not a checkpoint if there is."""
        while not self._by_user:
            self._somebody = trio.Event()
            await self._somebody.wait()

    def _remove(self, watcher: Watcher) -> None:
        watchers = self._by_user[watcher.user_id]
        watchers.discard(watcher)
        if not watchers:
            del self._by_user[watcher.user_id]
