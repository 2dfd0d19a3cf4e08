"""What somebody has missed, read from the events that are kept: for a lane, and for one who has just come."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from server.relay.event_frames import build_frame, read_body
from server.relay.lanes import Lane, Seat
from storage.event_stream import EventStream, Page

UNKNOWN = 1
"""The cursor of a device of which nothing is known, though it says that it was here: all that is kept comes after it,
and it may have missed something.
"""


@dataclass(frozen=True, slots=True)
class History:
    """Every method raises RedisUnavailable, and may be called again: it goes on where it has come to."""

    stream: EventStream

    async def heal(self, user_id: UUID, lane: Lane) -> None:
        """Bring the lane up to the last event that there is, and give those their replay who could not have it."""
        async with lane.healing:
            if lane.tail is None:
                lane.begin(await self.stream.find_last(user_id))
            else:
                await self._read_on(user_id, lane, lane.tail)
        for seat in lane.list_stranded():
            if seat.is_stranded:
                await self._rescue(user_id, lane, seat)

    async def replay(self, user_id: UUID, lane: Lane, seat: Seat, *, is_patient: bool = True) -> None:
        """What comes after the seat's cursor; then it is live. Waits for room page by page if it is patient; at most
        all that is kept is put at once if not.
        """
        if seat.cursor is None:
            seat.cursor = await self._find_cursor(user_id, seat)
        while seat.cursor != lane.tail:
            tail = lane.tail or 0
            page = await self.stream.read(user_id, seat.cursor)
            if lane.tail is None or page.last < tail:  # Redis has lost events that the lane has passed on
                await self.heal(user_id, lane)
            elif give_page(lane, seat, page):
                break
            if is_patient and not await seat.outbox.wait_room():
                return
        if seat in lane.seats:
            lane.go_live(seat)

    async def find_tokens(self, user_id: UUID, after: int) -> set[str]:
        """Of the events that are kept after that one."""
        tokens: set[str] = set()
        is_all = False
        while not is_all:
            page = await self.stream.read(user_id, after)
            tokens.update(read_body(entry.body)[0].token for entry in page.entries)
            is_all, after = page.is_all, page.entries[-1].id if page.entries else after
        return tokens

    async def _rescue(self, user_id: UUID, lane: Lane, seat: Seat) -> None:
        """Its replay; nobody else begins it meanwhile."""
        seat.is_stranded = False
        try:
            await self.replay(user_id, lane, seat, is_patient=False)
        finally:
            seat.is_stranded = not seat.is_live

    async def _read_on(self, user_id: UUID, lane: Lane, after: int) -> None:
        is_all = False
        while not is_all:
            page = await self.stream.read(user_id, after)
            lane.take(after, page, datetime.now(UTC))
            is_all, after = page.is_all, lane.tail or 0

    async def _find_cursor(self, user_id: UUID, seat: Seat) -> int:
        cursor = None if seat.device_id is None else await self.stream.find_cursor(user_id, seat.device_id)
        return UNKNOWN if cursor is None else cursor


def give_page(lane: Lane, seat: Seat, page: Page) -> bool:
    """True if there was nothing more."""
    after = seat.cursor or 0
    seat.tell_gap(after, page, datetime.now(UTC))
    if after > page.last:
        seat.cursor = 0
        return False
    for entry in page.entries:
        about, head = read_body(entry.body)
        if seat.takes(about, lane.primary_id):
            seat.outbox.put_frame(build_frame(head, entry.id))
        seat.cursor = entry.id
    if page.is_all:
        seat.cursor = max(after, page.last)
    return page.is_all and lane.tail is not None and seat.cursor is not None and seat.cursor >= lane.tail
