"""A desktop that connects to another process: what the one before had of its terminals is fetched from there."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from uuid import UUID

import trio

from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.terminal_desktop import Producer
from server.relay.terminal_letters import Handed, HandOver, RouteState
from server.relay.terminal_post import Post
from server.relay.terminal_producers import Producers
from server.relay.terminal_records import TerminalRecords
from server.relay.terminal_route import Consumer, Route
from storage.errors import StorageError
from storage.terminal_routes import TerminalRecord

CLAIM_SECONDS = 1.0
"""While Redis does not answer, terminals of this process are not kept waiting for longer."""
COLLECT_SECONDS = 2.0
"""What another process has not handed over by then is taken for lost, and the terminal begins with a snapshot."""
FORMER_SECONDS = 1.0
"""The desktop's former connection has so long to end: what has come on it is older than what comes on the new one."""
FORGET_SECONDS = 30.0
PART_BYTES = 1024 * 1024
ROOM_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Collection:
    """What is being handed over of a desktop's terminals: by whom, and what has come of the next one."""

    opened_at: float
    awaited: dict[str, list[bytes]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    is_complete: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class _Order:
    """To be handed over, unless the desktop has come back here since it connected there."""

    producer: Producer
    instance: str
    connected_at: int

    @property
    def is_late(self) -> bool:
        return 0 < self.connected_at < self.producer.connected_at


class Moves:
    """One per process."""

    def __init__(
        self, hub: Hub, post: Post, producers: Producers, records: TerminalRecords, clock: Callable[[], float]
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._post = post
        self._producers = producers
        self._records = records
        self._collections: dict[tuple[UUID, UUID], Collection] = {}
        self._leaving: dict[UUID, trio.Event] = {}
        self._waiting: dict[UUID, tuple[_Order, float]] = {}
        self._orders: deque[_Order] = deque()
        self._has_orders = trio.Event()
        post.handle(HandOver, self._note_hand_over)
        post.handle(Handed, self._note_handed)

    async def resume(self, member: Member) -> None:
        """The desktop is here. What this process has of it is bound at once; the rest as soon as it has come.

        What another process has claimed since is in doubt: that one has it, or has never got it, or is lost with it.
        """
        producer = self._producers.open(member.user_id, member.device_id)
        producer.resumes += 1
        try:
            await self._wait_former(producer, member)
            records = await self._claim(member)
            if self._hub.find_connection(member.connection_id) is member:
                await self._fetch(producer, member, records)
        finally:
            producer.resumes -= 1
            self._producers.release_held_back(producer)

    async def _fetch(self, producer: Producer, member: Member, records: Sequence[TerminalRecord]) -> None:
        """A desktop that is gone before all has come has nothing bound: what has yet to come goes before that."""
        doubtful = self._producers.take_away(producer, self._name_foreign(records))
        self._producers.attach(producer, member)
        is_complete = False
        try:
            missing = [record for record in records if record.session_id.encode() not in producer.routes]
            owners = {record.owner for record in missing} - {self._post.instance}
            answered = await self._collect(producer, owners, member.held.link.connected_at)
            for record in missing:
                if record.session_id.encode() not in producer.routes:
                    route = doubtful.pop(record.session_id, None) if record.owner in answered else None
                    self._adopt(producer, record, route)
            is_complete = True
        finally:
            for route in doubtful.values():
                route.clear()
            if not is_complete and producer.member is member:
                self._producers.detach(producer)

    def note_left(self, member: Member) -> None:
        """A connection has ended."""
        if (event := self._leaving.pop(member.connection_id, None)) is not None:
            event.set()
        if (waiting := self._waiting.pop(member.connection_id, None)) is not None:
            self._push(waiting[0])

    def look(self) -> None:
        """To be called every second or so."""
        now = self._clock()
        for key, collection in list(self._collections.items()):
            if now - collection.opened_at > FORGET_SECONDS:
                del self._collections[key]

    async def run(self) -> None:
        """The loop; never returns."""
        while True:
            with trio.move_on_after(self._seconds_to_wait()):
                await self._has_orders.wait()
            self._has_orders = trio.Event()
            self._push_due()
            while self._orders:
                order = self._orders.popleft()
                await self._hand_over(order)

    async def _wait_former(self, producer: Producer, member: Member) -> None:
        former = producer.member
        if former is None or former is member or self._hub.find_connection(former.connection_id) is None:
            return
        event = self._leaving.setdefault(former.connection_id, trio.Event())
        with trio.move_on_after(FORMER_SECONDS):
            await event.wait()
        self._leaving.pop(former.connection_id, None)

    async def _claim(self, member: Member) -> Sequence[TerminalRecord]:
        try:
            with trio.move_on_after(CLAIM_SECONDS):
                return await self._records.claim(member.user_id, member.device_id)
        except StorageError:
            logger.warning("what another process may have of a desktop's terminals is not known")
        return ()

    def _name_foreign(self, records: Sequence[TerminalRecord]) -> Sequence[str]:
        return [record.session_id for record in records if record.owner != self._post.instance]

    async def _collect(self, producer: Producer, owners: Set[str], connected_at: int) -> Set[str]:
        """Those who have told all they have; what came is in the producer's routes. If this is cancelled, it may come
        nevertheless, for a while: whoever collects then waits for it too.
        """
        key = (producer.user_id, producer.device_id)
        collection = self._collections.setdefault(key, Collection(self._clock()))
        letter = HandOver(producer.device_id, connected_at)
        for owner in owners - collection.awaited.keys():
            if self._post.reaches(owner) and self._post.tell(owner, producer.user_id, letter):
                collection.awaited[owner] = []
        if collection.awaited:
            with trio.move_on_after(COLLECT_SECONDS):
                await collection.is_complete.wait()
        if self._collections.get(key) is collection:
            del self._collections[key]
        return collection.answered

    def _adopt(self, producer: Producer, record: TerminalRecord, route: Route | None) -> None:
        """What nobody else has: as this process still had it, or as it is written down. The consumer says where it has
        come to.
        """
        if route is None:
            route = Route(record.session_id, producer.stock, must_reset=not record.is_whole)
            who = (record.device_id, record.connection_id, record.instance, record.binding)
            route.expect(Consumer(*who), self._clock())
        route.epoch = record.epoch + 1
        self._producers.adopt(producer, route)

    def _note_handed(self, sender: str, user_id: UUID, body: Handed, blob: bytes) -> None:
        collection = self._collections.get((user_id, body.producer_id))
        if collection is None or sender not in collection.awaited:
            return
        parts = collection.awaited[sender]
        if blob:
            parts.append(blob)
        if body.route is not None:
            self._take_over(user_id, body.producer_id, body.route, b"".join(parts))
            parts.clear()
        if body.is_all:
            del collection.awaited[sender]
            collection.answered.add(sender)
            if not collection.awaited:
                del self._collections[user_id, body.producer_id]
                collection.is_complete.set()

    def _take_over(self, user_id: UUID, producer_id: UUID, state: RouteState, frames: bytes) -> None:
        producer = self._producers.open(user_id, producer_id)
        is_intact = sum(state.sizes) == len(frames)
        route = Route(state.session_id, producer.stock, epoch=state.epoch + 1, must_reset=not is_intact)
        route.window = self._producers.find_window(state.connection_id)
        route.restore(state, cut(frames, state.sizes) if is_intact else [], self._clock())
        self._producers.adopt(producer, route)

    def _note_hand_over(self, sender: str, user_id: UUID, body: HandOver, blob: bytes) -> None:
        """One that has come late, for the desktop has been here since, is answered as if there were nothing."""
        producer = self._producers.find(user_id, body.producer_id)
        if producer is None:
            self._post.tell(sender, user_id, Handed(body.producer_id, is_all=True))
            return
        order = _Order(producer, sender, body.connected_at)
        if producer.member is None or order.is_late:
            self._push(order)
        else:
            self._waiting[producer.member.connection_id] = (order, self._clock() + FORMER_SECONDS)
            self._has_orders.set()

    def _seconds_to_wait(self) -> float:
        return max(0.0, min((until for _, until in self._waiting.values()), default=math.inf) - self._clock())

    def _push_due(self) -> None:
        now = self._clock()
        for connection_id, (order, until) in list(self._waiting.items()):
            if now >= until:
                del self._waiting[connection_id]
                self._push(order)

    def _push(self, order: _Order) -> None:
        self._orders.append(order)
        self._has_orders.set()

    async def _hand_over(self, order: _Order) -> None:
        """From here on nothing that comes of the desktop to this process counts, unless it comes back."""
        producer, instance = order.producer, order.instance
        if not order.is_late:
            self._producers.detach(producer)
        for session in tuple(producer.routes):
            if order.is_late:
                break
            if (route := producer.routes.pop(session, None)) is not None:
                await self._hand_over_route(order, route)
        self._post.tell(instance, producer.user_id, Handed(producer.device_id, is_all=True))

    async def _hand_over_route(self, order: _Order, route: Route) -> None:
        producer, instance = order.producer, order.instance
        state, frames = route.pack(self._clock()), route.frames
        route.clear()
        for part in split(frames):
            with trio.move_on_after(ROOM_SECONDS):
                await self._post.wait_room(instance)
            self._post.tell(instance, producer.user_id, Handed(producer.device_id), part)
        self._post.tell(instance, producer.user_id, Handed(producer.device_id, state))


def split(frames: Iterable[bytes]) -> Iterator[bytes]:
    """All frames one after the other, in parts of about PART_BYTES."""
    part: list[bytes] = []
    size = 0
    for frame in frames:
        part.append(frame)
        size += len(frame)
        if size >= PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def cut(frames: bytes, sizes: Iterable[int]) -> list[bytes]:
    at, found = 0, []
    for size in sizes:
        found.append(frames[at : at + size])
        at += size
    return found
