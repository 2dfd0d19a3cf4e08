"""Events: each once, in order, to whom they are for, whoever was away meanwhile."""

from contextlib import AsyncExitStack

import pytest
import trio

from scripts.device_link.device import Device
from tests.end_to_end.cloche import Stores
from tests.end_to_end.relay_scene import (
    Scene,
    beat,
    check_ids,
    events_of,
    is_event,
    make_identity,
    numbers_of,
    open_scene,
    publish_numbers,
    receive,
    register,
)

KEPT = 2000


@pytest.mark.parametrize(("count", "comes_back_to"), [(1, 0), (2, 1), (2, 0)])
async def test_six_hundred_events_of_while_the_phone_was_away_come_once_in_order_and_none_of_its_own(
    stores: Stores, count: int, comes_back_to: int
) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await publish_numbers(desktop.device, [0])
        await phone.device.wait_for(lambda: events_of(phone.device))
        await phone.device.publish("session-updated", {"sessionId": "s9", "number": -1})
        await beat(phone.device)
        scene.stop(phone.device)
        await publish_numbers(desktop.device, range(1, 601))
        scene.move(phone.device, scene.servers[comes_back_to])
        await scene.open(phone.device)
        await publish_numbers(desktop.device, [601])
        await phone.device.wait_heard(is_event("session-updated", number=601))
        assert numbers_of(events_of(phone.device)) == list(range(602))
        assert phone.device.invalid_resumes == 0
        assert events_of(phone.device, "event-replay-gap") == []
        check_ids(phone.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_of_more_than_is_kept_one_gap_is_told_first_then_what_there_is(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await publish_numbers(desktop.device, [0])
        await phone.device.wait_for(lambda: events_of(phone.device))
        scene.stop(phone.device)
        seen, start = phone.device.memory.last_event_id, len(phone.device.received)
        await publish_numbers(desktop.device, range(1, KEPT + 101))
        await scene.open(phone.device)
        await phone.device.wait_heard(is_event("session-updated", number=KEPT + 100), start)
        back = [one for one in phone.device.received[start:] if isinstance(one, dict) and one["type"] == "event"]
        gap, *rest = [one for one in back if one["payload"]["eventType"] != "device-status"]
        assert (gap["payload"]["eventType"], "eventId" in gap) == ("event-replay-gap", False)
        told = gap["payload"]["payload"]
        assert told["lastEventId"] == seen
        assert (told["oldestBufferedId"], told["latestBufferedId"]) == (rest[0]["eventId"], rest[-1]["eventId"])
        assert numbers_of(rest) == list(range(101, KEPT + 101))
        check_ids(phone.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_two_hundred_messages_of_a_second_all_arrive(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        started = trio.current_time()
        for number in range(200):
            await desktop.device.publish("job:stream-progress", {"jobId": "j", "sessionId": "s", "number": number})
        assert trio.current_time() - started < 1
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 200)
        assert numbers_of(events_of(phone.device)) == list(range(200))
        check_ids(phone.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_device_that_does_not_say_what_it_is_hears_events_and_calls(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        other = await scene.open_phone(client_type="")
        assert await other.app.call("echo", {"deep": [1, {"camelCase": 2**60}]}) == {"deep": [1, {"camelCase": 2**60}]}
        await publish_numbers(desktop.device, range(3))
        await other.device.wait_for(lambda: len(events_of(other.device)) == 3)
        assert numbers_of(events_of(other.device)) == [0, 1, 2]
        start = len(desktop.device.received)
        await other.device.publish("active-session-changed", {"sessionId": "s1"})
        await desktop.device.wait_heard(is_event("active-session-changed", sessionId="s1"), start)


@pytest.mark.parametrize("count", [1, 2])
async def test_events_of_several_devices_come_to_all_others_in_one_order(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        phones = [await scene.open_phone(server) for server in (scene.first, scene.last, scene.last)]
        async with trio.open_nursery() as nursery:
            for number, phone in enumerate(phones):
                numbers = range(number * 100, number * 100 + 50)
                nursery.start_soon(publish_numbers, phone.device, numbers)
            nursery.start_soon(publish_numbers, desktop.device, range(900, 950))
        await desktop.device.wait_for(lambda: len(events_of(desktop.device)) == 150)
        order = [event["eventId"] for event in events_of(desktop.device)]
        for number, phone in enumerate(phones):
            await wait_events(phone.device, 150)
            check_ids(phone.device)
            assert not {*range(number * 100, number * 100 + 50)} & {*numbers_of(events_of(phone.device))}
            common = [event["eventId"] for event in events_of(phone.device) if event["eventId"] in order]
            assert common == [one for one in order if one in common]
        check_ids(desktop.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_response_does_not_overtake_the_events_before_it(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()

        async def tell_and_answer(params: dict[str, int]) -> tuple[object, None]:
            for number in range(10):
                await desktop.device.publish("session-updated", {"number": params["number"] * 10 + number})
            return {"number": params["number"]}, None

        desktop.app.add_method("tell", tell_and_answer)
        for number in range(10):
            await phone.app.call("tell", {"number": number})
            assert numbers_of(events_of(phone.device)) == list(range(number * 10 + 10))


async def wait_events(device: Device, count: int) -> None:
    await device.wait_for(lambda: len(events_of(device)) == count)


async def open_history(scene: Scene) -> None:
    """History states of two kinds, of which the newest counts, and what is never kept."""
    desktop = await scene.open_desktop()
    for number in range(5):
        for kind in ("task", "files"):
            await desktop.device.publish("history-state-changed", {"sessionId": "s", "kind": kind, "number": number})
        ids = {"jobId": "j", "sessionId": "s"}
        await desktop.device.publish("job:response-appended", {**ids, "chunk": "", "number": 100 + number})
    await desktop.device.publish("session-updated", {"number": 200, "text": "x" * 300_000})
    await publish_numbers(desktop.device, [300])


@pytest.mark.parametrize("count", [1, 2])
async def test_only_what_is_worth_it_is_replayed(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        phone = await scene.open_phone()
        await phone.device.publish("active-session-changed", {"sessionId": "s"})
        await beat(phone.device)
        await open_history(scene)
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 12)
        live = [event for event in phone.device.events if event["payload"]["eventType"] != "device-status"]
        assert len(live) == 17
        first = events_of(phone.device)[0]["eventId"]
        other = make_identity(scene.owner, "mobile")
        link = await scene.open_bare(stack, device_id=other.device_id)
        assert (await register(link, other.device_id, lastEventId=first - 1))["type"] == "registered"
        gap, *replayed = [await receive(link) for _ in range(4)]
        assert gap["payload"]["eventType"] == "event-replay-gap"  # the long one is told to who is there, and not kept
        assert [one["payload"]["eventType"] for one in replayed[:2]] == ["history-state-changed"] * 2
        assert numbers_of(replayed) == [4, 4, 300]


@pytest.mark.parametrize("count", [1, 2])
async def test_who_registers_anew_and_names_no_event_is_told_none_of_before(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        await publish_numbers(desktop.device, range(5))
        phone = await scene.open_phone()
        await publish_numbers(desktop.device, [5])
        await phone.device.wait_for(lambda: events_of(phone.device))
        assert numbers_of(events_of(phone.device)) == [5]


@pytest.mark.parametrize("count", [1, 2])
async def test_who_resumes_and_names_no_event_is_told_what_it_has_not_acknowledged(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await publish_numbers(desktop.device, range(3))
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 3)
        second = events_of(phone.device)[1]["eventId"]
        await phone.device.say("event-ack", {"lastEventId": second})
        await beat(phone.device)
        scene.stop(phone.device)
        phone.device.memory.last_event_id = None
        start = len(phone.device.received)
        await scene.open(phone.device)
        await phone.device.wait_for(lambda: events_of(phone.device, start=start))
        assert numbers_of(events_of(phone.device, start=start)) == [2]


@pytest.mark.parametrize("count", [1, 2])
async def test_what_a_resumed_device_was_about_to_be_told_when_it_was_cut_off_is_told_again(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        desktop = await scene.open_desktop()
        identity = make_identity(scene.owner, "mobile")
        first, second, third = [await scene.open_bare(stack, device_id=identity.device_id) for _ in range(3)]
        registered = await register(first, identity.device_id)
        first.cut()
        await publish_numbers(desktop.device, [1])
        resume = {name: registered[name] for name in ("sessionId", "resumeToken")}
        assert (await register(second, identity.device_id, **resume))["type"] == "resumed"
        assert numbers_of([await receive(second)]) == [1]  # and forgets it
        second.cut()
        assert (await register(third, identity.device_id, **resume))["type"] == "resumed"
        assert numbers_of([await receive(third)]) == [1]


@pytest.mark.parametrize("count", [1, 2])
async def test_what_a_device_says_right_before_it_leaves_is_heard(stores: Stores, count: int) -> None:
    """Although it takes no answers any more."""
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        phone = await scene.open_phone()
        identity = make_identity(scene.owner, "desktop")
        link = await scene.open_bare(stack, scene.first, client_type="desktop", device_id=identity.device_id)
        assert (await register(link, identity.device_id))["type"] == "registered"
        for number in range(100):
            await link.send("event", {"eventType": "session-updated", "payload": {"number": number}})
            await link.send("heartbeat", {})
        await link.leave()
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 100)
        assert numbers_of(events_of(phone.device)) == list(range(100))
