"""From what is stored to the service that carries it: claimed in batches, sent side by side, noted together.

Who sends a batch has it for a while, so that what a killed process had is sent by another. What a service has taken is
never sent again by this process: it stays in memory until it is noted, also while PostgreSQL is away, and of nothing
else is taken more meanwhile.
"""

import logging
import math
import random
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

import trio

from server.push.outcomes import Later, Outcome, Refused, Sender, build_note, find_pause_seconds
from storage.deliveries import Deliveries, Delivery, Ended, Key, Note, PutOff
from storage.errors import StorageError
from storage.push_tokens import PushPlatform

WORKERS = 3
"""Batches under way at a time, so that one that waits for an answer holds up nobody."""
BATCH = 100
SEND_SECONDS = 30.0
POLL_SECONDS = 5.0
"""How soon is found what another process stored, or left behind: one worker looks for all."""
RETRY_STEP_SECONDS = 0.25
"""Pushes that are due again at about the same time are claimed together."""
SENDING_SHARE = 0.6
"""Of its lease a batch may be sent so long. The rest is for noting it."""
CLAIM_SECONDS = 12.0
NOTE_SECONDS = 5.0
LAST_STEP_SECONDS = 0.1
GRACE_SECONDS = 3.0
"""For answers that are on their way when the process is stopped."""
LONGEST_REST_SECONDS = 30.0
"""While a whole batch after the other finds its service away."""
MAX_ROW = 10
"""So many pushes to one token are sent in a row; with the others it queues again, behind what is due for others."""
MAX_ORDERED_ATTEMPTS = 3
"""So often what is newer waits for an older push to the same token; then it overtakes."""

NO_ANSWER = "no answer in time"
HELD_BACK = "an older push to this token is to be sent again first"
OVERTAKEN = "it was others' turn"
RELEASED = "it was not begun"

logger = logging.getLogger(__name__)


