"""Calls to a desktop of another process: letters that come too late, and processes that are gone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

from server.relay.call_table import GRACE_SECONDS
from tests.server.relay.call_town import ANN, DESK, PHONE, Device, House, Town


@dataclass
class Scene:
    town: Town
    phones: House
    desks: House
    others: House
    phone: Device
    desk: Device

    async def call(self, call_id: str, key: str | None = None) -> None:
        await self.phones.call(self.phone, call_id, key)
        await self.town.deliver()


@pytest.fixture
async def scene(nursery: trio.Nursery) -> AsyncIterator[Scene]:
    town = Town()
    phones, desks, others = town.add_house("phones"), town.add_house("desks"), town.add_house("others")
    for house in (phones, desks, others):
        for loop in house.loops:
            nursery.start_soon(loop)
    yield Scene(town, phones, desks, others, await phones.connect(PHONE), await desks.connect(DESK, "desktop"))
    nursery.cancel_scope.cancel()
    town.close()


async def test_neither_call_nor_answer_overtakes_an_event_of_its_sender(scene: Scene) -> None:
    scene.phone.member.last_event_id, scene.desk.member.last_event_id = 7, 9
    await scene.call("c-1")
    await scene.desks.answer(scene.desk, "c-1")
    assert scene.town.after_events == [7, 9]


async def test_between_devices_of_one_process_no_letter_is_written(scene: Scene) -> None:
    phone = await scene.desks.connect(PHONE)
    await scene.desks.call(phone, "c-1")
    await scene.desks.answer(scene.desk, "c-1")
    assert phone.read_ids() == ["c-1"]
    assert scene.town.sent == []


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_call_to_where_the_desktop_was_before_finds_it(scene: Scene, key: str | None) -> None:
    await scene.phones.roster.find_primary(ANN)
    scene.desks.cut(scene.desk)
    desk = await scene.others.connect(DESK, "desktop", is_told=False)
    await scene.call("c-1", key)
    assert scene.town.sent == ["call", "miss", "call"]
    assert desk.read_ids() == ["c-1"]
    await scene.others.answer(desk, "c-1")
    await scene.town.deliver()
    assert scene.phone.read_codes() == {"c-1": None}


async def test_a_desktop_that_is_told_to_be_there_and_is_not_is_offline_soon(
    scene: Scene, autojump_clock: MockClock
) -> None:
    scene.desks.cut(scene.desk)
    await scene.call("c-1", "k")
    for _ in range(4):
        await trio.sleep(0.25)
        await scene.town.deliver()
    assert scene.phone.read_codes() == {"c-1": -32010}
    assert scene.town.sent.count("call") < 5


async def test_who_has_heard_that_a_desktop_went_looks_for_it_anew(scene: Scene) -> None:
    await scene.call("c-1")
    scene.desks.cut(scene.desk)
    await scene.town.deliver()
    desk = await scene.others.connect(DESK, "desktop", is_told=False)
    await scene.call("c-2")
    assert desk.read_ids() == ["c-2"]
    assert "miss" not in scene.town.sent


async def test_a_desktop_without_any_link_is_offline_at_once(scene: Scene) -> None:
    await scene.phones.roster.find_primary(ANN)
    scene.desks.cut(scene.desk)
    del scene.town.links[DESK]
    await scene.call("c-1")
    assert scene.phone.read_codes() == {"c-1": -32010}


async def test_a_desktop_that_is_about_to_be_there_is_called_in_order(
    scene: Scene, autojump_clock: MockClock
) -> None:
    scene.desks.cut(scene.desk)
    desk = await scene.others.connect(DESK, "desktop")
    scene.others.hub._remove(desk.member)
    await scene.call("c-1")
    await scene.call("c-2")
    scene.others.hub._by_connection[desk.member.connection_id] = desk.member
    scene.others.hub._members[ANN][DESK] = desk.member
    await trio.sleep(0.4)
    await scene.town.deliver()
    assert desk.read_ids() == ["c-1", "c-2"]
    assert scene.phone.read() == []


async def test_a_process_that_dies_takes_its_desktops_along(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("keyed", "k")
    await scene.call("bare")
    scene.town.kill("desks")
    desk = await scene.others.connect(DESK, "desktop")
    await scene.town.deliver()
    assert desk.read_ids() == ["keyed"]
    assert scene.phone.read_codes() == {"bare": -32010}
    scene.town.kill("others")
    await trio.sleep(GRACE_SECONDS + 0.5)
    assert scene.phone.read_codes() == {"keyed": -32010}


async def test_a_process_that_was_silent_for_the_grace_leaves_no_call_waiting(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("keyed", "k")
    await scene.call("bare")
    await trio.sleep(GRACE_SECONDS + 1)
    assert scene.phone.read() == []
    scene.phones.bridge.silent_since["desks"] = trio.current_time() - GRACE_SECONDS - 1
    scene.town.kill("desks")
    await trio.sleep(1)
    assert scene.phone.read_codes() == {"keyed": -32010, "bare": -32010}


async def test_of_a_process_that_was_silent_for_half_the_grace_the_other_half_is_waited_for(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("bare")
    scene.phones.bridge.silent_since["desks"] = trio.current_time() - GRACE_SECONDS / 2
    scene.town.kill("desks")
    await trio.sleep(GRACE_SECONDS / 2 - 0.1)
    assert scene.phone.read() == []
    await trio.sleep(0.6)
    assert scene.phone.read_codes() == {"bare": -32010}


async def test_a_desktop_that_came_back_long_before_its_process_was_found_to_be_gone_gets_its_calls(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("keyed", "k")
    desk = await scene.others.connect(DESK, "desktop")
    scene.phones.bridge.silent_since["desks"] = trio.current_time() - GRACE_SECONDS - 1
    scene.town.kill("desks")
    await trio.sleep(5)
    await scene.town.deliver()
    assert desk.read_ids() == ["keyed"]
    assert scene.phone.read() == []


async def test_letters_that_were_lost_are_made_good_where_that_is_safe(
    scene: Scene, autojump_clock: MockClock
) -> None:
    """The process lives, and so does the connection."""
    await scene.call("keyed", "k")
    await scene.call("bare")
    scene.desk.read()
    for listener in scene.phones.bridge.lost_listeners:
        listener("desks")
    await trio.sleep(1)
    await scene.town.deliver()
    assert scene.desk.read_ids() == ["keyed"]
    await scene.desks.answer(scene.desk, "bare")
    await scene.desks.answer(scene.desk, "keyed")
    await scene.desks.answer(scene.desk, "keyed")
    await scene.town.deliver()
    assert scene.phone.read_codes() == {"bare": None, "keyed": None}


async def test_what_cannot_be_sent_is_answered_at_once(scene: Scene) -> None:
    scene.town.is_redis_away = True
    await scene.call("c-1", "k")
    assert scene.phone.read_codes() == {"c-1": -32010}
    assert scene.phones.calls.pending == 0


async def test_callers_hear_of_a_desktop_that_went_while_redis_was_away(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("bare")
    scene.town.is_redis_away = True
    await scene.desks.leave(scene.desk)
    await trio.sleep(20)
    scene.town.is_redis_away = False
    await trio.sleep(1.5)
    await scene.town.deliver()
    await trio.sleep(GRACE_SECONDS + 0.5)
    assert scene.phone.read_codes() == {"bare": -32010}


async def test_a_desktop_that_goes_while_redis_is_away_tells_only_of_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.call("c-1")
    scene.town.is_redis_away = True
    scene.desks.cut(scene.desk)
    asked: list[str] = []
    monkeypatch.setattr(scene.desks.bridge, "send", lambda *args, **_: asked.append(args[2]))
    scene.desks.cut(await scene.desks.connect(DESK, "desktop"))
    assert asked == []


async def test_a_caller_that_is_dead_is_not_told_for_ever(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("bare")
    scene.town.kill("phones")
    scene.desks.cut(scene.desk)
    await trio.sleep(5)
    assert scene.town.sent == ["call"]
    assert not scene.desks.calls._remote._untold


async def test_an_answer_that_cannot_leave_in_time_becomes_an_error(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("c-1")
    scene.desks.bridge.room = trio.Event()
    await scene.desks.answer(scene.desk, "c-1")
    await scene.town.deliver()
    assert scene.phone.read_codes() == {"c-1": -32603}


async def test_an_answer_follows_a_caller_that_has_just_gone_elsewhere(scene: Scene) -> None:
    await scene.desks.roster.find_primary(ANN)
    scene.phones.cut(scene.phone)
    scene.phone = await scene.others.connect(PHONE, is_told=False)
    await scene.others.call(scene.phone, "c-1")
    await scene.town.deliver()
    await scene.desks.answer(scene.desk, "c-1")
    await scene.town.deliver()
    assert scene.phone.read_codes() == {"c-1": None}
    assert scene.others.calls.pending == 0


async def test_an_answer_does_not_go_to_a_socket_that_was_replaced_elsewhere(scene: Scene) -> None:
    replaced = await scene.desks.connect(PHONE)
    await scene.desks.roster.find_primary(ANN)
    replaced.member.outbox.close()
    phone = await scene.others.connect(PHONE, is_told=False)
    await scene.others.call(phone, "c-1")
    await scene.town.deliver()
    await scene.desks.answer(scene.desk, "c-1")
    await scene.town.deliver()
    assert phone.read_codes() == {"c-1": None}


async def test_an_answer_to_a_caller_that_is_nowhere_ends(scene: Scene) -> None:
    await scene.call("c-1")
    scene.phones.cut(scene.phone)
    await scene.desks.answer(scene.desk, "c-1")
    await scene.town.deliver()
    assert scene.town.sent == ["call", "answer"]


async def test_a_hidden_desktop_is_offline_to_who_names_it(scene: Scene) -> None:
    scene.town.links[DESK] = replace(scene.town.links[DESK], is_visible=False)
    await scene.phones.call(scene.phone, "c-1", target=DESK)
    assert scene.phone.read_codes() == {"c-1": -32010}


async def test_a_desktop_that_goes_for_good_leaves_nothing_behind(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.phones.call(scene.phone, "big", padding=5_000_000)
    await scene.town.deliver()
    scene.phones.cut(scene.phone)
    await scene.desks.leave(scene.desk)
    await trio.sleep(1)
    await scene.town.deliver()
    remote = scene.desks.calls._remote
    assert not remote._callers
    assert not remote._crowded
    room = scene.phones.calls._room
    assert not room._full
    assert not room._stuck
