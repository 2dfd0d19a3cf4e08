"""Events between devices on one process and on two, with a real Redis."""

from uuid import uuid4

import pytest
import trio

from storage.device_events import events_channel
from storage.event_stream import Bounds
from tests.server.relay.event_house import (
    ANN,
    Device,
    Links,
    Process,
    build_device,
    open_process,
    open_processes,
)


async def test_an_event_has_been_given_to_those_on_its_process_when_it_is_published(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one, one.join(phone):
        event_id = await one.publish(desktop, {"a": 1})
        (frame,) = await phone.take()
    assert frame == {
        "type": "event",
        "payload": {"eventType": "noted", "payload": {"a": 1}},
        "targetDeviceId": None,
        "sourceDeviceId": str(desktop.member.device_id),
        "timestamp": frame["timestamp"],
        "eventId": event_id,
    }
    assert frame["timestamp"].endswith("Z")
    assert len(frame["timestamp"]) == len("2026-02-03T04:05:06.123456Z")


async def test_events_reach_another_process_in_their_order_and_once(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other), other.join(phone):
        ids = [await one.publish(desktop) for _ in range(20)]
        assert await phone.wait_ids(20) == ids


async def test_both_processes_hear_the_same_order_when_both_publish(redis_url: str) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device()
    laptop = build_device("other")
    async with (
        open_processes(redis_url) as (one, other),
        trio.open_nursery() as nursery,
        one.join(phone),
        other.join(tablet),
    ):
        nursery.start_soon(publish_many, one, desktop, 60)
        nursery.start_soon(publish_many, other, laptop, 60)
        nursery.start_soon(publish_many, one, desktop, 60)
        told = await phone.wait_ids(180)
        assert told == sorted(set(told))
        assert await tablet.wait_ids(180) == told


async def test_who_resumes_gets_what_came_after_the_last_event_that_they_name(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        ids = [await one.publish(desktop) for _ in range(200)]
        async with one.join(phone, ids[49]):
            assert await phone.take_ids() == ids[50:]
            later = await one.publish(desktop)
            assert (await phone.take_ids())[-1] == later


async def test_who_registers_anew_gets_nothing_of_the_past(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        await one.publish(desktop)
        async with one.join(phone):
            assert await phone.take() == []


async def test_who_names_the_last_event_of_a_moment_hears_of_everything_since(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        for _ in range(2):  # without a history, and with one
            last = await one.events.find_last(ANN)
            event_id = await one.publish(desktop)
            async with one.events.join(phone.member, last, is_resumed=False):
                assert (await phone.take_ids())[-1] == event_id
                assert "event-replay-gap" not in await phone.take_types()


async def test_who_resumes_without_a_number_goes_on_after_the_last_one_that_they_acknowledged(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        async with one.join(phone):
            ids = [await one.publish(desktop) for _ in range(5)]
            one.events.note_ack(phone.member, ids[2])
        again = build_device(device_id=phone.member.device_id)
        async with one.join(again, is_resumed=True):
            assert await again.take_ids() == ids[3:]


async def test_what_waited_for_a_device_that_was_cut_off_comes_again_though_it_names_no_number(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        async with one.join(phone):
            ids = [await one.publish(desktop) for _ in range(5)]
        again = build_device(device_id=phone.member.device_id)
        async with one.join(again, ids[1]):
            assert again.member.outbox.waiting_bytes  # and nobody takes it
        later = build_device(device_id=phone.member.device_id)
        async with one.join(later, is_resumed=True):
            assert await later.take_ids() == ids[2:]


async def test_an_acknowledgement_of_what_never_was_counts_for_nothing(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url) as one:
        async with one.join(phone):
            event_id = await one.publish(desktop)
            one.events.note_ack(phone.member, 2**53 - 1)
        assert await one.stream.find_cursor(ANN, phone.member.device_id) in (None, 0)
        again = build_device(device_id=phone.member.device_id)
        async with one.join(again, is_resumed=True):
            assert event_id in await again.take_ids()


async def test_no_device_hears_of_itself_neither_live_nor_later(redis_url: str) -> None:
    phone, tablet = build_device(), build_device()
    async with open_process(redis_url) as one:
        first = await one.publish(tablet)
        async with one.join(phone):
            await one.publish(phone)
        again = build_device(device_id=phone.member.device_id)
        async with one.join(again, first):
            assert await again.take() == []
    assert await phone.take() == []


async def test_desktops_hear_of_phones_but_never_of_each_other(redis_url: str) -> None:
    desktop, second, phone = build_device("desktop"), build_device("desktop"), build_device()
    links = Links()
    links.desktops = [desktop.member.device_id, second.member.device_id]
    async with open_process(redis_url, links) as one, one.join(desktop), one.join(second):
        await one.publish(phone, event_type="from-a-phone")
        await one.publish(desktop, event_type="from-a-desktop")
        assert await desktop.take_types() == ["from-a-phone"]
        assert await second.take_types() == []


async def test_what_a_desktop_says_that_is_not_the_primary_one_goes_nowhere(redis_url: str) -> None:
    desktop, second, phone = build_device("desktop"), build_device("desktop"), build_device()
    links = Links()
    links.desktops = [desktop.member.device_id, second.member.device_id]
    async with open_process(redis_url, links) as one:
        async with one.join(phone):
            assert await one.publish(second) == 0
            assert await phone.take() == []
        assert await one.stream.find_last(ANN) == 0


async def test_a_desktop_that_has_just_come_is_heard(redis_url: str) -> None:
    """Its link may be so new that the roster does not know it yet."""
    former, desktop, phone = build_device("desktop"), build_device("desktop"), build_device()
    links = Links()
    links.desktops = [former.member.device_id]
    async with open_process(redis_url, links) as one, one.join(phone):
        assert await one.publish(desktop) > 0
        assert len(await phone.take()) == 1


async def test_the_desktop_that_becomes_the_primary_one_hears_from_then_on(redis_url: str) -> None:
    desktop, second, phone = build_device("desktop"), build_device("desktop"), build_device()
    links = Links()
    links.desktops = [desktop.member.device_id, second.member.device_id]
    async with open_process(redis_url, links) as one, one.join(second):
        await one.publish(phone, event_type="before")
        links.desktops.reverse()
        await one.device_events.tell(ANN, "links")
        await one.device_events.publish(ANN, "mark", {})
        await second.wait_type("mark")
        await one.publish(phone, event_type="after")
        assert await second.take_types() == ["mark", "after"]


async def test_who_comes_and_goes_is_told_to_all_but_the_one_it_is_about(redis_url: str) -> None:
    desktop, second, phone = build_device("desktop"), build_device("desktop"), build_device()
    links = Links()
    links.desktops = [desktop.member.device_id, second.member.device_id]
    payload = {"deviceId": str(phone.member.device_id), "status": "online"}
    async with open_process(redis_url, links) as one, one.join(second), one.join(phone):
        await one.device_events.publish(ANN, "device-status", payload)
        await one.device_events.publish(ANN, "mark", {})
        await second.wait_type("mark")
        await phone.wait_type("mark")
        assert await phone.take_types() == ["mark"]
        status = (await second.take())[0]
    assert status["payload"] == {"eventType": "device-status", "payload": payload}
    assert "eventId" not in status


async def test_what_is_not_kept_has_no_number_and_is_told_once_on_each_process(redis_url: str) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device()
    async with open_processes(redis_url) as (one, other):
        async with one.join(phone), other.join(tablet):
            assert await one.publish(desktop, event_type="hint", is_kept=False) == 0
            await one.device_events.publish(ANN, "mark", {})
            await phone.wait_type("mark")
            await tablet.wait_type("mark")
        assert await phone.take_types() == ["hint", "mark"]
        assert await tablet.take_types() == ["hint", "mark"]
        assert "eventId" not in (await phone.take())[0]


async def test_who_watches_hears_what_devices_do_not(redis_url: str) -> None:
    phone, desktop = build_device(), build_device("desktop")
    watcher = build_device()
    async with (
        open_process(redis_url) as one,
        one.join(phone),
        one.events.watch(ANN,
        watcher.member.outbox, None, lambda name: name != "boring"),
    ):
        await one.publish(None, event_type="balance-changed", is_for_watchers=True)
        await one.publish(desktop, event_type="boring")
        await one.publish(desktop, event_type="noted")
        assert await phone.take_types() == ["boring", "noted"]
        assert await watcher.take_types() == ["balance-changed", "noted"]


async def test_who_watches_from_a_number_on_gets_what_came_after_it(redis_url: str) -> None:
    watcher = build_device()
    async with open_process(redis_url) as one:
        ids = [await one.publish(None, is_for_watchers=True) for _ in range(5)]
        async with one.events.watch(ANN, watcher.member.outbox, ids[1], lambda _: True):
            assert await watcher.take_ids() == ids[2:]


async def test_nothing_is_left_of_a_user_who_has_gone(redis_url: str) -> None:
    phone = build_device()
    async with open_process(redis_url) as one:
        async with one.join(phone):
            pass
        assert one.events._lanes == {}
        channel = events_channel(ANN).encode()
        with trio.fail_after(5):
            while (await one.redis.pubsub_numsub(channel))[channel]:
                await trio.sleep(0.005)


async def test_an_event_that_is_too_large_to_keep_is_told_live_and_counts_as_a_gap_later(redis_url: str) -> None:
    desktop, phone, tablet = build_device("desktop"), build_device(), build_device()
    large = {"state": "x" * 300_000}
    async with open_processes(redis_url) as (one, other):
        async with one.join(phone), other.join(tablet):
            before = await one.publish(desktop)
            await one.publish(desktop, large)
            after = await one.publish(desktop)
            await tablet.wait_ids(3)
            assert await phone.take_payloads() == [{}, large, {}]
            assert await tablet.take_payloads() == [{}, large, {}]
        late = build_device()
        async with one.join(late, before):
            assert await late.take_types() == ["event-replay-gap", "noted"]
            assert await late.take_ids() == [after]


async def test_a_gap_is_told_once_and_first_without_a_number(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url, bounds=Bounds(most_entries=20)) as one:
        ids = [await one.publish(desktop) for _ in range(60)]
        async with one.join(phone, ids[10]):
            gap, *rest = await phone.take()
            assert gap["payload"] == {
                "eventType": "event-replay-gap",
                "payload": {"lastEventId": ids[10], "oldestBufferedId": ids[40], "latestBufferedId": ids[-1]},
            }
            assert "eventId" not in gap
            assert [frame["eventId"] for frame in rest] == ids[40:]


@pytest.mark.parametrize("missed", [0, 1])
async def test_the_gap_begins_with_the_first_event_that_is_missed(redis_url: str, missed: int) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url, bounds=Bounds(most_entries=20)) as one:
        ids = [await one.publish(desktop) for _ in range(60)]
        async with one.join(phone, ids[39 - missed]):
            assert (await phone.take_types()).count("event-replay-gap") == missed
            assert await phone.take_ids() == ids[40:]


async def test_a_desktop_misses_nothing_of_its_own_events_that_are_gone(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_process(redis_url, bounds=Bounds(most_entries=20)) as one:
        first = await one.publish(phone)
        for _ in range(60):
            await one.publish(desktop)
        async with one.join(desktop, first):
            assert await desktop.take() == []


async def test_an_event_is_told_before_what_was_sent_after_it_whatever_its_way(redis_url: str) -> None:
    desktop, phone = build_device("desktop"), build_device()
    async with open_processes(redis_url) as (one, other), other.join(phone):
        event_id = await one.publish(desktop)
        await other.events.catch_up(ANN, event_id)
        assert await phone.take_ids() == [event_id]
        await other.events.catch_up(uuid4(), event_id)


async def publish_many(process: Process, source: Device, count: int) -> None:
    for _ in range(count):
        await process.publish(source)
