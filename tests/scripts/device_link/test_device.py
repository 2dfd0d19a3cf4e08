"""What the apps have in common: how they register, beat, acknowledge, and come back."""

import math

import pytest
import trio
import trio.testing

from scripts.device_link.desktop import Desktop
from scripts.device_link.device import App, Device, Identity, Rhythm
from scripts.device_link.link import LinkRefused
from scripts.device_link.memory import Memory
from scripts.device_link.phone import Phone
from tests.scripts.device_link.relay_stand_in import CREDENTIALS, Side, open_stand_in

QUICK = Rhythm(delays=(0.01,))


def make(url: str, app: App, memory: Memory | None = None, rhythm: Rhythm = QUICK) -> Device:
    client_type = {"desktop": "desktop", "phone": "mobile"}[app.kind]
    identity = Identity("d-1", client_type, "Pocket", {"X-Device-ID": "d-1"})
    device = Device(url, identity, app, memory or Memory(), rhythm)
    device.records = True
    return device


async def welcome(side: Side) -> None:
    await side.hear_next("register")
    await side.say("registered", **CREDENTIALS)


async def welcome_and_listen(side: Side) -> None:
    await welcome(side)
    await side.hear_away()


async def test_a_new_device_registers_without_credentials_and_remembers_what_it_gets() -> None:
    async with open_stand_in(welcome_and_listen) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, Phone())
        nursery.start_soon(device.stay)
        await device.wait_registered()
        assert heard == [{"type": "register", "payload": {"deviceId": "d-1", "deviceName": "Pocket"}}]
        assert (device.memory.session_id, device.memory.resume_token) == ("s" * 32, "t" * 48)
        nursery.cancel_scope.cancel()


async def test_a_device_that_is_cut_off_resumes_with_what_it_remembers() -> None:
    async with open_stand_in(welcome_and_listen) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, Phone(), Memory(last_event_id=7))
        nursery.start_soon(device.stay)
        await device.wait_registered()
        device.cut()
        await device.wait_registered(2)
        resumed = {"sessionId": "s" * 32, "resumeToken": "t" * 48, "lastEventId": 7}
        assert heard[-1]["payload"] == {"deviceId": "d-1", "deviceName": "Pocket", **resumed}
        assert [ended.code for ended in device.endings] == [1006]
        nursery.cancel_scope.cancel()


async def test_credentials_that_are_refused_are_forgotten_and_the_last_event_is_not() -> None:
    async def refuse_once(side: Side) -> None:
        await side.hear_next("register")
        await side.say("error", code="invalidResume", message="no", timestamp="…")
        await welcome_and_listen(side)

    async with open_stand_in(refuse_once) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, Phone(), Memory(None, "old", "old", 7))
        nursery.start_soon(device.stay)
        await device.wait_registered()
        assert heard[1]["payload"] == {"deviceId": "d-1", "deviceName": "Pocket", "lastEventId": 7}
        assert (device.invalid_resumes, device.endings, device.faults) == (1, [], [])
        nursery.cancel_scope.cancel()


async def test_a_desktop_beats_at_once_and_a_phone_after_half_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    for app, first in ((Desktop(), 0.0), (Phone(), 30.0)):
        beats: list[float] = []

        async def note(side: Side, beats: list[float] = beats) -> None:
            started = trio.current_time()
            await welcome(side)
            for _ in range(2):
                await side.hear_next("heartbeat")
                beats.append(trio.current_time() - started)
                await side.say("pong")
            await side.hear_away()

        async with open_stand_in(note) as (url, _), trio.open_nursery() as nursery:
            device = make(url, app)
            nursery.start_soon(device.stay)
            await device.wait_for(lambda device=device: device.pongs == 2, 100)  # type: ignore[misc] # mypy cannot infer it
            assert [round(one) for one in beats] == [first, first + 30]
            nursery.cancel_scope.cancel()


