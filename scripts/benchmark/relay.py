"""What the relay costs: calls and events between pairs of a desktop and a phone, terminals, and sockets that idle.

A call is a request and its answer, each from one device to the other: two messages that come in and two that go out.
The generator answers for the desktops, in its own process; nothing but the relay lies between the two devices.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from scripts.benchmark.arena import Arena
from scripts.benchmark.calls import BenchFailed
from scripts.benchmark.devices import Device, OnFrame
from scripts.benchmark.figures import Reading, percentile
from scripts.benchmark.reactor import Reactor
from scripts.benchmark.stage import Served

READY_SECONDS = 60.0
AT_ONCE = 50
WARM_SHARE = 0.25
"""Of the time that is measured, before it."""
WARM_DEVICES = 20
IDLE_SECONDS = 0.5
SESSION = b"t-1"
ONE_PER_SECOND = 100
"""Of one pair: half as fast as a device may speak for long."""
TERMINAL_FRAME = b"PTC1" + len(SESSION).to_bytes(2, "big") + SESSION + b"x" * 16 * 1024
"""As much as a desktop puts into one."""
PADDING = b"x" * 200


@dataclass(slots=True)
class _Pairs:
    """Desktops and phones of as many users, at one server or at two."""

    reactor: Reactor
    desktops: list[Device] = field(default_factory=list)
    phones: list[Device] = field(default_factory=list)

    def connect(self, port: int, headers: Mapping[str, str], kind: str) -> None:
        device = Device(self.reactor, port, headers, uuid4(), kind)
        (self.desktops if kind == "desktop" else self.phones).append(device)

    def run_until_registered(self) -> None:
        devices = self.desktops + self.phones
        if not self.reactor.run(lambda: all(device.is_registered for device in devices), READY_SECONDS):
            raise BenchFailed("devices could not register")


@dataclass(slots=True)
class _Messages:
    """One message in flight for each pair, which is followed by another as soon as it has arrived. Milliseconds."""

    kind: str
    lasted: list[float] = field(default_factory=list)
    sent_at: dict[Device, float] = field(default_factory=dict)
    count: int = 0

    def note_arrival(self, device: Device) -> None:
        self.lasted.append((time.monotonic() - self.sent_at[device]) * 1000)

    def call(self, phone: Device) -> None:
        self.count += 1
        self.sent_at[phone] = time.monotonic()
        phone.send_text(b'{"type":"rpc.request","payload":{"id":"%d","method":"session.get","params":{"sessionId":"%b"}}}'
                        % (self.count, PADDING))  # fmt: skip

    def hear_answer(self, phone: Device, payload: bytes) -> None:
        if payload.startswith(b'{"type":"rpc.response"'):
            if b"-32010" in payload:
                raise BenchFailed("a desktop that is connected was not reached")
            self.note_arrival(phone)
            self.call(phone)

    def publish(self, desktop: Device) -> None:
        self.count += 1
        self.sent_at[desktop] = time.monotonic()
        desktop.send_text(b'{"type":"event","payload":{"eventType":"job:stream-progress","payload":{"jobId":"j-1",'
                          b'"sessionId":"s-1","progress":%d,"text":"%b"}}}' % (self.count, PADDING))  # fmt: skip


def answer(desktop: Device, payload: bytes) -> None:
    """What every method answers here."""
    if payload.startswith(b'{"type":"rpc.request"'):
        client_id, request_id = find_text(payload, b"clientId"), find_text(payload, b"id")
        desktop.send_text(b'{"type":"rpc.response","payload":{"clientId":"%b","id":"%b","result":{"text":"%b"},'
                          b'"error":null,"isFinal":true}}' % (client_id, request_id, PADDING))  # fmt: skip


def find_text(payload: bytes, name: bytes) -> bytes:
    """The value of the first member of this name; nothing in it is escaped."""
    return payload.partition(b'"%b":"' % name)[2].partition(b'"')[0]


def measure(arena: Arena) -> list[Reading]:
    """With a second server, which also is a fresh one: memory once used is used again."""
    pairs, rate = arena.plan.pairs, arena.plan.calls_per_second
    with arena.open_another() as other:
        one, two = [arena.served, arena.served], [arena.served, other]
        return [
            *_measure_memory(arena, other),
            *_measure_paced_calls(arena, one, 1, ONE_PER_SECOND, f"1 pair, {ONE_PER_SECOND} calls/s"),
            *_measure_paced_calls(arena, two, 1, ONE_PER_SECOND, f"1 pair on two servers, {ONE_PER_SECOND} calls/s"),
            *_measure_paced_calls(arena, one, pairs, rate, f"{pairs} pairs, {rate} calls/s"),
            *_measure_paced_calls(arena, two, pairs, rate, f"{pairs} pairs on two servers, {rate} calls/s"),
            *_measure_calls(arena, one, pairs, f"{pairs} pairs"),
            *_measure_calls(arena, two, pairs, f"{pairs} pairs on two servers"),
            *_measure_paced_events(arena, 1, ONE_PER_SECOND, f"1 pair, {ONE_PER_SECOND} events/s"),
            *_measure_events(arena, pairs, f"{pairs} pairs"),
            *_measure_terminals(arena),
        ]


@contextmanager
def open_pairs(arena: Arena, servers: list[Served], count: int) -> Iterator[_Pairs]:
    """Desktops at the first server, phones at the second, few at a time; a desktop first."""
    pairs = _Pairs(Reactor())
    try:
        for start in range(0, count, AT_ONCE):
            for kind, served in zip(("desktop", "mobile"), servers, strict=True):
                for headers in arena.members[start : min(start + AT_ONCE, count)]:
                    pairs.connect(served.target.port, headers, kind)
                pairs.run_until_registered()
        yield pairs
    finally:
        for device in pairs.desktops + pairs.phones:
            device.close()
        pairs.reactor.close()


def _measure_memory(arena: Arena, fresh: Served) -> list[Reading]:
    devices = min(arena.plan.idle_devices, 2 * len(arena.members))
    with open_pairs(arena, [fresh, fresh], min(WARM_DEVICES, devices) // 2):
        pass
    before = fresh.memory_kib()
    with open_pairs(arena, [fresh, fresh], devices // 2) as pairs:
        pairs.reactor.run_for(IDLE_SECONDS)
        grown = fresh.memory_kib() - before
    return [Reading("memory per idle device", "KiB", grown / devices)]


def _measure_calls(arena: Arena, servers: list[Served], count: int, name: str) -> list[Reading]:
    messages = _Messages("call")
    with open_pairs(arena, servers, count) as pairs:
        for desktop in pairs.desktops:
            desktop.on_text = answer
        for phone in pairs.phones:
            phone.on_text = messages.hear_answer
            messages.call(phone)
        return _count(arena, servers, pairs, messages, name)


def _measure_paced_calls(arena: Arena, servers: list[Served], count: int, rate: int, name: str) -> list[Reading]:
    """What a call takes while others have theirs, and the server is not at its limit."""
    messages = _Messages("call")
    with open_pairs(arena, servers, count) as pairs:
        waiting = deque(pairs.phones)
        for desktop, phone in zip(pairs.desktops, pairs.phones, strict=True):
            desktop.on_text = answer
            phone.on_text = _wait_turn(messages, waiting, phone, b'{"type":"rpc.response"')
        _send_evenly(pairs.reactor, messages.call, waiting, 1 / rate)
        return _count(arena, servers, pairs, messages, name)[1:]


def _measure_paced_events(arena: Arena, count: int, rate: int, name: str) -> list[Reading]:
    messages = _Messages("event")
    with open_pairs(arena, [arena.served, arena.served], count) as pairs:
        waiting = deque(pairs.desktops)
        for desktop, phone in zip(pairs.desktops, pairs.phones, strict=True):
            phone.on_text = _wait_turn(messages, waiting, desktop, b'{"type":"event"')
        _send_evenly(pairs.reactor, messages.publish, waiting, 1 / rate)
        return _count(arena, [arena.served], pairs, messages, name)[1:]


def _wait_turn(messages: _Messages, waiting: deque[Device], sender: Device, start: bytes) -> OnFrame:
    """`sender` is whose turn it is again when what starts so has come."""

    def hear(_device: Device, payload: bytes) -> None:
        if payload.startswith(start) and sender in messages.sent_at:
            messages.note_arrival(sender)
            waiting.append(sender)

    return hear


def _send_evenly(
    reactor: Reactor, send: Callable[[Device], None], waiting: deque[Device], interval: float
) -> None:
    """Devices take turns. One whose last message has not come is passed over."""
    due = time.monotonic()

    def send_next() -> None:
        nonlocal due
        if waiting:
            send(waiting.popleft())
        due += interval
        reactor.call_at(due, send_next)

    send_next()


def _measure_events(arena: Arena, count: int, name: str) -> list[Reading]:
    messages = _Messages("event")
    with open_pairs(arena, [arena.served, arena.served], count) as pairs:
        for desktop, phone in zip(pairs.desktops, pairs.phones, strict=True):
            phone.on_text = _follow(messages, desktop)
            messages.publish(desktop)
        return _count(arena, [arena.served], pairs, messages, name)


def _follow(messages: _Messages, desktop: Device) -> OnFrame:
    def hear(_phone: Device, payload: bytes) -> None:
        if b"job:stream-progress" in payload:
            messages.note_arrival(desktop)
            messages.publish(desktop)

    return hear


def _count(
    arena: Arena, servers: list[Served], pairs: _Pairs, messages: _Messages, name: str
) -> list[Reading]:
    kind = messages.kind
    pairs.reactor.run_for(arena.plan.window_seconds * WARM_SHARE)
    messages.lasted.clear()
    measured = {served.target.port: served for served in servers}.values()
    cpu_seconds, began = sum(served.cpu_seconds() for served in measured), time.monotonic()
    pairs.reactor.run_for(arena.plan.window_seconds)
    seconds, came = time.monotonic() - began, len(messages.lasted)
    used = sum(served.cpu_seconds() for served in measured) - cpu_seconds
    if not came:
        raise BenchFailed(f"no {kind} arrived: {name}")
    name = f"relayed {kind}s, {name}"
    return [
        Reading(name, f"{kind}s/s", came / seconds),
        *(Reading(f"{name}: p{percent}", "ms", percentile(messages.lasted, percent)) for percent in (50, 99)),
        Reading(f"{name}: server CPU", f"µs/{kind}", used / came * 1e6),
    ]


@dataclass(slots=True)
class _Terminal:
    """A desktop that writes as fast as it may, and what has come of it at the phone."""

    left: int
    is_bound: bool = False
    received: int = 0

    def hear_desktop(self, desktop: Device, payload: bytes) -> None:
        if payload.startswith(b'{"type":"terminal.binary.'):
            self.is_bound = payload.startswith(b'{"type":"terminal.binary.bind"')
            self.write(desktop)

    def write(self, desktop: Device) -> None:
        while self.is_bound and self.left > 0 and desktop.has_room:
            self.left -= 1
            desktop.send_binary(TERMINAL_FRAME)

    def hear_phone(self, _phone: Device, payload: bytes) -> None:
        self.received += len(payload)


def _measure_terminals(arena: Arena) -> list[Reading]:
    size = arena.plan.terminal_mib * 1024 * 1024
    terminal = _Terminal(left=size // len(TERMINAL_FRAME))
    expected = terminal.left * len(TERMINAL_FRAME)
    with open_pairs(arena, [arena.served, arena.served], 1) as pairs:
        desktop, phone = pairs.desktops[0], pairs.phones[0]
        desktop.on_text, desktop.on_room, phone.on_binary = terminal.hear_desktop, terminal.write, terminal.hear_phone
        cpu_seconds, began = arena.served.cpu_seconds(), time.monotonic()
        phone.send_text(b'{"type":"terminal.binary.bind","payload":{"sessionId":"%b"}}' % SESSION)
        if not pairs.reactor.run(lambda: terminal.received >= expected, READY_SECONDS):
            raise BenchFailed(f"of {expected} bytes of a terminal {terminal.received} have come")
        seconds, used = time.monotonic() - began, arena.served.cpu_seconds() - cpu_seconds
    mib = expected / 1024 / 1024
    return [
        Reading("relayed terminal", "MiB/s", mib / seconds),
        Reading("relayed terminal: server CPU", "ms/MiB", used / mib * 1000),
    ]
