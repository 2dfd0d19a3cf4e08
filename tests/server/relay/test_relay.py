"""The relay as a whole, on one process and on two: devices that find each other, whatever they are connected to."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import trio

import server.presence
from storage.relay_sessions import relay_sessions_key
from tests.server.relay.device_stage import Stage, open_stage, register


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0)


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
async def stage(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, redis_url, request.param) as stage:
        yield stage


async def test_the_good_case(stage: Stage) -> None:
    phone_id, desktop_id = uuid4(), uuid4()
    desktop = await stage.register("desktop", device_id=desktop_id)
    phone = await stage.register(at=-1, device_id=phone_id)
    assert (await desktop.wait_event("device-status"))["payload"]["payload"]["deviceId"] == str(phone_id)
    phone.say("rpc.request", {"id": "1", "method": "system.ping"})
    request = await desktop.wait_type("rpc.request")
    desktop.say("event", {"eventType": "session-updated", "payload": {"n": 1}})
    desktop.say("rpc.response", {"clientId": request["payload"]["clientId"], "id": "1", "result": {"pong": True}})
    answer = await phone.wait_type("rpc.response")
    event = await phone.wait_event("session-updated")
    assert phone.heard.index(event) < phone.heard.index(answer)
    assert event["sourceDeviceId"] == str(desktop_id)
    phone.say("terminal.binary.bind", {"sessionId": "t-1"})
    await desktop.wait_type("terminal.binary.bind")
    desktop.say_raw(b"PTC1\0\x03t-1hi")
    assert await phone.wait(lambda one: isinstance(one, bytes)) == b"PTC1\0\x03t-1hi"
    desktop.leave()
    gone = await phone.wait(lambda one: isinstance(one, dict) and "disconnected" in str(one))
    assert gone["payload"]["payload"] == {"deviceId": str(desktop_id), "status": "disconnected", "reason": "ws_closed"}
    answer = await phone.ask("rpc.request", {"id": "2", "method": "m"})
    assert answer["payload"]["error"]["code"] == -32010


async def test_a_device_resumes_on_another_process_and_has_missed_nothing(stage: Stage) -> None:
    desktop, phone, phone_id = await stage.register("desktop"), stage.connect(), uuid4()
    registered = await register(phone, phone_id)
    desktop.say("event", {"eventType": "session-updated", "payload": {"n": 0}})
    last = (await phone.wait_event("session-updated"))["eventId"]
    phone.leave()
    await phone.over.wait()
    for number in range(1, 50):
        desktop.say("event", {"eventType": "session-updated", "payload": {"n": number}})
    await desktop.settle()
    again = stage.connect(at=-1)
    credentials = {"sessionId": registered["sessionId"], "resumeToken": registered["resumeToken"]}
    assert (await register(again, phone_id, lastEventId=last, **credentials))["type"] == "resumed"
    await again.wait(lambda _: len(again.list_events("session-updated")) == 49)
    assert [one["payload"]["payload"]["n"] for one in again.list_events("session-updated")] == list(range(1, 50))


async def test_a_device_that_is_forgotten_resumes_nothing(stage: Stage) -> None:
    device_id, socket = uuid4(), stage.connect()
    registered = await register(socket, device_id)
    await stage.relays[-1].forget_device(stage.user_id, device_id)
    assert not await stage.redis.exists([relay_sessions_key(stage.user_id)])
    members = {"sessionId": registered["sessionId"], "resumeToken": registered["resumeToken"]}
    assert (await register(stage.connect(at=-1), device_id, **members))["code"] == "invalidResume"


async def test_many_devices_come_and_go_and_nothing_is_left(stage: Stage) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(visit, stage, "desktop" if number % 4 == 0 else "mobile", number % 2 * -1)
    for relay in stage.relays:
        parts = relay.parts
        with trio.fail_after(5):
            while parts.departures.waiting or parts.sockets.count:
                await trio.sleep(0.01)
        assert not parts.hub.members
        assert parts.calls.pending == 0
    assert await stage.relays[0].presence.list_links(stage.user_id) == {}


async def visit(stage: Stage, client_type: str, at: int) -> None:
    socket = await stage.register(client_type, at=at)
    socket.say("rpc.request", {"id": "1", "method": "m"})
    socket.say("event", {"eventType": "session-updated", "payload": {}})
    await socket.settle()
    socket.leave()
    await socket.over.wait()
