"""What a device has said and heard when its socket ends, whoever ends it."""

from collections.abc import AsyncIterator

import pytest
import trio

import server.presence
import server.relay.session
import server.relay.text_budget
from server.relay.text_budget import BURST_TEXTS
from tests.server.relay.device_stage import Socket, Stage, open_stage


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.presence, "GRACE_SECONDS", 0.06)


@pytest.fixture
async def stage(database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, redis_url) as stage:
        yield stage


def say_numbers(socket: Socket, count: int) -> None:
    for number in range(count):
        socket.say("event", {"eventType": "noted", "payload": number})


def numbers_of(socket: Socket) -> list[int]:
    return [event["payload"]["payload"] for event in socket.list_events("noted")]


async def test_what_a_client_said_before_it_left_counts_though_it_was_written_to_meanwhile(stage: Stage) -> None:
    phone, desktop = await stage.register(), await stage.register("desktop")
    await desktop.settle()
    desktop.is_gone = True
    desktop.say("ping")
    say_numbers(desktop, 20)
    desktop.leave()
    with trio.fail_after(5):
        await desktop.over.wait()
    await phone.settle()
    assert numbers_of(phone) == list(range(20))


@pytest.mark.parametrize("code", [1012, 4001])
async def test_who_is_sent_elsewhere_is_heard_until_it_has_heard_of_it(stage: Stage, code: int) -> None:
    phone, desktop = await stage.register(), await stage.register("desktop")
    member = next(member for member in stage.relays[0].parts.hub.members.values() if member.is_desktop)
    say_numbers(desktop, 3)
    member.end(code, "a test")
    assert await desktop.wait_closed() == code
    desktop.say("event", {"eventType": "noted", "payload": 3})
    desktop.leave()
    with trio.fail_after(0.5):
        await desktop.over.wait()
    await phone.settle()
    assert numbers_of(phone) == [0, 1, 2, 3]


async def test_who_is_replaced_and_silent_is_heard_for_a_moment_only(stage: Stage) -> None:
    desktop = await stage.register("desktop")
    (member,) = stage.relays[0].parts.hub.members.values()
    desktop.is_stuck = True
    member.outbox.put_text(b"{}")
    member.end(4001, "a test")
    with trio.fail_after(1):
        while stage.relays[0].parts.hub.members:
            await trio.sleep(0.02)


async def test_who_is_signed_out_is_not_heard_any_more(stage: Stage) -> None:
    phone, desktop = await stage.register(), await stage.register("desktop")
    member = next(member for member in stage.relays[0].parts.hub.members.values() if member.is_desktop)
    member.end(4401, "a test")
    say_numbers(desktop, 3)
    await desktop.over.wait()
    await phone.settle()
    assert numbers_of(phone) == []


async def test_a_stop_does_not_concern_a_socket_whose_client_has_left(stage: Stage) -> None:
    socket = await stage.register()
    socket.leave()
    await socket.over.wait()
    socket.stop()


async def test_who_is_sent_away_for_saying_too_much_is_told_so_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.relay.text_budget, "ABUSE_SECONDS", 0.0)
    socket = stage.connect()
    for _ in range(int(BURST_TEXTS) + 200):
        socket.say("pong")
    assert await socket.wait_closed() == 1008
    assert socket.heard[-1]["code"] == "rateLimited"
