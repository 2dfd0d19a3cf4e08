"""What a registered device says, and what follows from it."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import trio

import server.presence
from server.relay import conversation
from server.relay.side_effects import HINT
from storage.devices import Device
from tests.server.relay.device_stage import Socket, Stage, open_stage, register

IDS = {"jobId": "j1", "sessionId": "s1"}


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0)


@pytest.fixture
async def stage(database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, redis_url) as stage:
        yield stage


async def find_noted(stage: Stage, device_id: UUID, is_meant: object) -> Device:
    """What the device is noted to be, once it is as meant."""
    assert callable(is_meant)
    with trio.fail_after(5):
        while True:
            device = await stage.devices.find(stage.user_id, device_id)
            assert device is not None
            if is_meant(device):
                return device
            await trio.sleep(0.01)


def publish(socket: Socket, event_type: str, payload: object) -> None:
    socket.say("event", {"eventType": event_type, "payload": payload})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalidJson"),
        ('{"type":"ping","a_b":1}', "invalidPayload"),
        ('{"type":"teleport"}', "unknownMessageType"),
        ("[]", "unknownMessageType"),
        ('{"type":"rpc.request","payload":[]}', "invalidPayload"),
        ('{"type":"rpc.request","payload":{}}', "missingMethod"),
        ('{"type":"rpc.response","payload":{"id":"1"}}', "missingClientId"),
        ('{"type":"event","payload":{"eventType":"job:created","payload":{}}}', "invalidPayload"),
        ('{"type":"terminal.binary.bind"}', "missingPayload"),
        ('{"type":"terminal.binary.unbind","payload":{}}', "missingSessionId"),
        ('{"type":"register"}', "invalidPayload"),
        ('{"type":"register","payload":{"deviceId":1}}', "missingDeviceId"),
        ('{"type":"register","payload":{"deviceId":"desk"}}', "invalidDeviceId"),
    ],
)
async def test_what_cannot_be_carried_out_is_answered_with_an_error(stage: Stage, text: str, code: str) -> None:
    socket = await stage.register()
    after = len(socket.heard)
    socket.say_raw(text)
    error = await socket.wait_type("error", after=after)
    assert error["code"] == code
    assert set(error) == {"type", "code", "message", "timestamp"}
    await socket.settle()
    assert socket.closed is None


async def test_a_call_goes_to_the_desktop_and_its_answer_comes_back(stage: Stage) -> None:
    phone_id = uuid4()
    desktop, phone = await stage.register("desktop"), await stage.register(device_id=phone_id)
    phone.say("rpc.request", {"id": "7", "method": "session.get", "params": {"a": 1}})
    request = await desktop.wait_type("rpc.request")
    owner = {"clientId": str(phone_id), "userId": str(stage.user_id)}
    assert request["payload"] == {"id": "7", "method": "session.get", "params": {"a": 1}, **owner}
    answer = {"id": "7", "result": {"b": 2}, "error": None, "isFinal": True}
    desktop.say("rpc.response", {"clientId": str(phone_id), **answer})
    assert (await phone.wait_type("rpc.response"))["payload"] == answer


async def test_a_call_that_is_wrong_is_answered_with_its_id(stage: Stage) -> None:
    phone = await stage.register()
    answer = await phone.ask("rpc.request", {"id": "7", "method": "session.syncHistoryState", "params": {}})
    assert (answer["type"], answer["payload"]["id"]) == ("rpc.response", "7")
    assert answer["payload"]["error"]["code"] == -32602
    large = await phone.ask("rpc.request", {"id": "8", "method": "m", "params": "x" * 9_000_000})
    assert (large["payload"]["id"], large["payload"]["error"]["code"]) == ("8", -32600)


async def test_without_a_desktop_a_call_is_answered_at_once(stage: Stage) -> None:
    answer = await (await stage.register()).ask("rpc.request", {"id": "7", "method": "m"})
    assert answer["payload"]["error"] == {"code": -32010, "message": "Desktop is offline"}


async def test_an_event_comes_to_the_others_and_an_answer_after_it_comes_after_it(stage: Stage) -> None:
    phone_id = uuid4()
    desktop, phone = await stage.register("desktop"), await stage.register(device_id=phone_id)
    phone.say("rpc.request", {"id": "7", "method": "m"})
    await desktop.wait_type("rpc.request")
    publish(desktop, "session-updated", {"n": 1})
    desktop.say("rpc.response", {"clientId": str(phone_id), "id": "7", "result": None})
    await phone.wait_type("rpc.response")
    (told,) = phone.list_events("session-updated")
    (teller,) = [one for one in stage.relays[0].parts.hub.members.values() if one.is_desktop]
    assert teller.last_event_id == told["eventId"]
    kinds = [one["type"] for one in phone.heard if one["type"] == "rpc.response" or "eventId" in one]
    assert kinds == ["event", "rpc.response"]
    assert not desktop.list_events("session-updated")


async def test_a_job_that_runs_hints_at_its_session_before_its_event(stage: Stage) -> None:
    desktop, phone = await stage.register("desktop"), await stage.register()
    publish(desktop, "job:status-changed", {**IDS, "status": "running"})
    event = await phone.wait_event("job:status-changed")
    hint = await phone.wait_event(HINT)
    assert hint["payload"]["payload"] == {"sessionId": "s1"}
    assert "eventId" not in hint
    assert phone.heard.index(hint) < phone.heard.index(event)


async def test_of_heartbeats_only_a_desktop_hints_and_only_at_what_is_new(stage: Stage) -> None:
    desktop, phone = await stage.register("desktop"), await stage.register()
    for socket, session in [(desktop, "s1"), (phone, "s9"), (desktop, "s1"), (desktop, None), (desktop, "s2")]:
        assert await socket.ask("heartbeat", {"activeSessionId": session}) == {"type": "pong"}
    publish(desktop, "session-updated", {})
    await phone.wait_event("session-updated")
    assert [one["payload"]["payload"] for one in phone.list_events(HINT)] == [{"sessionId": "s1"}, {"sessionId": "s2"}]
    assert not desktop.list_events(HINT)


async def test_heartbeats_are_noted(stage: Stage) -> None:
    device_id = uuid4()
    desktop = await stage.register("desktop", device_id=device_id)
    nothing = dict.fromkeys(("cpuUsage", "memoryUsage", "diskSpaceGb", "activeJobs"))
    desktop.say("heartbeat", {"status": "online", **nothing, "activeJobs": 3})
    noted = await find_noted(stage, device_id, lambda device: device.active_jobs == 3)
    assert noted.status == "online"
    assert noted.last_heartbeat is not None


async def test_a_storm_of_heartbeats_is_answered_and_hardly_noted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[object] = []

    async def note(*values: object) -> datetime:
        notes.append(values)
        return datetime.now(UTC)

    monkeypatch.setattr(type(stage.devices), "note_heartbeat", note)
    desktop = await stage.register("desktop")
    for number in range(100):
        desktop.say("heartbeat", {"activeJobs": number})
    await desktop.wait(lambda _: sum(one["type"] == "pong" for one in desktop.heard) == 100)
    assert len(notes) == 1


async def test_a_device_that_had_to_make_room_registers_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    device_id = uuid4()
    desktop = await stage.register("desktop", device_id=device_id)
    await stage.devices.unlink(stage.user_id, device_id)
    desktop.say("heartbeat", {})
    assert await desktop.wait_closed() == conversation.UNLINKED
    assert device_id not in await stage.relays[0].presence.list_links(stage.user_id)
    await stage.register("desktop", device_id=device_id)


async def test_a_project_directory_is_noted(stage: Stage) -> None:
    device_id = uuid4()
    desktop = await stage.register("desktop", device_id=device_id)
    publish(desktop, "project-directory-updated", {"projectDirectory": "/home/me"})
    noted = await find_noted(stage, device_id, lambda device: device.capabilities)
    assert noted.capabilities == {"activeProjectDirectory": "/home/me"}


async def test_a_desktop_that_is_hidden_is_closed_and_offline_to_its_peers(stage: Stage) -> None:
    device_id = uuid4()
    desktop, phone = await stage.register("desktop", device_id=device_id), await stage.register()
    publish(desktop, "device-visibility-updated", {"visible": False})
    assert await desktop.wait_closed() == conversation.HIDDEN
    await phone.wait_event("device-visibility-updated")
    await phone.wait(lambda one: one["type"] == "event" and one["payload"]["payload"].get("status") == "offline")
    await find_noted(stage, device_id, lambda device: not device.relay_eligible)
    back = stage.connect("desktop")
    await register(back, device_id)
    assert (await phone.ask("rpc.request", {"id": "1", "method": "m"}))["payload"]["error"]["code"] == -32010
    publish(back, "device-visibility-updated", {"visible": True})
    await back.settle()
    phone.say("rpc.request", {"id": "2", "method": "m"})
    assert (await back.wait_type("rpc.request"))["payload"]["id"] == "2"


async def test_a_terminal_is_bound_shown_and_unbound(stage: Stage) -> None:
    desktop, phone = await stage.register("desktop"), await stage.register()
    phone.say("terminal.binary.bind", {"sessionId": "t-1"})
    bind = await desktop.wait_type("terminal.binary.bind")
    assert bind["payload"] == {"sessionId": "t-1", "includeSnapshot": True, "forceSnapshot": False}
    desktop.say_raw(b"PTC1\0\x03t-1hi")
    assert await phone.wait(lambda one: isinstance(one, bytes)) == b"PTC1\0\x03t-1hi"
    assert phone.heard[-2] == {"type": "terminal.binary.bound", "payload": {"sessionId": "t-1"}}


async def test_an_acknowledgement_is_where_a_resumed_device_goes_on(stage: Stage) -> None:
    phone_id, phone = uuid4(), stage.connect()
    desktop = await stage.register("desktop")
    registered = await register(phone, phone_id)
    for number in range(3):
        publish(desktop, "session-updated", {"n": number})
    await desktop.settle()
    await phone.wait(lambda _: len(phone.list_events("session-updated")) == 3)
    phone.say("event-ack", {"lastEventId": phone.list_events("session-updated")[0]["eventId"]})
    phone.say("event-ack", {"lastEventId": "junk"})
    await phone.settle()
    phone.leave()
    await phone.over.wait()
    again = stage.connect()
    members = {"sessionId": registered["sessionId"], "resumeToken": registered["resumeToken"]}
    assert (await register(again, phone_id, **members))["type"] == "resumed"
    await again.wait(lambda _: len(again.list_events("session-updated")) == 2)
    assert [one["payload"]["payload"]["n"] for one in again.list_events("session-updated")] == [1, 2]


async def test_what_is_large_and_full_of_underscores_is_passed_on_whole(stage: Stage) -> None:
    desktop, phone_id = await stage.register("desktop"), uuid4()
    phone = await stage.register(device_id=phone_id)
    phone.say("rpc.request", {"id": "7", "method": "fs.read"})
    await desktop.wait_type("rpc.request")
    content = base64.b64encode(bytes(1_500_000)).decode() + "_x" * 1000
    desktop.say_raw(
        json.dumps({"type": "rpc.response", "payload": {"clientId": str(phone_id), "id": "7", "result": content}})
    )
    assert (await phone.wait_type("rpc.response"))["payload"]["result"] == content
