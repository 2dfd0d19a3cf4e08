"""Desktops of this process, and the terminals of theirs that a device has bound: what decides where their bytes go."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from uuid import UUID
from weakref import WeakValueDictionary

from server.relay.member import Member
from server.relay.terminal_desktop import Producer, tell_desktop
from server.relay.terminal_frames import encode_session, read_session
from server.relay.terminal_letters import (
    Bound,
    Check,
    Frame,
    Here,
    Left,
    Over,
    Refused,
    Taken,
    Unknown,
    Unwanted,
    Wanted,
    Where,
)
from server.relay.terminal_post import Post
from server.relay.terminal_records import TerminalRecords
from server.relay.terminal_route import AWAY_SECONDS, Consumer, Deliver, Route, Want, deliver_nowhere
from server.relay.terminal_window import Stock, Window
from server.websocket_frames import build_binary

MAX_ROUTES = 100
"""Of a desktop; for one more, another is let go, if possible one whose device is gone."""
FOREIGN_SECONDS = 30.0
LOG_EVERY_SECONDS = 60.0
MAX_LOGGED = 1000

logger = logging.getLogger(__name__)

FindLocal = Callable[[UUID, int], Deliver | None]


class Producers:
    """One per process. `find_local` finds a consumer of this process."""

    def __init__(self, post: Post, clock: Callable[[], float], find_local: FindLocal, records: TerminalRecords) -> None:
        self._post = post
        self._clock = clock
        self._find_local = find_local
        self._records = records
        self._producers: dict[UUID, dict[UUID, Producer]] = {}
        self._by_connection: dict[UUID, Producer] = {}
        self._windows: WeakValueDictionary[UUID, Window[Route]] = WeakValueDictionary()
        self._stock = Stock()
        self._logged: dict[UUID, float] = {}
        post.handle(Wanted, self._bind)
        post.handle(Unwanted, self._unbind)
        post.handle(Taken, self._confirm)
        post.handle(Here, self._go_on)
        post.handle(Check, self._check)
        post.handle(Left, self._lose_connection)

    def find(self, user_id: UUID, device_id: UUID) -> Producer | None:
        return self._producers.get(user_id, {}).get(device_id)

    def has_route(self, user_id: UUID, device_id: UUID, session_id: str) -> bool:
        producer = self.find(user_id, device_id)
        return producer is not None and session_id.encode() in producer.routes

    @property
    def waiting_bytes(self) -> int:
        return self._stock.size_bytes

    @property
    def is_needed(self) -> bool:
        """A desktop that is gone may yet be back elsewhere, and what it needs then is only here."""
        return any(
            producer.foreign_at is not None or not (route.is_noted_whole or route.must_reset)
            for producer in self
            for route in producer.routes.values()
        )

    def open(self, user_id: UUID, device_id: UUID) -> Producer:
        devices = self._producers.setdefault(user_id, {})
        if device_id not in devices:
            devices[device_id] = Producer(user_id, device_id, Stock(self._stock), away_at=self._clock())
        return devices[device_id]

    def __iter__(self) -> Iterator[Producer]:
        return iter([producer for devices in self._producers.values() for producer in devices.values()])

    def pass_on(self, member: Member, frame: bytes) -> None:
        producer = self._by_connection.get(member.connection_id)
        session = read_session(frame)
        route = None if producer is None or session is None else producer.routes.get(session)
        if route is None:
            self._note_dropped(member)
            return
        route.take_in(build_binary(frame))
        self._send(route.window)
        route.tell_orders()

    def attach(self, producer: Producer, member: Member) -> None:
        """The desktop is here: what somebody has bound is bound again."""
        if producer.member is member:
            return
        self.detach(producer)
        producer.member, producer.foreign_at, producer.is_leaving = member, None, False
        producer.connected_at = member.held.link.connected_at
        self._by_connection[member.connection_id] = producer
        for route in producer.routes.values():
            if route.is_noted_whole:
                route.is_noted_whole = False
                self._records.note_change(producer, route)
            route.find_producer()
            route.tell_orders()

    def detach(self, producer: Producer) -> None:
        if producer.member is not None:
            del self._by_connection[producer.member.connection_id]
            producer.member, producer.away_at = None, self._clock()
            for route in producer.routes.values():
                route.lose_producer()

    def detach_member(self, member: Member) -> Producer | None:
        """Its connection has ended."""
        producer = self._by_connection.get(member.connection_id)
        if producer is not None:
            self.detach(producer)
        return producer

    def hold(self, member: Member) -> bool:
        """Its connection is about to end. False if it sends nothing."""
        if (producer := self._by_connection.get(member.connection_id)) is None:
            return False
        producer.is_leaving = True
        told = [route for route in producer.routes.values() if route.hold_producer()]
        return bool(told)

    def release_held_back(self, producer: Producer) -> None:
        """Unless more may come from another process. If the desktop is gone, they are refused."""
        if not producer.resumes:
            held_back, producer.held_back = producer.held_back, []
            for sender, wanted in held_back:
                self._bind(sender, producer.user_id, wanted, b"")

    def adopt(self, producer: Producer, route: Route) -> None:
        """A terminal that another process had; its consumer is asked what it has been given. What has come too late,
        for the terminal has been bound anew, is lost, and a snapshot is to say so.
        """
        session = encode_session(route.session_id)
        if session is None or session in producer.routes or route.consumer is None:
            if session in producer.routes and not route.is_whole:
                producer.routes[session].lose_bytes()
                producer.routes[session].tell_orders()
            route.clear()
            return
        self._make_room(producer)
        producer.routes[session] = route
        route.tell = partial(tell_desktop, producer, route.session_id)
        route.deliver = self._find_way(producer.user_id, route.consumer, route.epoch)
        if producer.takes_orders:
            route.find_producer()
        self._records.note_change(producer, route)
        self.ask(producer, route)

    def ask(self, producer: Producer, route: Route) -> None:
        consumer = route.consumer
        if consumer is not None and self._post.reaches(consumer.instance):
            place = (producer.device_id, route.session_id, consumer.connection_id, consumer.binding)
            self._post.tell(consumer.instance, producer.user_id, Where(*place, route.epoch))

    def find_window(self, connection_id: UUID) -> Window[Route]:
        window = self._windows.get(connection_id)
        if window is None:
            window = self._windows[connection_id] = Window()
        return window

    def lose_instance(self, instance: str) -> None:
        for producer in self:
            for route in producer.routes.values():
                if route.consumer is not None and route.consumer.instance == instance:
                    route.doubt(self._clock())
                    route.tell_orders()

    def look(self) -> None:
        """What has come to its end, and what is to be asked again. To be called every second or so."""
        now = self._clock()
        for producer in self:
            if producer.foreign_at is not None and now - producer.foreign_at >= FOREIGN_SECONDS:
                _forget(producer)
            for route in list(producer.routes.values()):
                self._look_at(producer, route, now)
            if producer.is_idle:
                self._remove(producer)

    def end(self, producer: Producer, route: Route) -> None:
        """Nobody waits for it any more."""
        route.release(self._clock())
        route.tell_orders()
        consumer = route.consumer
        if consumer is not None:
            self._post.tell(consumer.instance, producer.user_id, Over(consumer.connection_id, consumer.binding))
        self._let_go(producer, route, has_lost=not route.is_whole)

    def take_away(self, producer: Producer, session_ids: Iterable[str]) -> dict[str, Route]:
        """Nothing more comes to them."""
        found = {session_id: producer.routes.pop(session_id.encode(), None) for session_id in session_ids}
        return {session_id: route for session_id, route in found.items() if route is not None}

    def note_foreign(self, producer: Producer) -> None:
        """Another process has its terminals."""
        producer.foreign_at = producer.foreign_at or self._clock()

    def _look_at(self, producer: Producer, route: Route, now: float) -> None:
        if route.is_over(now):
            self.end(producer, route)
        elif producer.member is None and now - producer.away_at >= AWAY_SECONDS:
            self._let_go(producer, route, has_lost=not route.is_whole)
        elif producer.is_away and route.is_whole and not route.is_noted_whole:
            route.is_noted_whole = True
            self._records.note_whole(producer, route)
        elif route.presence == "doubtful" or route.is_stuck(now):
            self.ask(producer, route)

    def _let_go(self, producer: Producer, route: Route, *, has_lost: bool) -> None:
        self._records.note_end(producer, route, has_lost=has_lost)
        producer.routes.pop(route.session_id.encode(), None)
        route.clear()

    def _remove(self, producer: Producer) -> None:
        devices = self._producers[producer.user_id]
        del devices[producer.device_id]
        if not devices:
            del self._producers[producer.user_id]

    def _send(self, window: Window[Route]) -> None:
        while (route := window.take_next()) is not None:
            if not route.send():
                route.doubt(self._clock())
            route.tell_orders()

    def _bind(self, sender: str, user_id: UUID, body: Wanted, blob: bytes) -> None:
        producer = self.find(user_id, body.producer_id)
        session = body.session_id.encode()
        is_known = producer is not None and session in producer.routes
        if producer is not None and not is_known and producer.resumes:
            if len(producer.held_back) < MAX_ROUTES:
                producer.held_back.append((sender, body))
            return
        if producer is None or not (is_known or producer.member is not None):
            self._post.tell(sender, user_id, Refused(body.connection_id, body.binding))
            return
        consumer = Consumer(body.device_id, body.connection_id, sender, body.binding, body.connected_at)
        route = self._open_route(producer, session, body)
        if route.consumer is not None and consumer.is_older_than(route.consumer):
            self._post.tell(sender, user_id, Over(body.connection_id, body.binding))
            return
        self._post.tell(sender, user_id, Bound(body.connection_id, body.binding))
        self._set_consumer(producer, route, consumer, body)

    def _open_route(self, producer: Producer, session: bytes, body: Wanted) -> Route:
        route = producer.routes.get(session)
        if route is None:
            self._make_room(producer)
            route = producer.routes[session] = Route(body.session_id, producer.stock, must_reset=body.has_lost)
            route.tell = partial(tell_desktop, producer, body.session_id)
            if producer.takes_orders:
                route.find_producer()
        return route

    def _set_consumer(self, producer: Producer, route: Route, consumer: Consumer, body: Wanted) -> None:
        before = route.consumer
        route.epoch = max(route.epoch, body.epoch)
        want = Want(body.include_snapshot, body.force_snapshot, body.next_number, body.confirmed)
        way = self._find_way(producer.user_id, consumer, route.epoch)
        route.bind(consumer, want, self.find_window(body.connection_id), way)
        route.is_noted_whole = False
        if before is not None and before != consumer:
            self._post.tell(before.instance, producer.user_id, Over(before.connection_id, before.binding))
        self._records.note_change(producer, route)
        self._send(route.window)
        route.tell_orders()

    def _find_way(self, user_id: UUID, consumer: Consumer, epoch: int) -> Deliver:
        if consumer.instance == self._post.instance:
            return self._find_local(consumer.connection_id, consumer.binding) or deliver_nowhere
        return partial(self._post_frame, user_id, consumer, epoch)

    def _post_frame(self, user_id: UUID, consumer: Consumer, epoch: int, number: int, frame: bytes) -> bool:
        letter = Frame(consumer.connection_id, consumer.binding, epoch, number)
        return self._post.tell(consumer.instance, user_id, letter, frame)

    def _make_room(self, producer: Producer) -> None:
        if len(producer.routes) >= MAX_ROUTES:
            routes = list(producer.routes.values())
            self.end(producer, next((route for route in routes if not route.is_live), routes[0]))

    def _unbind(self, sender: str, user_id: UUID, body: Unwanted, blob: bytes) -> None:
        producer = self.find(user_id, body.producer_id)
        route = None if producer is None else producer.routes.get(body.session_id.encode())
        consumer = None if route is None else route.consumer
        if route is None or consumer is None or consumer.device_id != body.device_id:
            return
        if not 0 < body.connected_at < consumer.connected_at:
            route.release(self._clock())
            route.tell_orders()

    def _confirm(self, sender: str, user_id: UUID, body: Taken, blob: bytes) -> None:
        if (found := self._find_route(user_id, body)) is not None:
            _, route = found
            route.confirm(body.number)
            self._send(route.window)
            route.tell_orders()

    def _go_on(self, sender: str, user_id: UUID, body: Here, blob: bytes) -> None:
        found = self._find_route(user_id, body)
        if found is not None and (found[1].is_live or found[1].presence == "doubtful"):
            _, route = found
            route.window = self.find_window(body.connection_id)
            route.go_on(body.next_number, body.confirmed)
            self._send(route.window)
            route.tell_orders()

    def _check(self, sender: str, user_id: UUID, body: Check, blob: bytes) -> None:
        if self._find_route(user_id, body) is None:
            self._post.tell(sender, user_id, Unknown(body.connection_id, body.binding))

    def _lose_connection(self, sender: str, user_id: UUID, body: Left, blob: bytes) -> None:
        for producer in list(self._producers.get(user_id, {}).values()):
            for route in producer.routes.values():
                if route.consumer is not None and _is_meant(body, route.consumer):
                    route.lose_consumer(self._clock())
                    route.tell_orders()

    def _find_route(self, user_id: UUID, body: Taken | Here | Check) -> tuple[Producer, Route] | None:
        """The terminal that the binding has; one that has it no more says nothing."""
        producer = self.find(user_id, body.producer_id)
        route = None if producer is None else producer.routes.get(body.session_id.encode())
        if producer is None or route is None or route.consumer is None:
            return None
        has_it = (route.consumer.connection_id, route.consumer.binding) == (body.connection_id, body.binding)
        return (producer, route) if has_it else None

    def _note_dropped(self, member: Member) -> None:
        now = self._clock()
        if now - self._logged.get(member.device_id, -LOG_EVERY_SECONDS) < LOG_EVERY_SECONDS:
            return
        if len(self._logged) >= MAX_LOGGED:
            self._logged.clear()
        self._logged[member.device_id] = now
        logger.info("a binary message was dropped: it is no terminal's, or nobody has that terminal bound")


def _forget(producer: Producer) -> None:
    for route in producer.routes.values():
        route.clear()
    producer.routes.clear()


def _is_meant(body: Left, consumer: Consumer) -> bool:
    return body.connection_id == consumer.connection_id and body.binding in {None, consumer.binding}