class Deliverer:
    """Sends what is due for one platform. As many loops as are started share it."""

    def __init__(
        self,
        platform: PushPlatform,
        sender: Sender,
        deliveries: Deliveries,
        lease_seconds: float,
        draw_jitter: Callable[[], float] = random.random,
    ) -> None:
        self._platform = platform
        self._sender = sender
        self._deliveries = deliveries
        self._lease_seconds = lease_seconds
        self._draw_jitter = draw_jitter
        self._look_at = -math.inf
        self._bell = trio.Event()
        self._under_way: set[Key] = set()
        self._unnoted: dict[Key, Note] = {}
        self._noting = trio.Lock()
        self._failed_batches = 0
        self._retry_moments: set[float] = set()

    def wake(self) -> None:
        """Something was stored: whoever has nothing to do looks at once."""
        self._look_at = -math.inf
        self._ring()

    async def keep_delivering(self) -> None:
        """Never returns. When it is cancelled, what is answered soon is noted; what was not begun is due at once."""
        try:
            while True:
                await self._wait_turn()
                batch = await self._try_to_deliver()
                if len(batch) >= BATCH and self._failed_batches:
                    pause = find_pause_seconds(self._failed_batches, None, self._draw_jitter())
                    await trio.sleep(min(pause, LONGEST_REST_SECONDS))
        finally:
            with trio.move_on_after(NOTE_SECONDS, shield=True):
                await self._note_last()

    async def deliver_once(self) -> Sequence[Delivery]:
        """One batch, which is returned; none if nothing is due. Raises StorageError or TooSlowError while it cannot be
        claimed or what has become of others cannot be noted: then no more is sent.
        """
        await self._note_all()
        ends_at = trio.current_time() + self._lease_seconds * SENDING_SHARE
        claimed = await self._claim()
        if len(claimed) >= BATCH:
            self.wake()
        batch = _Batch([delivery for delivery in claimed if not self._is_known(delivery.key)], ends_at)
        try:
            await self._send_all(batch)
        finally:
            with trio.move_on_after(NOTE_SECONDS, shield=True):
                await self._note_all()
        return claimed

    async def _wait_turn(self) -> None:
        """Until somebody has to look for what is due. One is enough: who finds a full batch calls the next."""
        while (moment := min([self._look_at, *self._retry_moments])) > trio.current_time():
            with trio.move_on_at(moment):
                await self._bell.wait()
        now = trio.current_time()
        self._look_at = now + POLL_SECONDS
        self._retry_moments = {moment for moment in self._retry_moments if moment > now}

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    def _is_known(self, key: Key) -> bool:
        """Claimed again and not to be sent: its lease ended before its answer came, or before that could be noted."""
        return key in self._under_way or key in self._unnoted

    async def _try_to_deliver(self) -> Sequence[Delivery]:
        try:
            return await self.deliver_once()
        except (StorageError, trio.TooSlowError) as error:
            unnoted = len(self._unnoted)
            about = {"platform": self._platform, "unnoted": unnoted, "reason": str(error) or NO_ANSWER}
            logger.warning("pushes could not be claimed or noted, and will be", extra=about)
            return ()

    async def _claim(self) -> Sequence[Delivery]:
        """Shielded, for what a statement that is cut off has claimed would wait for the end of its lease."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.fail_after(CLAIM_SECONDS, shield=True):
            return await self._deliveries.claim_due(self._platform, BATCH, self._lease_seconds)

    async def _send_all(self, batch: "_Batch") -> None:
        """Each to its own token; those to the same token one after the other. However it ends, all have a note."""
        self._under_way.update(batch.left)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            async with trio.open_nursery() as push:
                for row in batch.open_rows():
                    push.start_soon(self._send_row, row, batch)
                await batch.wait_ended()
        finally:
            for delivery in tuple(batch.left.values()):
                self._record(PutOff(delivery, 0, RELEASED, is_begun=False), batch)
        if batch.has_begun:
            self._failed_batches = 0 if batch.has_outcome else self._failed_batches + 1

    async def _send_row(self, row: Sequence[Delivery], batch: "_Batch") -> None:
        for position, delivery in enumerate(row[:MAX_ROW]):
            if not batch.has_time():
                break
            note = await self._send(delivery, batch)
            self._record(note, batch)
            if isinstance(note, PutOff) and delivery.attempts <= MAX_ORDERED_ATTEMPTS:
                self._hold_back(row[position + 1 :], note.seconds, HELD_BACK, batch)
                break
        self._hold_back(row[MAX_ROW:], 0, OVERTAKEN, batch)
        batch.end_row()

    def _hold_back(self, deliveries: Sequence[Delivery], seconds: float, reason: str, batch: "_Batch") -> None:
        for delivery in deliveries:
            if delivery.key in batch.left:
                self._record(PutOff(delivery, seconds, reason, is_begun=False), batch)

    async def _send(self, delivery: Delivery, batch: "_Batch") -> Note:
        """Shielded: of a process that stops, who was asked may still answer for a moment."""
        outcome: Outcome = Later(NO_ANSWER)
        with batch.open_turn():
            outcome = await self._try_to_send(delivery)
        if isinstance(outcome, Refused):
            logger.warning("a push was refused", extra=_describe(delivery, outcome.reason))
        return build_note(delivery, outcome, self._draw_jitter())

    async def _try_to_send(self, delivery: Delivery) -> Outcome:
        try:
            return await self._sender.send(delivery)
        except trio.TooSlowError:
            return Later(NO_ANSWER)
        except Exception as error:  # noqa: BLE001 - the task's edge: one push must not keep the others from being sent
            # Without the error's own words, which may repeat a token or a text.
            frames = "".join(traceback.format_tb(error.__traceback__))
            about = {**_describe(delivery, type(error).__name__), "frames": frames}
            logger.error("a push met a fault of ours", extra=about)
            return Later(f"a fault of ours: {type(error).__name__}")

    def _record(self, note: Note, batch: "_Batch") -> None:
        key = note.delivery.key
        self._unnoted[key] = note
        self._under_way.discard(key)
        batch.count(note)

    async def _note_all(self) -> None:
        """Whatever is not noted yet, of all batches. Raises StorageError; then it stays in memory."""
        async with self._noting:
            notes = tuple(self._unnoted.values())
            if not notes:
                return
            locked = await self._deliveries.note(notes)
            for note in notes:
                if note.delivery.key not in locked:
                    del self._unnoted[note.delivery.key]
            self._look_forward(notes)

    async def _note_last(self) -> None:
        """Until nothing is left to note: what a process that stops takes with it is sent again by the next."""
        while self._unnoted:
            with suppress(StorageError):
                await self._note_all()
            await trio.sleep(LAST_STEP_SECONDS)

    def _look_forward(self, notes: Iterable[Note]) -> None:
        """Be there when each of them is due again that is so before anybody would look anyway."""
        now = trio.current_time()
        pauses = [note.seconds for note in notes if not isinstance(note, Ended) and note.seconds is not None]
        soon = [now + seconds for seconds in pauses if seconds < POLL_SECONDS]
        self._retry_moments |= {math.ceil(moment / RETRY_STEP_SECONDS) * RETRY_STEP_SECONDS for moment in soon}
        self._ring()


class _Batch:
    """What is sent together. `left` are those of which nothing is known yet."""

    def __init__(self, deliveries: Sequence[Delivery], ends_at: float) -> None:
        self.left = {delivery.key: delivery for delivery in deliveries}
        self.has_begun = False
        self.has_outcome = False
        self._ends_at = ends_at
        self._is_stopping = False
        self._rows = 0
        self._ended = trio.Event()
        self._turns: set[trio.CancelScope] = set()

    def open_rows(self) -> Collection[Sequence[Delivery]]:
        """Those to the same token, each the oldest first. Each row is to be ended."""
        rows: defaultdict[UUID, list[Delivery]] = defaultdict(list)
        for delivery in self.left.values():
            rows[delivery.token_id].append(delivery)
        self._rows = len(rows)
        return rows.values()

    def end_row(self) -> None:
        self._rows -= 1
        if not self._rows:
            self._ended.set()

    def has_time(self) -> bool:
        return not self._is_stopping and trio.current_time() < self._ends_at

    @contextmanager
    def open_turn(self) -> Iterator[None]:
        """One push has so long."""
        self.has_begun = True
        deadline = min(trio.current_time() + SEND_SECONDS, self._ends_at)
        with trio.CancelScope(deadline=deadline, shield=True) as turn:
            self._turns.add(turn)
            try:
                yield
            finally:
                self._turns.discard(turn)

    def count(self, note: Note) -> None:
        self.left.pop(note.delivery.key, None)
        self.has_outcome |= not isinstance(note, PutOff)

    async def wait_ended(self) -> None:
        """Until every row has ended. If it is cancelled, no push is begun any more; those under way have a moment."""
        try:
            if self._rows:
                await self._ended.wait()
        finally:
            self._is_stopping = True
            for turn in self._turns:
                turn.deadline = min(turn.deadline, trio.current_time() + GRACE_SECONDS)


def _describe(delivery: Delivery, reason: str) -> dict[str, object]:
    """For the log: nothing that was to be sent, nor where."""
    return {
        "notification_id": str(delivery.notification_id),
        "platform": delivery.platform,
        "attempts": delivery.attempts,
        "reason": reason,
    }
