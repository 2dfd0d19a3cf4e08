"""Servers that stop, are killed, or lose Redis, with everything under way."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from scripts.device_link.methods import Answer
from scripts.device_link.phone import CallFailed
from tests.end_to_end.cloche import Cloche, Stores
from tests.end_to_end.relay_counting import count_out
from tests.end_to_end.relay_scene import (
    Machine,
    Pocket,
    Scene,
    beat,
    check_ids,
    events_of,
    is_event,
    numbers_of,
    open_scene,
    publish_numbers,
    wait_back,
)
from tests.end_to_end.test_relay_terminals import PIECE_BYTES, open_bound, wait_story, write_all
from tests.storage.redis_server import RedisServer

RESTARTS = 1012
AGAIN_SECONDS = 8
"""In which everybody is back after a stop: three seconds of jitter, and what a loaded machine adds."""
EXPIRY_SECONDS = 10
"""After its last sign a process counts as gone."""
MEBIBYTE = 1024 * 1024


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def replace_server(scene: Scene, end: Callable[[Cloche], None]) -> None:
    """The first server ends; who was there goes to the last, which is a new one if there was only one."""
    ended = scene.first
    if len(scene.servers) == 1:
        await scene.add_server()
    for device in scene.devices:
        if device.url == ended.url:
            device.url = scene.last.url
    end(ended)


def terminate(cloche: Cloche) -> None:
    cloche.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("count", [1, 2])
async def test_of_a_server_that_stops_all_devices_resume_elsewhere_and_ids_go_on(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await publish_numbers(desktop.device, range(5))
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 5)
        started = trio.current_time()
        await replace_server(scene, terminate)
        moved = [desktop.device] if count == 2 else [desktop.device, phone.device]
        for device in moved:
            await wait_back(device, 2)
        print(f"back after {trio.current_time() - started:.2f} s")
        assert trio.current_time() - started < AGAIN_SECONDS
        assert {device.endings[0].code for device in moved} == {RESTARTS}
        await publish_numbers(desktop.device, range(5, 10))
        await phone.device.wait_heard(is_event("session-updated", number=9))
        assert numbers_of(events_of(phone.device)) == list(range(10))
        assert [device.invalid_resumes for device in (desktop.device, phone.device)] == [0, 0]
        assert await phone.app.call("echo", 1) == 1
        check_ids(phone.device)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_server_that_stops_in_a_burst_loses_nothing_of_it(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        await replace_server(scene, terminate)
        written = 0
        while desktop.device.registrations < 2 or not desktop.app.terminals.open("t-1").is_bound:
            await write_all(desktop, written, PIECE_BYTES)
            written += PIECE_BYTES
            await trio.sleep(0.05)
        story = await wait_story(phone, written)
        assert (story.start, story.end, story.holes) == (0, written, ())
        assert desktop.device.endings[0].code == RESTARTS
        assert desktop.app.terminals.lost_bytes == 0
        assert not any(bind["forceSnapshot"] for bind in desktop.app.binds)


async def quick(params: Any) -> Answer:
    return params, None


async def hang(_params: Any) -> Answer:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("count", [1, 2])
async def test_after_kill_9_of_the_desktops_server_everything_goes_on(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, MEBIBYTE)
        await wait_story(phone, MEBIBYTE)
        await publish_numbers(desktop.device, range(5))
        desktop.app.add_method("hang", hang)
        answers: dict[str, Any] = {}
        async with trio.open_nursery() as nursery:
            if count == 2:
                nursery.start_soon(note_answer, phone, "plain", None, answers)
                nursery.start_soon(note_answer, phone, "keyed", "k", answers)
                await desktop.device.wait_for(lambda: len(desktop.app.calls) == 2)
            desktop.app.add_method("hang", quick)
            await replace_server(scene, Cloche.kill)
            await wait_back(desktop.device, 2)
            await wait_back(phone.device, 1 if count == 2 else 2)
        if count == 2:
            assert answers == {"plain": "-32010 Desktop is offline", "keyed": {"id": "keyed"}}
        await publish_numbers(desktop.device, range(5, 10))
        await phone.device.wait_heard(is_event("session-updated", number=9))
        assert numbers_of(events_of(phone.device)) == list(range(10))
        assert [device.invalid_resumes for device in (desktop.device, phone.device)] == [0, 0]
        check_ids(phone.device)
        assert await phone.app.call("echo", 1) == 1
        await desktop.device.wait_for(lambda: desktop.app.terminals.open("t-1").is_bound)
        await write_all(desktop, MEBIBYTE, MEBIBYTE)
        story = await wait_story(phone, 2 * MEBIBYTE)
        print(f"after kill -9: {story.repeated_bytes} bytes again, holes {story.holes}")
        assert (story.start, story.end, story.holes) == (0, 2 * MEBIBYTE, ())


async def note_answer(phone: Pocket, name: str, key: str | None, answers: dict[str, Any]) -> None:
    try:
        answers[name] = await phone.app.call("hang", {"id": name}, id_=name, key=key)
    except CallFailed as error:
        answers[name] = str(error)


async def test_after_kill_9_of_the_phones_server_it_is_back_elsewhere_and_peers_were_told_nothing_wrong(
    stores: Stores,
) -> None:
    async with open_scene(stores, 2) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, MEBIBYTE)
        await wait_story(phone, MEBIBYTE)
        scene.servers.reverse()
        await replace_server(scene, Cloche.kill)
        await publish_numbers(desktop.device, range(10))
        await write_all(desktop, MEBIBYTE, 2 * MEBIBYTE)
        story = await wait_story(phone, 3 * MEBIBYTE, seconds=40)
        assert (story.start, story.end, story.holes) == (0, 3 * MEBIBYTE, ())
        await phone.device.wait_for(lambda: len(events_of(phone.device)) == 10)
        assert numbers_of(events_of(phone.device)) == list(range(10))
        assert await phone.app.call("echo", 1) == 1
        assert phone.device.invalid_resumes == 0


async def test_the_peers_of_a_server_that_is_gone_for_good_are_told_that_its_devices_are(stores: Stores) -> None:
    async with open_scene(stores, 2) as scene:
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        started, start = trio.current_time(), len(phone.device.received)
        desktop.device.url = "http://127.0.0.1:9"
        scene.first.kill()
        with pytest.raises(CallFailed, match="-32010"):
            await phone.app.call("session.get", {"sessionId": "s"})
        print(f"a call was answered after {trio.current_time() - started:.1f} s")
        assert trio.current_time() - started < EXPIRY_SECONDS + AGAIN_SECONDS
        gone = is_event("device-status", deviceId=desktop.device.device_id, status="disconnected")
        await phone.device.wait_heard(gone, start, 20)
        print(f"the phone was told after {trio.current_time() - started:.1f} s")


async def test_while_redis_is_away_devices_of_one_server_go_on_and_others_are_offline(
    stores: Stores, own_redis: RedisServer
) -> None:
    async with open_scene(replace(stores, redis_url=own_redis.url), 2) as scene:
        desktop, near = await scene.open_desktop(scene.first), await scene.open_phone(scene.first)
        far = await scene.open_phone(scene.last)
        await publish_numbers(desktop.device, [0])
        await far.device.wait_heard(is_event("session-updated", number=0))
        own_redis.kill()
        for number in range(20):
            assert await near.app.call("echo", number) == number
        with trio.fail_after(12), pytest.raises(CallFailed, match="-32010"):
            await far.app.call("session.get", {"sessionId": "s"})
        await desktop.device.publish("session-updated", {"number": 1})
        await near.device.wait_heard(is_event("session-updated", number=1))
        own_redis.start()
        with trio.fail_after(20):
            while not await answers(far):
                await trio.sleep(0.1)
        await publish_numbers(desktop.device, [2])
        await far.device.wait_heard(is_event("session-updated", number=2), seconds=20)
        check_ids(far.device)


async def answers(phone: Pocket) -> bool:
    try:
        return bool(await phone.app.call("echo", 1) == 1)
    except CallFailed:
        return False


async def test_a_device_that_registers_while_redis_is_away_can_be_used_at_once(
    stores: Stores, own_redis: RedisServer
) -> None:
    async with open_scene(replace(stores, redis_url=own_redis.url), 1) as scene:
        desktop = await scene.open_desktop()
        own_redis.kill()
        phone = await scene.open_phone()
        assert await phone.app.call("echo", 1) == 1
        desktop.device.cut()
        await wait_back(desktop.device, 2)
        assert await phone.app.call("echo", 2) == 2
        own_redis.start()
        await beat(phone.device)
        await wait_numbered(desktop, phone)


async def wait_numbered(desktop: Machine, phone: Pocket) -> None:
    """Events are numbered again, and reach who registered meanwhile."""
    with trio.fail_after(20):
        number = 0
        while not events_of(phone.device):
            number += 1
            await desktop.device.publish("session-updated", {"number": number})
            await trio.sleep(0.1)
    assert await phone.app.call("echo", 3) == 3
    check_ids(phone.device)


@pytest.mark.soak
@pytest.mark.parametrize("stopped", [0, 1], ids=["the desktop's", "the phone's"])
async def test_a_server_that_is_stopped_for_twelve_seconds_goes_on_and_nothing_stays_wrong(
    stores: Stores, stopped: int
) -> None:
    async with open_scene(stores, 2) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, MEBIBYTE)
        await wait_story(phone, MEBIBYTE)
        process = scene.servers[stopped].process
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(12)
        process.send_signal(signal.SIGCONT)
        with trio.fail_after(15):
            while not await answers(phone):
                await trio.sleep(0.2)
        await publish_numbers(desktop.device, range(5))
        await phone.device.wait_heard(is_event("session-updated", number=4))
        await desktop.app.terminals.write("t-1", count_out(MEBIBYTE, MEBIBYTE))
        story = await wait_story(phone, 2 * MEBIBYTE, seconds=30)
        assert (story.start, story.end, story.holes) == (0, 2 * MEBIBYTE, ())
        check_ids(phone.device)
