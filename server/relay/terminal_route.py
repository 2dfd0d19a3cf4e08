"""One terminal's way from its desktop to the device that has bound it. Pure: what happens goes in, orders come out.

A frame waits until its turn in the window of the device's connection, gets its number, and is kept until the device
has confirmed it. When the connection is lost, what is not confirmed waits again. What the device took after its last
pong may therefore come twice after a cut: what arrives within a round trip, and at most 64 KiB and a frame more.

The desktop is told what follows from the state, never more: an `unbind` that it does not need would make it forget what
it keeps.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast
from uuid import UUID

from server.relay.messages import Bind
from server.relay.terminal_letters import RouteState
from server.relay.terminal_window import MOST_OF_ROUTE_BYTES, Stock, Window

GRACE_SECONDS = 120.0
"""So long a terminal waits for a device that is gone,"""
AWAY_SECONDS = 600.0
"""and so long, in memory, for its desktop."""
STUCK_SECONDS = 10.0
"""A device that confirms nothing for so long may be slow, or a letter was lost: its process is asked."""

Presence = Literal["live", "doubtful", "released", "gone"]
"""Of the consumer. `doubtful`: nobody knows whether its connection lives, its process is asked. `released`: it has
unbound, and what is on its way to it arrives."""
Order = Bind | Literal["unbind"]
Deliver = Callable[[int, bytes], bool]
"""A frame and its number. False if it cannot be sent now."""
Tell = Callable[[Order], None]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who has a terminal bound. `binding` is a number that its process has given: one for a connection and terminal.
    `connected_at` says which connection of a device is the newer one; 0 if that is not known.
    """

    device_id: UUID
    connection_id: UUID
    instance: str
    binding: int
    connected_at: int = field(default=0, compare=False)

    def is_older_than(self, other: "Consumer") -> bool:
        return self.device_id == other.device_id and 0 < self.connected_at < other.connected_at


@dataclass(frozen=True, slots=True)
class Want:
    """What a consumer asks for: the flags of its bind, and what of an earlier bind of the same connection has come."""

    include_snapshot: bool
    force_snapshot: bool
    next_number: int = 1
    confirmed: int = 0


