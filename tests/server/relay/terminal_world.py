"""A desktop and a phone around one route, with what is under way between them; output is counted in frames."""

from collections import deque
from uuid import UUID, uuid4

from server.relay.terminal_route import Consumer, Order, Route, Want
from server.relay.terminal_window import Stock, Window

PHONE = uuid4()


def build_consumer(device_id: UUID = PHONE) -> Consumer:
    return Consumer(device_id, uuid4(), "one", 1)


def orders(route: Route) -> list[Order]:
    found: list[Order] = []
    while (order := route.next_order()) is not None:
        found.append(order)
        assert len(found) < 3, "orders without end"
    return found


class World:
    """A desktop and a phone around a route, with orders and frames under way; terminal output is counted in frames."""

    def __init__(self) -> None:
        self.route = Route("t-1", Stock(Stock()))
        self.said = 0
        self.pending: list[int] = []
        self.is_bound = False
        self.is_connected = False
        self.orders: deque[Order] = deque()
        self.frames: deque[bytes] = deque()
        self.wire: deque[tuple[int, bytes]] = deque()
        self.expected = 0
        self.confirmed = 0
        """Frames of which the phone knows that they count as confirmed."""
        self.taken: list[tuple[int, int]] = []
        self.may_repeat = False
        self.awaits_snapshot = False
        self.time = 0.0

    def say(self) -> None:
        for at in range(self.said, self.said + 4):
            if self.is_bound:
                self.frames.append(b"%08d" % at)
            else:
                self.pending.append(at)
        self.said += 4

    def carry_frames(self) -> None:
        while self.frames:
            self.route.take_in(self.frames.popleft())
            self.settle()

    def carry_orders(self) -> None:
        while self.orders:
            order = self.orders.popleft()
            if order == "unbind":
                self.is_bound = False
                self.pending.clear()
                continue
            self.is_bound = True
            if order.force_snapshot:
                self.pending.clear()
                self.frames.append(b"S%07d" % self.said)
            self.frames.extend(b"%08d" % one for one in self.pending)
            self.pending.clear()

    def settle(self) -> None:
        while (route := self.route.window.take_next()) is not None:
            route.send()
        for order in orders(self.route):
            self.orders.append(order)
            self.awaits_snapshot |= order != "unbind" and order.force_snapshot

    def take(self) -> None:
        if self.wire:
            number, frame = self.wire.popleft()
            if frame.startswith(b"S"):
                self.expected, self.awaits_snapshot = int(frame[1:]), False
            elif self.awaits_snapshot:  # what was under way when it was ordered
                self.expected = int(frame) + 1
            else:
                at = int(frame)
                lowest = self.confirmed if self.may_repeat else self.expected
                assert lowest <= at <= self.expected, (lowest, at, self.expected)
                self.expected = at + 1
            self.may_repeat = False
            self.taken.append((number, self.expected))

    def confirm(self) -> None:
        if self.taken:
            number, self.confirmed = self.taken[-1]
            self.taken.clear()
            self.route.confirm(number)
            self.settle()

    def bind(self) -> None:
        self.wire, self.taken, self.may_repeat = deque(), [], True
        wire = self.wire
        consumer = build_consumer()

        def deliver(number: int, frame: bytes) -> bool:
            wire.append((number, frame))
            return True

        self.route.bind(consumer, Want(include_snapshot=False, force_snapshot=False), Window(), deliver)
        self.settle()

    def cut_phone(self) -> None:
        self.wire, self.taken = deque(), []
        self.route.lose_consumer(self.time)
        self.settle()

    def connect(self) -> None:
        if not self.is_connected:
            self.is_connected = True
            self.route.find_producer()
            self.settle()

    def cut_desktop(self) -> None:
        """What it has sent arrives; what it was told does not."""
        self.carry_frames()
        self.orders.clear()
        self.is_connected = self.is_bound = False
        self.route.lose_producer()

    def move(self) -> None:
        """To another process, which asks the phone's where it is."""
        self.cut_desktop()
        before, wire = self.route, self.wire
        if before.consumer is None:
            return
        state, frames = before.pack(self.time), before.frames
        self.route = Route("t-1", Stock(Stock()), epoch=state.epoch + 1)
        self.route.restore(state, frames, self.time)
        self.route.deliver = before.deliver
        before.clear()
        if self.route.presence == "doubtful":
            next_number = max([number for number, _ in wire], default=self.last_number) + 1
            self.route.go_on(next_number, 0)
            self.settle()

    @property
    def last_number(self) -> int:
        return self.taken[-1][0] if self.taken else self.route.first_number - 1

    def finish(self) -> None:
        self.connect()
        self.bind()
        for _ in range(10 * self.said + 10):
            self.carry_orders()
            self.carry_frames()
            self.take()
            self.confirm()