async def test_a_phone_that_hears_nothing_gives_its_connection_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stand_in(welcome_and_listen) as (url, _), trio.open_nursery() as nursery:
        device = make(url, Phone(), rhythm=Rhythm(silence=45, delays=(0.01,)))
        nursery.start_soon(device.stay)
        await device.wait_registered()
        started = trio.current_time()
        await device.wait_registered(2, math.inf)
        assert 45 < trio.current_time() - started <= 62
        nursery.cancel_scope.cancel()


async def test_a_device_that_is_not_answered_gives_up_and_tries_again(autojump_clock: trio.testing.MockClock) -> None:
    async def ignore(side: Side) -> None:
        await side.hear_away()

    async with open_stand_in(ignore) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, Phone())
        nursery.start_soon(device.stay)
        await device.wait_for(lambda: len(device.endings) == 2, math.inf)
        assert 20 < trio.current_time() < 25
        assert len(heard) >= 2
        nursery.cancel_scope.cancel()


async def test_events_are_acknowledged_and_kept_as_they_come_also_twice() -> None:
    async def tell(side: Side) -> None:
        await welcome(side)
        for event_id in (5, 100, 100):
            await side.event(event_id)
        await side.say("event", payload={"eventType": "device-status", "payload": {}})
        while True:
            await side.hear_next("event-ack")

    async with open_stand_in(tell) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, Desktop())
        nursery.start_soon(device.stay)
        await device.wait_for(lambda: len(device.events) == 4)
        await device.wait_for(lambda: device.memory.last_event_id == 100)
        with trio.fail_after(5):
            while sum(message["type"] == "event-ack" for message in heard) < 2:
                await trio.sleep(0.01)
        acks = [message["payload"] for message in heard if message["type"] == "event-ack"]
        assert acks == [{"lastEventId": 5}, {"lastEventId": 100}]
        nursery.cancel_scope.cancel()


async def test_a_message_that_the_apps_would_drop_is_a_fault() -> None:
    async def babble(side: Side) -> None:
        await welcome(side)
        await side.say("event", payload={"eventType": "x", "payload": {"a_b": 1}}, eventId=9)
        await side.say("error", code="invalidPayload", message="no", timestamp="…")
        await side.hear_away()

    async with open_stand_in(babble) as (url, _), trio.open_nursery() as nursery:
        device = make(url, Phone())
        nursery.start_soon(device.stay)
        await device.wait_for(lambda: len(device.faults) == 2)
        assert (device.events, device.memory.last_event_id) == ([], None)
        nursery.cancel_scope.cancel()


async def test_delays_grow_while_there_is_no_server(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(8):
        device = make("http://127.0.0.1:9", Desktop(), rhythm=Rhythm(delays=(0, 1, 2, 4)))
        await device.stay()
    assert [refused.status for refused in device.refusals] == [0] * 4


async def test_a_refusal_ends_one_life() -> None:
    async with open_stand_in(welcome_and_listen) as (url, _):
        wrong = Identity("d-1", "mobile", "Pocket", {"Authorization": "Bearer wrong"})
        with pytest.raises(LinkRefused) as caught:
            await Device(url, wrong, Phone(), Memory()).live_once()
        assert caught.value.status == 401
        assert "wrong" not in repr(wrong)


async def test_a_device_that_pauses_takes_one_more_message_at_most() -> None:
    async def tell(side: Side) -> None:
        await welcome(side)
        for event_id in range(1, 6):
            await side.event(event_id)
        await side.hear_away()

    async with open_stand_in(tell) as (url, _), trio.open_nursery() as nursery:
        device = make(url, Phone())
        device.pause_reading()
        device.go_on_reading()
        nursery.start_soon(device.stay)
        await device.wait_registered()
        device.pause_reading()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(device.events) <= 1
        device.go_on_reading()
        await device.wait_for(lambda: len(device.events) == 5)
        nursery.cancel_scope.cancel()