class Route:
    """`epoch` says which of several owners is the newest. `tell` reaches the desktop, `deliver` the consumer."""

    def __init__(self, session_id: str, stock: Stock, *, epoch: int = 0, must_reset: bool = False) -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.must_reset = must_reset
        self.consumer: Consumer | None = None
        self.presence: Presence = "gone"
        self.lost_at = 0.0
        self.is_noted_whole = False
        self.window: Window[Route] = Window()
        self.deliver: Deliver = deliver_nowhere
        self.tell: Tell = tell_nobody
        self._stock = stock
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unconfirmed: deque[bytes] = deque()
        self._unconfirmed_bytes = 0
        self._first_number = 1
        self._has_producer = False
        self._is_bound = False
        self._must_tell = False
        self._include_snapshot = False
        self._has_overflowed = False
        self._unanswered: Bind | None = None
        self._seen = (0, 0.0)

    @property
    def is_live(self) -> bool:
        return self.presence == "live"

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def unconfirmed_bytes(self) -> int:
        return self._unconfirmed_bytes

    @property
    def first_number(self) -> int:
        """Of what is not confirmed."""
        return self._first_number

    @property
    def next_number(self) -> int:
        return self._first_number + len(self._unconfirmed)

    @property
    def is_whole(self) -> bool:
        """All that came has arrived: this may be forgotten, and nobody would miss a byte."""
        return not (self._waiting or self._unconfirmed or self.must_reset or self._unanswered)

    def take_in(self, frame: bytes) -> None:
        """From the desktop. Dropped where a snapshot is to come instead."""
        if self.must_reset and not self._is_bound:  # what was under way when it was told to stop
            return
        self._unanswered = None
        self._wait(frame)
        if self._waiting_bytes > MOST_OF_ROUTE_BYTES or self._stock.is_full:
            self._discard()
            self._has_overflowed = True
        elif self.is_live:
            self.window.add(self)

    def send(self) -> bool:
        """The next frame that waits. False, and it waits on, if it cannot be sent: the consumer is doubtful now."""
        frame = self._waiting.popleft()
        self._count_waiting(-len(frame))
        self._unconfirmed.append(frame)
        self._count_unconfirmed(len(frame))
        if self._waiting:
            self.window.add(self)
        if self.deliver(self.next_number - 1, frame):
            return True
        self._take_back(self.next_number - 1)
        return False

    def confirm(self, number: int) -> None:
        """All up to this one have arrived. Safe to repeat."""
        while self._unconfirmed and self._first_number <= number:
            self._count_unconfirmed(-len(self._unconfirmed.popleft()))
            self._first_number += 1

    def bind(self, consumer: Consumer, want: Want, window: "Window[Route]", deliver: Deliver) -> None:
        """The last one who binds has it. What another device has taken this one has not: it gets a snapshot."""
        was = self.consumer
        is_others = was is not None and was.device_id != consumer.device_id
        if was is None or (was.connection_id, was.binding) != (consumer.connection_id, consumer.binding):
            self._leave_window()
            self._first_number = want.next_number
        self.consumer, self.window, self.deliver = consumer, window, deliver
        if want.force_snapshot or is_others or self.must_reset:
            self._discard()
        self._include_snapshot, self._must_tell, self._has_overflowed = want.include_snapshot, True, False
        self.go_on(want.next_number, want.confirmed)

    def go_on(self, next_number: int, confirmed: int) -> None:
        """The consumer lives, has been given all before this number, and has confirmed as much."""
        self.confirm(confirmed)
        is_known = self._first_number <= next_number <= self.next_number
        self._take_back(next_number if is_known else self._first_number)
        if not is_known:
            if self._waiting:  # it has been given what was never here, or lacks what is not here any more
                self._discard()
            self._first_number = next_number
        self.presence = "live"
        if self._waiting:
            self.window.add(self)

    def doubt(self, now: float) -> None:
        """The consumer may be gone."""
        if self.is_live:
            self.presence, self.lost_at = "doubtful", now
            self.window.remove(self)

    def release(self, now: float) -> None:
        """The consumer has unbound."""
        if self.is_live:
            self.lost_at = now
        self.presence = "released"
        self.window.remove(self)

    def lose_consumer(self, now: float) -> None:
        """Its connection is gone: what it has not confirmed waits for it to be back."""
        if self.is_live:
            self.lost_at = now
        self.presence = "gone"
        self._leave_window()

    def lose_bytes(self) -> None:
        """Of those that are yet to be sent some are lost."""
        self._discard()

    def find_producer(self) -> None:
        """The desktop has a new connection, and has forgotten what was bound."""
        self._has_producer, self._is_bound = True, False

    def lose_producer(self) -> None:
        """A snapshot that was asked for and has not begun to come is asked for again."""
        if self._unanswered is not None:
            self.must_reset |= self._unanswered.force_snapshot
            self._include_snapshot |= self._unanswered.include_snapshot
        self._unanswered = None
        self._has_producer = self._is_bound = False

    def next_order(self) -> Order | None:
        """What the desktop is to be told now; to be asked until there is nothing."""
        if not self._has_producer:
            return None
        if self._may_bind:
            return self._order_bind()
        if self._is_bound and (not self.is_live or self.must_reset or self._waiting_bytes > self._stock.high_bytes):
            self._is_bound = False
            return "unbind"
        return None

    def tell_orders(self) -> None:
        while (order := self.next_order()) is not None:
            self.tell(order)

    def hold_producer(self) -> bool:
        """The desktop's connection is about to end: what it sends until then is taken, and it keeps the rest. False if
        it keeps everything already.
        """
        if was_bound := self._is_bound:
            self.tell("unbind")
        self.lose_producer()
        return was_bound

    def is_stuck(self, now: float) -> bool:
        """Nothing of what was sent has been confirmed for some time. To be asked now and then."""
        if not self._unconfirmed or self._first_number != self._seen[0]:
            self._seen = (self._first_number, now)
        if now - self._seen[1] < STUCK_SECONDS:
            return False
        self._seen = (self._first_number, now)
        return True

    def is_over(self, now: float) -> bool:
        """Nobody has been there for too long."""
        return not self.is_live and now - self.lost_at >= GRACE_SECONDS

    def pack(self, now: float) -> RouteState:
        """For another process, with `frames`. There must be a consumer."""
        if self.consumer is None:
            raise ValueError("nobody has bound this terminal")
        return RouteState(
            session_id=self.session_id,
            device_id=self.consumer.device_id,
            connection_id=self.consumer.connection_id,
            instance=self.consumer.instance,
            binding=self.consumer.binding,
            connected_at=self.consumer.connected_at,
            epoch=self.epoch,
            presence=self.presence,
            lost_seconds=0.0 if self.is_live else now - self.lost_at,
            first_number=self._first_number,
            unconfirmed=len(self._unconfirmed),
            sizes=tuple(map(len, self.frames)),
            must_reset=self.must_reset,
            must_tell=self._must_tell,
            include_snapshot=self._include_snapshot,
        )

    def expect(self, consumer: Consumer, now: float) -> None:
        """Who had this bound when its former process was lost; whether it is there is to be asked."""
        self.consumer, self.presence, self.lost_at = consumer, "doubtful", now

    def restore(self, state: RouteState, frames: Sequence[bytes], now: float) -> None:
        """As another process had packed it. Whether its consumer is there is to be asked."""
        who = (state.device_id, state.connection_id, state.instance, state.binding, state.connected_at)
        self.consumer = Consumer(*who)
        self.presence = "doubtful" if state.presence == "live" else cast(Presence, state.presence)
        self.lost_at = now - state.lost_seconds
        self.must_reset |= state.must_reset
        self._must_tell, self._include_snapshot = state.must_tell, state.include_snapshot
        self._first_number = state.first_number
        for frame in frames[: state.unconfirmed]:
            self._unconfirmed.append(frame)
            self._count_unconfirmed(len(frame))
        for frame in frames[state.unconfirmed :]:
            self._wait(frame)

    @property
    def frames(self) -> tuple[bytes, ...]:
        """Those that are not confirmed, then those that wait."""
        return (*self._unconfirmed, *self._waiting)

    def clear(self) -> None:
        """It is over."""
        self._leave_window()
        self._discard()

    @property
    def _may_bind(self) -> bool:
        if not self.is_live or (self._is_bound and not self._must_tell) or (self._has_overflowed and self._unconfirmed):
            return False
        return self._waiting_bytes < (self._stock.high_bytes if self._is_bound else self._stock.low_bytes)

    def _order_bind(self) -> Bind:
        order = Bind(self.session_id, include_snapshot=self._include_snapshot, force_snapshot=self.must_reset)
        self._unanswered = order if order.include_snapshot or order.force_snapshot else None
        self._is_bound = True
        self._must_tell = self._include_snapshot = self.must_reset = self._has_overflowed = False
        return order

    def _wait(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self._count_waiting(len(frame))

    def _take_back(self, from_number: int) -> None:
        """What was sent from here on waits again, before all else."""
        while self.next_number > max(from_number, self._first_number):
            frame = self._unconfirmed.pop()
            self._count_unconfirmed(-len(frame))
            self._waiting.appendleft(frame)
            self._count_waiting(len(frame))

    def _leave_window(self) -> None:
        self.window.remove(self)
        self._take_back(self._first_number)

    def _discard(self) -> None:
        """What waits; what is on its way arrives."""
        self._waiting.clear()
        self._count_waiting(-self._waiting_bytes)
        self.window.remove(self)
        self.must_reset = True

    def _count_waiting(self, size_bytes: int) -> None:
        self._waiting_bytes += size_bytes
        self._stock.add(size_bytes)

    def _count_unconfirmed(self, size_bytes: int) -> None:
        self._unconfirmed_bytes += size_bytes
        self.window.in_flight_bytes += size_bytes


def deliver_nowhere(number: int, frame: bytes) -> bool:
    return False


def tell_nobody(order: Order) -> None:
    pass
