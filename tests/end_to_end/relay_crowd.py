"""Pairs of devices that call, tell and stream, while they are cut off at random; and what must have come of it.

Told without asking the servers: what a device has said is sure to have been taken once the server has answered a later
heartbeat of the same connection. What a connection lost that was reset nobody can know; all else must have arrived.
Run as a program, it reads its plan from stdin and writes what it has found to stdout.
"""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import msgspec
import trio

from scripts.device_link.desktop import Desktop
from scripts.device_link.device import Device, Identity, Rhythm
from scripts.device_link.link import GONE, LinkRefused, Message
from scripts.device_link.memory import Memory
from scripts.device_link.phone import CallFailed, CallLost, Phone
from tests.end_to_end.cloche import Customer
from tests.end_to_end.relay_counting import RECORD_BYTES, Story, count_out, read_story
from tests.end_to_end.relay_scene import make_identity

OFFLINE = -32010
SETTLE_SECONDS = 60
SURE_SECONDS = 30
SLOW_SECONDS = 8


class Plan(msgspec.Struct, frozen=True):
    """Means of exponential pauses, in seconds; `cut_seconds` of one device, which is back after `most_away_seconds` at
    most. `is_gentle`: desktops leave, and are not reset, so that nothing of a terminal can be lost.
    """

    urls: list[str]
    owners: list[UUID]
    seed: int = 1
    seconds: float = 60
    call_seconds: float = 2
    event_seconds: float = 2
    terminal_seconds: float = 2
    terminal_bytes: int = 2048
    cut_seconds: float = 30
    most_away_seconds: float = 0.4
    is_gentle: bool = True
    ramp_seconds: float = 0


class Found(msgspec.Struct):
    """`wrong` must be empty. `slow` are pairs whose last words took their time."""

    wrong: list[str] = []
    slow: list[str] = []
    counts: dict[str, int] = {}
    latencies_ms: list[float] = []


@dataclass(slots=True)
class Teller:
    """Numbers the events of one device."""

    device: Device
    event_type: str
    told: int = 0
    sure: set[int] = field(default_factory=set)

    async def tell(self) -> None:
        device, life = self.device, self.device.registrations
        self.told += 1
        number = self.told
        if not await device.publish(self.event_type, {"sessionId": "s", "number": number}) or not await device.beat():
            return
        beats = device.beats

        def is_over() -> bool:
            return device.registrations != life or not device.is_registered or device.pongs >= beats

        await device.wait_for(is_over, SURE_SECONDS)
        if device.registrations == life and device.pongs >= beats:
            self.sure.add(number)


