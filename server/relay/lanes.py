"""A user's events as this process passes them on: in the order of their numbers, each once, to everybody here."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import trio

from server.relay.event_frames import About, build_frame, build_gap_frame, read_body
from server.relay.event_rules import has_missed
from server.relay.outbox import ROOM_BYTES, Outbox
from storage.event_stream import Page, Track

MOST_PENDING = 256
"""Events whose predecessor has not come. More are not remembered: they are read again together with it, and what the
history does not keep is told as a gap.
"""
MOST_PENDING_BYTES = ROOM_BYTES
MOST_HELD_BYTES = ROOM_BYTES
"""What has no number and waits for the end of a replay. More is told at once, before it is its turn."""
MOST_TOLD_EARLY = 1_000

Takes = Callable[[About, UUID | None], bool]
"""Whether an event is for somebody, with the primary desktop where it is known."""


class Happening(NamedTuple):
    """An event with a number."""

    id: int
    about: About
    head: bytes


@dataclass(eq=False, slots=True)
class Seat:
    """Somebody who is told. `cursor`: everything up to there is known to them; None until it has been looked up. Until
    it `is_live` what comes after that is read from the history, and `held` is what has no number. `is_stranded`: that
    could not be read, for Redis was away. They know that everything up to `missed_until` may be gone.
    """

    outbox: Outbox
    takes: Takes
    tracks: Sequence[Track]
    device_id: UUID | None = None
    is_desktop: bool = False
    cursor: int | None = None
    is_live: bool = False
    is_stranded: bool = False
    missed_until: int = 0
    held: list[bytes] = field(default_factory=list, repr=False)
    held_bytes: int = 0

    def hold(self, frame: bytes) -> None:
        if self.is_live or self.held_bytes >= MOST_HELD_BYTES:
            self.outbox.put_frame(frame)
            return
        self.held.append(frame)
        self.held_bytes += len(frame)

    def tell_gap(self, after: int, page: Page, at: datetime) -> None:
        """If that page of history shows one: once, however many pages do."""
        gone = max(page.gone[track] for track in self.tracks)
        if has_missed(after, page, self.tracks) and (after > page.last or gone > self.missed_until):
            self.missed_until = gone
            self.outbox.put_frame(build_gap_frame(after, page.oldest, page.last, at))


class Lane:
    """Of one user, as long as somebody is here. `tail` is the number of the last event that was passed on, None until
    it is known. `healing` is held by who brings it forward out of the history.
    """

    def __init__(self) -> None:
        self.tail: int | None = None
        self.floor = 0
        self.primary_id: UUID | None = None
        self.seats: dict[Seat, None] = {}
        self.healing = trio.Lock()
        self._pending: dict[int, Happening] = {}
        self._pending_bytes = 0
        self._told_early: OrderedDict[str, None] = OrderedDict()
        self._moved = trio.lowlevel.ParkingLot()

    @property
    def has_desktops(self) -> bool:
        return any(seat.is_desktop for seat in self.seats)

    @property
    def highest(self) -> int:
        """No event of an earlier history had a greater number, as far as is known here."""
        return max(self.floor, self.tail or 0)

    def has(self, event_id: int) -> bool:
        return self.tail is not None and self.tail >= event_id

    async def wait_for(self, event_id: int) -> None:
        while not self.has(event_id):
            await self._moved.park()

    def list_stranded(self) -> Sequence[Seat]:
        return [seat for seat in self.seats if seat.is_stranded]

    def begin(self, last: int) -> None:
        self.tail = last
        self._settle()

    def arrive(self, previous: int, happening: Happening) -> bool:
        """False if something before it has not come yet: it waits for that."""
        if self.has(happening.id):
            return True
        if self.tail is None or previous != self.tail:
            self._keep_pending(previous, happening)
            return False
        self._advance(happening)
        self._settle()
        return True

    def take(self, after: int, page: Page, at: datetime) -> None:
        """History, as it was read from the tail on. What came meanwhile is known already. Whoever has missed something
        is told so first.
        """
        if page.last != after:
            for seat in self.seats:
                if seat.is_live:
                    seat.tell_gap(after, page, at)
        for entry in page.entries:
            if not self.has(entry.id):
                about, head = read_body(entry.body)
                self._advance(Happening(entry.id, about, head))
        if page.last < after and self.tail == after:
            self.floor, self.tail = self.highest, page.last  # the history is another one
        elif page.is_all and not self.has(page.last):
            self.tail = page.last
        self._settle()

    def tell(self, about: About, head: bytes) -> None:
        """Something that has no number."""
        frame = b""
        for seat in self.seats:
            if seat.takes(about, self.primary_id):
                frame = frame or build_frame(head, 0)
                seat.hold(frame)

    def tell_early(self, about: About, head: bytes) -> None:
        """Something that may or may not get a number: if it does, nobody here is told again."""
        self._told_early[about.token] = None
        if len(self._told_early) > MOST_TOLD_EARLY:
            self._told_early.popitem(last=False)
        self.tell(about, head)

    def go_live(self, seat: Seat) -> None:
        seat.is_live, seat.is_stranded = True, False
        for frame in seat.held:
            seat.outbox.put_frame(frame)
        seat.held.clear()
        seat.held_bytes = 0

    def _advance(self, happening: Happening) -> None:
        self.tail = happening.id
        if self._told_early and self._told_early.pop(happening.about.token, self) is None:
            return
        frame = b""
        for seat in self.seats:
            if seat.is_live and happening.id > (seat.cursor or 0) and seat.takes(happening.about, self.primary_id):
                frame = frame or build_frame(happening.head, happening.id)
                seat.outbox.put_frame(frame)

    def _keep_pending(self, previous: int, happening: Happening) -> None:
        size = self._pending_bytes + len(happening.head)
        if previous not in self._pending and len(self._pending) < MOST_PENDING and size <= MOST_PENDING_BYTES:
            self._pending[previous] = happening
            self._pending_bytes = size

    def _settle(self) -> None:
        """What has waited for the tail follows; what has come otherwise is forgotten."""
        if self._pending:
            while self.tail is not None and (following := self._pending.pop(self.tail, None)) is not None:
                if not self.has(following.id):
                    self._advance(following)
            self._pending = {previous: one for previous, one in self._pending.items() if not self.has(one.id)}
            self._pending_bytes = sum(len(one.head) for one in self._pending.values())
        self._moved.unpark_all()
