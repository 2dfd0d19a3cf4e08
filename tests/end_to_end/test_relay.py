"""Two devices of a user find each other, on one server and on two: the good case, frame by frame.

Where each of the protocol's scenarios is shown; all with one server and again with two, unless it says otherwise:

     1  the good case                             here
     2  the phone is cut in a burst               test_relay_terminals.py
     3  the desktop is cut in a burst             test_relay_terminals.py
     4  events while the phone is away            test_relay_events.py
     5  a server restarts                         test_relay_restarts.py
     6  the desktop drops with calls pending      test_relay_calls.py
     7  a desktop's socket is replaced            test_relay_desktops.py
     8  two desktops                              test_relay_desktops.py
     9  two hundred messages in a second          test_relay_events.py
    10  dates that the phone can decode           test_devices.py: over HTTP alone
    11  foreign devices                           test_devices.py over HTTP, test_relay_endings.py for sockets
    12  a sign-out                                test_relay_endings.py
    13  pushes                                    test_push.py, test_push_answers.py, and below: connected or not
    14  fragments, sizes, broken session ids      test_relay_calls.py, test_relay_terminals.py
    15  no client type                            test_relay_events.py
"""

from collections import Counter
from typing import Any

import pytest

from scripts.device_link.device import Heard
from scripts.device_link.phone import CallFailed, Phone
from tests.end_to_end.cloche import Stores
from tests.end_to_end.relay_scene import (
    Scene,
    as_customer,
    check_ids,
    events_of,
    is_event,
    is_status,
    open_scene,
)
from tests.end_to_end.test_devices import list_on_phone, register_desktop

NEW_EACH_TIME = {"sessionId": 32, "resumeToken": 48, "timestamp": 27, "expiresAt": 32}
"""With their length. Dates have microseconds and a Z; the one that the apps do not read has an offset."""
FRAME = b"PTC1\0\x03t-1hi"
SIZE = {"sessionId": "t-1", "cols": 80, "rows": 24}
START = {"jobId": "t-1", "cols": 80, "rows": 24}
STARTED = {"sessionId": "t-1", "workingDirectory": "/home/me", "shell": "echo", "initialLog": []}


def shape(heard: Heard) -> Any:
    """Without what is new each time, which has its length."""
    if isinstance(heard, bytes):
        return heard
    return {name: shape_member(name, value) for name, value in heard.items()}


