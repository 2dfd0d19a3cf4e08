"""A device's socket from its handshake to its end: who it is, what ends it, and what is left of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import server.presence
import server.relay.session
from server.relay.outbox import MOST_BYTES
from server.relay.text_budget import BURST_TEXTS
from server.websocket import Pong
from tests.server.relay.device_stage import WAIT_SECONDS, Socket, Stage, open_stage, register

MUST_REGISTER = ["event", "rpc.request", "rpc.response", "event-ack", "terminal.binary.bind", "terminal.binary.unbind"]


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0.06)


@pytest.fixture
async def stage(database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, redis_url) as stage:
        yield stage


@pytest.fixture
async def two(database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    """Two processes."""
    async with open_stage(database_url, redis_url, 2) as stage:
        yield stage


async def wait_until_nobody_is_here(stage: Stage) -> None:
    parts = stage.relays[0].parts
    with trio.fail_after(5):
        while parts.sockets.count or parts.departures.waiting:
            await trio.sleep(0.01)
    assert not parts.hub.members
    assert not parts.sockets.waiting_bytes


async def test_a_device_registers_and_resumes(stage: Stage) -> None:
    device_id, socket = uuid4(), stage.connect()
    registered = await register(socket, device_id)
    assert registered["type"] == "registered"
    assert socket.heard[0] is registered
    again = stage.connect()
    members = {"sessionId": registered["sessionId"], "resumeToken": registered["resumeToken"]}
    resumed = await register(again, device_id, **members)
    assert (resumed["type"], resumed["sessionId"]) == ("resumed", registered["sessionId"])
    assert await socket.wait_closed() == 4001


async def test_who_cannot_resume_registers_on_the_same_socket(stage: Stage) -> None:
    socket, device_id = stage.connect(), uuid4()
    error = await register(socket, device_id, sessionId="s" * 32, resumeToken="t" * 48)
    assert (error["type"], error["code"]) == ("error", "invalidResume")
    assert not stage.relays[0].parts.hub.members
    assert (await register(socket, device_id))["type"] == "registered"


async def test_nobody_is_told_to_resume_who_did_not_ask_to(stage: Stage) -> None:
    for members in ({"sessionId": "s"}, {"resumeToken": "t"}, {"sessionId": None, "resumeToken": None}):
        assert (await register(stage.connect(), uuid4(), **members))["type"] == "registered"


async def test_a_device_is_the_one_that_its_header_names(stage: Stage) -> None:
    device_id = uuid4()
    socket = stage.connect(header_id=device_id)
    assert (await register(socket, uuid4()))["code"] == "invalidDeviceId"
    assert (await register(socket, device_id, deviceId=str(device_id).upper()))["type"] == "registered"


@pytest.mark.parametrize("kind", MUST_REGISTER)
async def test_who_has_not_registered_is_told_so(stage: Stage, kind: str) -> None:
    socket = stage.connect()
    error = await socket.ask(kind, {})
    assert (error["type"], error["code"]) == ("error", "notRegistered")
    socket.say_raw(b"PTC1\0\x01tx")
    await socket.settle()


async def test_a_heartbeat_is_answered_at_once_whoever_sends_it(stage: Stage) -> None:
    socket = stage.connect()
    for message in ("heartbeat", "ping"):
        assert await socket.ask(message, {}) == {"type": "pong"}
    assert await socket.ask("heartbeat") == {"type": "pong"}


async def test_a_device_that_leaves_leaves_nothing_behind(stage: Stage) -> None:
    socket, peer = await stage.register("desktop"), await stage.register()
    await peer.settle()
    socket.leave()
    status = await peer.wait(lambda one: one["type"] == "event" and "reason" in one["payload"]["payload"])
    assert status["payload"]["payload"]["status"] == "disconnected"
    peer.leave()
    await wait_until_nobody_is_here(stage)
    assert socket.over.is_set()


async def test_a_socket_is_over_long_before_its_grace(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0.4)
    socket = await stage.register()
    socket.leave()
    with trio.fail_after(0.3):
        await socket.over.wait()
    assert stage.relays[0].parts.departures.waiting == 1


@pytest.mark.parametrize("at", [0, 1])
async def test_a_replaced_device_was_never_away(two: Stage, at: int) -> None:
    peer, device_id = await two.register(), uuid4()
    older = await two.register("desktop", device_id=device_id)
    newer = await two.register("desktop", at=at, device_id=device_id)
    assert await older.wait_closed() == 4001
    await trio.sleep(0.15)
    statuses = [one["payload"]["payload"]["status"] for one in peer.list_events("device-status")]
    assert set(statuses) == {"online"}
    await newer.settle()


async def test_a_device_may_register_again_on_its_socket(stage: Stage) -> None:
    socket, peer, device_id = stage.connect("desktop"), await stage.register(), uuid4()
    first = await register(socket, device_id)
    second = await register(socket, device_id)
    assert first["sessionId"] != second["sessionId"]
    peer.say("rpc.request", {"id": "1", "method": "m"})
    assert (await socket.wait_type("rpc.request"))["payload"]["method"] == "m"
    await trio.sleep(0.15)
    assert socket.closed is None
    assert not [one for one in peer.list_events("device-status") if "reason" in one["payload"]["payload"]]


async def test_who_registers_again_and_again_is_held_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.session, "BURST_REGISTRATIONS", 2)
    monkeypatch.setattr(server.relay.session, "REGISTRATIONS_PER_SECOND", 10)
    socket, device_id = stage.connect(), uuid4()
    began = trio.current_time()
    for _ in range(5):
        assert (await register(socket, device_id))["type"] == "registered"
    assert trio.current_time() - began > 0.2


async def test_what_ends_a_sign_in_closes_its_sockets_on_every_process(two: Stage) -> None:
    caller = two.build_caller()
    assert caller.token is not None
    sockets = [two.connect(at=at, caller=caller) for at in (0, 1)]
    for socket in sockets:
        await register(socket, uuid4())
    bare, other = two.connect(caller=caller), await two.register()
    await bare.settle()
    key = two.sessions.lookups(two.user_id, caller.token.revocation_id)[0]
    began = trio.current_time()
    await two.sessions.bury([key])
    assert [await socket.wait_closed() for socket in (*sockets, bare)] == [4401] * 3
    assert trio.current_time() - began < 1
    await other.settle()
    assert other.closed is None


async def test_an_account_that_is_deleted_closes_all_its_sockets(stage: Stage) -> None:
    sockets = [await stage.register(), await stage.register("desktop")]
    await stage.sessions.bury(stage.sessions.lookups(stage.user_id, uuid4())[1:])
    assert [await socket.wait_closed() for socket in sockets] == [4401] * 2


async def test_a_signed_out_device_is_gone_at_once_and_resumes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, peer, device_id = stage.build_caller(), await stage.register(), uuid4()
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 2 * WAIT_SECONDS)
    socket = stage.connect("desktop", caller=caller)
    registered = await register(socket, device_id)
    monkeypatch.undo()
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0)
    assert caller.token is not None
    await stage.sessions.bury(stage.sessions.lookups(stage.user_id, caller.token.revocation_id)[:1])
    await socket.wait_closed()
    await peer.wait(lambda one: one["type"] == "event" and "reason" in one["payload"]["payload"])
    members = {"sessionId": registered["sessionId"], "resumeToken": registered["resumeToken"]}
    assert (await register(stage.connect(), device_id, **members))["code"] == "invalidResume"


async def test_a_sign_in_that_ended_during_the_handshake_is_noticed(stage: Stage) -> None:
    caller = stage.build_caller()
    assert caller.token is not None
    await stage.sessions.bury(stage.sessions.lookups(stage.user_id, caller.token.revocation_id)[:1])
    assert await stage.connect(caller=caller).wait_closed() == 4401


async def test_an_end_that_was_not_heard_is_found_by_looking(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.session, "PING_SECONDS", 0.05)
    socket = await stage.register(device_id=uuid4())
    await socket.settle()
    assert socket.closed is None
    async with stage.database.as_operator("a test").transaction() as connection:
        await connection.send(connection.bind("DELETE FROM users WHERE id = %s", [stage.user_id]))
    assert await socket.wait_closed() == 4401


async def test_a_server_that_stops_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.session, "STOP_SECONDS", 0.05)
    socket = await stage.register()
    socket.stop()
    socket.stop()
    assert await socket.wait_closed() == 1012
    await socket.over.wait()
    socket.stop()


async def test_a_server_that_stops_tells_a_desktop_to_keep_its_output_and_takes_what_is_under_way(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.relay.session, "STOP_SECONDS", 0)
    desktop, phone = await stage.register("desktop"), await stage.register()
    await phone.ask("terminal.binary.bind", {"sessionId": "t", "includeSnapshot": False, "forceSnapshot": False})
    await desktop.wait_type("terminal.binary.bind")
    desktop.stop()
    await desktop.wait_type("terminal.binary.unbind")
    desktop.say_raw(b"PTC1\x00\x01tunder way")
    await phone.wait(lambda message: message == b"PTC1\x00\x01tunder way")
    assert desktop.closed is None
    desktop.say_raw(Pong(b"paused"))
    desktop.say_raw(b"PTC1\x00\x01tand more")
    assert await desktop.wait_closed() == 1012
    assert await phone.wait(lambda message: message == b"PTC1\x00\x01tand more")


async def test_a_desktop_that_does_not_listen_keeps_no_server_from_stopping(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.relay.session, "STOP_SECONDS", 0)
    monkeypatch.setattr(server.relay.session, "PAUSE_SECONDS", 0.05)
    desktop, phone = await stage.register("desktop"), await stage.register()
    await phone.ask("terminal.binary.bind", {"sessionId": "t", "includeSnapshot": False, "forceSnapshot": False})
    await desktop.wait_type("terminal.binary.bind")
    desktop.stop()
    assert await desktop.wait_closed() == 1012


@pytest.mark.parametrize(("code", "is_written"), [(4003, True), (1012, True), (4401, False), (1013, False)])
async def test_what_waits_is_written_to_who_may_have_it(stage: Stage, code: int, is_written: bool) -> None:
    socket = await stage.register()
    (member,) = stage.relays[0].parts.hub.members.values()
    socket.is_stuck = True
    member.outbox.put_text(b'{"type":"first"}')
    await wait_all_tasks_blocked()
    member.outbox.put_text(b'{"type":"last"}')
    member.end(code, "a test")
    socket.read_on()
    assert await socket.wait_closed() == code
    assert (socket.heard[-1] == {"type": "last"}) is is_written


async def test_a_device_that_reads_nothing_is_dropped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.session, "LAST_WORDS_SECONDS", 0.05)
    socket = await stage.register()
    (member,) = stage.relays[0].parts.hub.members.values()
    socket.is_stuck = True
    member.outbox.put_text(b"x" * MOST_BYTES)
    assert await socket.wait_closed() == 1013
    await wait_until_nobody_is_here(stage)


async def test_a_silent_device_is_closed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = await stage.register()
    (member,) = stage.relays[0].parts.hub.members.values()
    await socket.settle()
    member.held.pulse._last_life_at -= 1000
    member.held.woken.set()
    assert await socket.wait_closed() == 4002


async def test_a_pong_is_life(stage: Stage) -> None:
    socket = await stage.register()
    (member,) = stage.relays[0].parts.hub.members.values()
    await socket.settle()
    member.held.pulse._last_life_at -= 1000
    socket.say_raw(Pong(b"heartbeat"))
    await socket.settle()
    member.held.woken.set()
    await trio.sleep(0.02)
    await socket.settle()
    assert socket.closed is None


async def test_a_socket_is_pinged_and_not_kept_for_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.session, "PING_SECONDS", 0.03)
    monkeypatch.setattr(server.relay.session, "REGISTER_SECONDS", 0.1)
    device, nobody = await stage.register(), stage.connect()
    assert await nobody.wait_closed() == 1008
    assert device.pings[:2] == [b"heartbeat"] * 2
    assert device.closed is None


async def test_who_is_too_fast_is_read_more_slowly_and_nothing_is_dropped(stage: Stage) -> None:
    socket = stage.connect()
    began = trio.current_time()
    for _ in range(int(BURST_TEXTS) + 40):
        socket.say("ping")
    await socket.wait(lambda _: len(socket.heard) == BURST_TEXTS + 40)
    assert trio.current_time() - began > 0.15


async def test_our_own_fault_is_told_as_such(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await stage.register()
    events = stage.relays[0].events
    monkeypatch.setattr(type(events), "note_ack", lambda *_: 1 // 0)
    socket.say("event-ack", {"lastEventId": 7})
    assert await socket.wait_closed() == 1011
    assert "the socket of a device broke in our own code" in caplog.text
    await wait_until_nobody_is_here(stage)


async def end_of(socket: Socket) -> int:
    socket.say("heartbeat", {})
    return await socket.wait_closed()


async def test_an_unlinked_device_is_nobody_until_it_registers_anew(stage: Stage) -> None:
    device_id, peer = uuid4(), await stage.register()
    socket = await stage.register("desktop", device_id=device_id)
    presence = stage.relays[0].presence
    await stage.devices.unlink(stage.user_id, device_id)
    await presence.drop(stage.user_id, device_id)
    await presence.tell(stage.user_id, "device-unlinked", {"deviceId": str(device_id)})
    await peer.wait_event("device-unlinked")
    assert (await socket.ask("event", {"eventType": "a"}))["code"] == "notRegistered"
    assert socket.closed is None
    assert await end_of(socket) == 4004
    await stage.register("desktop", device_id=device_id)


async def test_who_has_heard_the_answer_misses_nothing_however_long_it_takes_to_be_a_member(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    desktop = await stage.register("desktop")
    events, goes_on = stage.relays[0].parts.events, trio.Event()
    join = events.join

    @asynccontextmanager
    async def join_late(*args: Any, **names: Any) -> AsyncIterator[None]:
        await goes_on.wait()
        async with join(*args, **names):
            yield

    monkeypatch.setattr(events, "join", join_late)
    phone = await stage.register()
    desktop.say("event", {"eventType": "noted", "payload": {}})
    await desktop.settle()
    goes_on.set()
    assert (await phone.wait_event("noted"))["eventId"]
    assert not phone.list_events("event-replay-gap")