class Pair:
    """One user's desktop and phone."""

    def __init__(self, number: int, plan: Plan, found: Found) -> None:
        self.number = number
        self.plan = plan
        self.found = found
        self.chance = random.Random(plan.seed * 100_000 + number)  # noqa: S311 - a test that can be repeated
        owner = Customer(plan.owners[number], {})
        self.desktop, self.phone = Desktop(), Phone()
        self.machine = make_device(owner, "desktop", self.desktop)
        self.pocket = make_device(owner, "mobile", self.phone)
        self.tellers = (Teller(self.machine, "session-updated"), Teller(self.pocket, "session-task-updated"))
        self.written = 0
        self.resets = 0
        self.has_left = False

    async def run(self) -> None:
        """Everything at once, then quiet, then the account of it."""
        async with trio.open_nursery() as nursery:
            for device in (self.machine, self.pocket):
                nursery.start_soon(self.keep_connected, device)
            for device in (self.machine, self.pocket):
                await self.wait_reachable(device)
            await self.phone.bind("t")
            nursery.start_soon(self.bind_until_bound)
            with trio.move_on_after(self.plan.seconds):
                await self.be_busy()
            await self.settle()
            nursery.cancel_scope.cancel()
        self.account()

    async def wait_reachable(self, device: Device) -> None:
        await device.wait_registered(seconds=SETTLE_SECONDS)
        await device.beat()
        await device.wait_for(lambda: device.pongs > 0, SETTLE_SECONDS)

    async def be_busy(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_calling)
            nursery.start_soon(self.keep_writing)
            for teller in self.tellers:
                nursery.start_soon(self.keep_telling, teller)
            for device in (self.machine, self.pocket):
                nursery.start_soon(self.keep_cutting, device)

    async def keep_connected(self, device: Device) -> None:
        """By whichever server, as behind a load balancer."""
        while True:
            device.url = self.chance.choice(self.plan.urls)
            try:
                self.note_ended(device, (await device.live_once()).code)
            except LinkRefused as refused:
                self.count(f"refused {refused.status}")
            await trio.sleep(self.chance.uniform(0.02, self.plan.most_away_seconds))

    def note_ended(self, device: Device, code: int) -> None:
        """What is lost by a reset is lost, whoever resets: we, or a server that is killed."""
        self.count(f"ended {code}")
        if device is self.machine:
            self.resets += code == GONE and not self.has_left
            self.has_left = False

    async def keep_cutting(self, device: Device) -> None:
        while True:
            await self.pause(self.plan.cut_seconds)
            if device.link is None or not device.is_registered:
                continue
            self.count("cuts")
            if device is self.pocket:
                device.cut()
            elif self.plan.is_gentle or self.chance.random() < 0.5:
                self.has_left = True
                with trio.CancelScope(shield=True):  # a half of it would be the end of everything
                    await self.desktop.leave()
            else:
                device.cut()

    async def keep_calling(self) -> None:
        while True:
            await self.pause(self.plan.call_seconds)
            await self.call()

    async def call(self) -> None:
        key = self.chance.choice([None, f"{self.chance.random()}"])
        asked, started = {"n": self.chance.random()}, trio.current_time()
        try:
            answer = await self.phone.call("echo", asked, key=key)
        except CallFailed as error:
            self.count("calls offline")
            self.check(error.code == OFFLINE, f"a call failed: {error}")
        except CallLost:
            self.count("calls lost with their connection")
        except trio.TooSlowError:
            self.check(False, "a call was not answered")
        else:
            self.count("calls answered")
            self.check(answer == asked, "an answer is not to its call")
            self.found.latencies_ms.append((trio.current_time() - started) * 1000)

    async def keep_telling(self, teller: Teller) -> None:
        while True:
            await self.pause(self.plan.event_seconds)
            await teller.tell()

    async def keep_writing(self) -> None:
        while True:
            await self.pause(self.plan.terminal_seconds)
            await self.write()

    async def write(self) -> None:
        size = self.plan.terminal_bytes
        self.written, start = self.written + size, self.written
        await self.desktop.terminals.write("t", count_out(start, size))

    async def bind_until_bound(self) -> None:
        """A phone that binds while its desktop is away is told so, and tries again."""
        while True:
            await self.pocket.wait_for(lambda: self.pocket.faults, float("inf"))
            self.count(f"error {self.pocket.faults.pop(0).get('code')}")
            await trio.sleep(0.3)
            await self.phone.bind("t")

    async def settle(self) -> None:
        """A last event of each and a last record, once both are connected; until they have come."""
        started = trio.current_time()
        try:
            with trio.fail_after(SETTLE_SECONDS):
                with trio.move_on_after(SLOW_SECONDS) as waiting:
                    await self.say_last_words()
                if waiting.cancelled_caught:
                    words = self.describe()
                    await self.say_last_words()
                    took = trio.current_time() - started
                    self.found.slow.append(f"pair {self.number}: {took:.0f} s; first {words}; then {self.describe()}")
        except trio.TooSlowError:
            self.check(False, f"the last words did not come: {self.describe()}")

    async def say_last_words(self) -> None:
        for teller in self.tellers:
            while teller.told not in teller.sure or not teller.told:
                await teller.device.wait_registered(seconds=SETTLE_SECONDS)
                await teller.tell()
                await trio.sleep(0.02)
        await self.write()
        mine, theirs = self.tellers
        last = count_out(self.written - RECORD_BYTES, RECORD_BYTES)
        output = self.phone.output.setdefault("t", bytearray())
        await self.pocket.wait_for(lambda: numbers(self.pocket, mine)[-1:] == [mine.told], SETTLE_SECONDS)
        await self.machine.wait_for(lambda: numbers(self.machine, theirs)[-1:] == [theirs.told], SETTLE_SECONDS)
        await self.pocket.wait_for(lambda: output.endswith(last), SETTLE_SECONDS)
        while (await self.phone.exchange("echo", 1))["error"] is not None:
            await trio.sleep(0.2)

    def account(self) -> None:
        mine, theirs = self.tellers
        self.account_events(mine, self.pocket)
        self.account_events(theirs, self.machine)
        self.account_calls()
        self.account_terminal(read_story(bytes(self.phone.output.get("t", b""))))
        for device in (self.machine, self.pocket):
            self.check(device.invalid_resumes == 0, "credentials were refused")
            self.count("registrations", device.registrations)

    def account_events(self, teller: Teller, hearer: Device) -> None:
        heard = numbers(hearer, teller)
        self.count("events told", teller.told)
        self.count("events heard", len(heard))
        self.check(heard == sorted(set(heard)), f"events out of order, or twice: {find_disorder(heard)}")
        missing = sorted(teller.sure - set(heard))
        self.check(not missing, f"events that are lost: {missing[:5]} of {teller.told} ({teller.event_type})")
        ids = [event["eventId"] for event in hearer.events if "eventId" in event]
        self.check(ids == sorted(set(ids)), "ids do not increase")
        gaps = [event for event in hearer.events if event["payload"]["eventType"] == "event-replay-gap"]
        self.check(not gaps, "a gap was told")

    def account_calls(self) -> None:
        self.check(not self.phone.repeats, "a call was answered twice")
        unkeyed = Counter(call["id"] for call in self.desktop.calls if "idempotencyKey" not in call)
        self.check(not [id_ for id_, times in unkeyed.items() if times > 1], "a call without a key was made twice")
        self.count("answers that came after the phone's return", len(self.phone.strays))

    def account_terminal(self, story: Story) -> None:
        self.count("terminal bytes", story.end)
        self.count("terminal bytes again", story.repeated_bytes)
        self.count("terminal holes", len(story.holes))
        cleared, lost = self.desktop.terminals.open("t").cleared_bytes, self.desktop.terminals.lost_bytes
        self.check(not cleared, f"an unbind made the desktop give up {cleared} bytes")
        self.check(not lost or self.resets > 0, f"the desktop lost {lost} bytes with its link")
        resets = self.resets + sum(bind["forceSnapshot"] for bind in self.desktop.binds)
        self.check(len(story.holes) <= resets, f"holes without a reset: {story.holes[:3]}, {story.end}")
        self.check(story.start == 0 or resets > 0, f"the beginning is lost: {story.start}")

    def check(self, holds: bool, words: str) -> None:
        if not holds:
            self.found.wrong.append(f"pair {self.number}: {words}")

    def count(self, name: str, times: int = 1) -> None:
        self.found.counts[name] = self.found.counts.get(name, 0) + times

    def describe(self) -> str:
        mine, theirs = self.tellers
        output = self.phone.output.get("t", b"")
        return (
            f"told {mine.told}/{theirs.told}, sure {max(mine.sure, default=0)}/{max(theirs.sure, default=0)}, "
            f"heard {numbers(self.pocket, mine)[-1:]}/{numbers(self.machine, theirs)[-1:]}, "
            f"terminal {bytes(output[-16:])!r} of {self.written}, bound {self.desktop.terminals.open('t').is_bound}, "
            f"registered {self.machine.is_registered}/{self.pocket.is_registered}, "
            f"bound {self.phone.bound['t']} times"
        )

    async def pause(self, mean_seconds: float) -> None:
        await trio.sleep(self.chance.expovariate(1 / mean_seconds))


def make_device(owner: Customer, client_type: str, app: Desktop | Phone) -> Device:
    identity: Identity = make_identity(owner, client_type)
    return Device("", identity, app, Memory(), Rhythm(silence=float("inf"), retry_register=0.01))


def numbers(hearer: Device, teller: Teller) -> Sequence[int]:
    return [read_number(event) for event in hearer.events if event["payload"]["eventType"] == teller.event_type]


def read_number(event: Message) -> int:
    return int(event["payload"]["payload"]["number"])


def find_disorder(heard: Sequence[int]) -> list[tuple[int, int]]:
    return [(one, other) for one, other in pairwise(heard) if other <= one][:5]


async def run_crowd(plan: Plan) -> Found:
    found = Found()
    async with trio.open_nursery() as nursery:
        for number in range(len(plan.owners)):
            nursery.start_soon(Pair(number, plan, found).run)
            await trio.sleep(plan.ramp_seconds / len(plan.owners))
    return found


if __name__ == "__main__":
    wished = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(run_crowd, wished)))