def shape_member(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return shape(value)
    if name == "eventId":
        return int
    return len(value) if name in NEW_EACH_TIME and len(value) == NEW_EACH_TIME[name] else value


def registered(kind: str = "registered") -> dict[str, object]:
    names = ["sessionId", "expiresAt"] if kind == "resumed" else ["sessionId", "resumeToken", "expiresAt"]
    return {"type": kind, **{name: NEW_EACH_TIME[name] for name in names}}


def told(event_type: str, payload: object, source: str | None, **members: object) -> dict[str, object]:
    """An event as devices are told it."""
    return {
        "type": "event",
        "payload": {"eventType": event_type, "payload": payload},
        "targetDeviceId": None,
        "sourceDeviceId": source,
        "timestamp": NEW_EACH_TIME["timestamp"],
        **members,
    }


def answered(result: object) -> dict[str, object]:
    """The phone's ids are new each time."""
    return {"type": "rpc.response", "payload": {"result": result, "error": None, "isFinal": True}}


def without_ids(heard: Any) -> Any:
    """Of answers; what they are to is checked where they are taken."""
    if isinstance(heard, dict) and heard["type"] == "rpc.response":
        return {**heard, "payload": {name: value for name, value in heard["payload"].items() if name != "id"}}
    return heard


@pytest.mark.parametrize("count", [1, 2])
async def test_a_desktop_and_a_phone_go_through_the_good_case_frame_by_frame(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop(session="s1")
        await desktop.device.wait_heard(lambda message: message["type"] == "pong")
        phone = await scene.open_phone()
        ids = {"desktop": desktop.device.device_id, "phone": phone.device.device_id}
        await desktop.device.wait_heard(is_status(phone.device, "online"))
        await use_terminal(phone.app, scene)
        await desktop.device.wait_heard(lambda message: message["type"] == "terminal.binary.unbind")

        status = {"deviceId": ids["phone"], "status": "online"}
        of_phone = {"clientId": ids["phone"], "userId": str(scene.owner.user_id)}
        bind = {"sessionId": "t-1", "includeSnapshot": True, "forceSnapshot": False}
        assert [without_calls(shape(one)) for one in desktop.device.received] == [
            registered(),
            {"type": "pong"},
            told("device-status", status, None),
            ("system.ping", {}, of_phone),
            ("terminal.start", START, of_phone),
            ("terminal.resize", SIZE, of_phone),
            {"type": "terminal.binary.bind", "payload": bind},
            ("terminal.write", {"sessionId": "t-1", "data": "aGk="}, of_phone),
            ("terminal.kill", {"sessionId": "t-1"}, of_phone),
            {"type": "terminal.binary.unbind", "payload": {"sessionId": "t-1"}},
        ]
        heard = [without_ids(shape(one)) for one in phone.device.received]
        success = answered({"success": True})
        assert heard[:5] == [
            registered(),
            answered({"pong": True, "timestamp": 27}),
            answered(STARTED),
            success,
            {"type": "terminal.binary.bound", "payload": {"sessionId": "t-1"}},
        ]
        exited = told("terminal.exit", {"sessionId": "t-1", "code": 0, "timestamp": 27}, ids["desktop"], eventId=int)
        assert Counter(map(repr, heard[5:])) == Counter(map(repr, [FRAME, success, success, exited]))
        check_ids(phone.device)


async def use_terminal(phone: Phone, scene: Scene) -> None:
    (device,) = [one for one in scene.devices if one.identity.client_type == "mobile"]
    await phone.call("system.ping")
    await phone.call("terminal.start", START)
    await phone.call("terminal.resize", SIZE)
    await phone.bind("t-1")
    await device.wait_for(lambda: phone.bound["t-1"])
    await phone.call("terminal.write", {"sessionId": "t-1", "data": "aGk="})
    await device.wait_for(lambda: bytes(phone.output.get("t-1", b"")) == b"hi")
    await phone.call("terminal.kill", {"sessionId": "t-1"})
    await device.wait_heard(is_event("terminal.exit", sessionId="t-1"))
    await phone.unbind("t-1")


def without_calls(heard: Any) -> Any:
    """A call as method, params, and what the relay has added; its id is the phone's."""
    if heard["type"] != "rpc.request":
        return heard
    payload = dict(heard["payload"])
    assert len(payload.pop("id")) == 36
    if (key := payload.pop("idempotencyKey", None)) is not None:
        assert len(key) == 36
    return payload.pop("method"), payload.pop("params"), payload


@pytest.mark.parametrize("count", [1, 2])
async def test_a_phone_is_told_when_its_desktop_goes_and_when_it_is_back(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        phone = await scene.open_phone()
        desktop = await scene.open_desktop()
        customer = as_customer(desktop.device, scene.owner)
        await register_desktop(scene.first, customer)
        await phone.device.wait_heard(is_status(desktop.device, "online"))
        (listed,) = await list_on_phone(scene.last, scene.owner)
        assert (listed.status, listed.is_connected) == ("online", True)

        start = len(phone.device.received)
        scene.stop(desktop.device)
        gone = await phone.device.wait_heard(is_event("device-status"), start)
        reason = {"deviceId": desktop.device.device_id, "status": "disconnected", "reason": "ws_closed"}
        assert shape(gone) == told("device-status", reason, None)
        with pytest.raises(CallFailed, match=r"^-32010 Desktop is offline$"):
            await phone.app.call("session.get", {"sessionId": "s1"})
        (listed,) = await list_on_phone(scene.last, scene.owner)
        assert (listed.status, listed.is_connected) == ("offline", False)

        await scene.open(desktop.device)
        assert shape(desktop.device.received[-1]) == registered("resumed")
        await phone.device.wait_heard(is_status(desktop.device, "online"), start)
        assert (await phone.app.call("system.ping"))["pong"] is True
        assert events_of(phone.device) == []
