"""Calls between devices on one process and on two: each is answered once, whatever happens to the desktop meanwhile."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from server.relay.call_table import ANSWER_SECONDS, GRACE_SECONDS, MAX_PENDING
from tests.server.relay.call_town import ANN, DESK, OTHER_DESK, PHONE, Device, House, Town

OFFLINE = {"code": -32010, "message": "Desktop is offline"}


@dataclass
class Scene:
    town: Town
    phones: House
    desks: House
    phone: Device
    desk: Device

    async def call(self, *args: object, **more: object) -> None:
        await self.phones.call(self.phone, *args, **more)  # type: ignore[arg-type] # as House.call takes them
        await self.town.deliver()

    async def answer(self, desk: Device, *args: object, **more: object) -> None:
        await self.desks.answer(desk, *args, **more)  # type: ignore[arg-type] # as House.answer takes them
        await self.town.deliver()

    async def come_back(self) -> Device:
        desk = await self.desks.connect(DESK, "desktop")
        await self.town.deliver()
        return desk

    async def cut_desk(self) -> None:
        self.desks.cut(self.desk)
        await self.town.deliver()


@pytest.fixture(params=["one process", "two processes"])
async def scene(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    town = Town()
    phones = town.add_house("phones")
    desks = phones if request.param == "one process" else town.add_house("desks")
    for house in town.houses.values():
        for loop in house.loops:
            nursery.start_soon(loop)
    yield Scene(town, phones, desks, await phones.connect(PHONE), await desks.connect(DESK, "desktop"))
    nursery.cancel_scope.cancel()
    town.close()


async def test_a_call_reaches_the_desktop_and_its_answer_the_caller(scene: Scene) -> None:
    await scene.call("c-1")
    (payload,) = scene.desk.read()
    assert payload == {
        "id": "c-1", "method": "session.get", "params": "", "clientId": str(PHONE), "userId": str(ANN)
    }
    assert scene.phones.calls.pending == 1
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read() == [{"id": "c-1", "result": "", "error": None, "isFinal": True}]
    assert scene.phone.arrived[0]["type"] == "rpc.response"
    assert scene.phones.calls.pending == 0


async def test_without_a_desktop_a_call_is_answered_at_once(scene: Scene) -> None:
    await scene.desks.leave(scene.desk)
    scene.town.primary = None
    await scene.desks.tell_links()
    await scene.call("c-1")
    assert scene.phone.read() == [{"id": "c-1", "result": None, "error": OFFLINE, "isFinal": True}]


async def test_a_desktop_that_has_just_gone_has_no_grace_for_new_calls(scene: Scene) -> None:
    await scene.call("before")
    await scene.cut_desk()
    await scene.call("after")
    assert scene.phone.read_codes() == {"after": -32010}


async def test_a_caller_may_name_one_of_several_desktops(scene: Scene) -> None:
    other = await scene.phones.connect(OTHER_DESK, "desktop")
    await scene.call("c-1", target=OTHER_DESK)
    assert other.read_ids() == ["c-1"]
    assert scene.desk.read() == []


async def test_what_is_no_desktop_of_the_user_is_offline(scene: Scene) -> None:
    await scene.call("unknown", target=OTHER_DESK)
    await scene.call("a phone", target=PHONE)
    assert scene.phone.read_codes() == {"unknown": -32010, "a phone": -32010}


async def test_a_desktop_may_call_itself(scene: Scene) -> None:
    await scene.desks.call(scene.desk, "c-1")
    assert scene.desk.read_ids() == ["c-1"]
    await scene.answer(scene.desk, "c-1", str(DESK))
    assert scene.desk.read_codes() == {"c-1": None}


async def test_answers_come_in_any_order_and_in_pieces(scene: Scene) -> None:
    await scene.call("c-1")
    await scene.call("c-2")
    await scene.answer(scene.desk, "c-2")
    await scene.answer(scene.desk, "c-1", is_final=False)
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read_ids() == ["c-2", "c-1", "c-1"]
    assert scene.phones.calls.pending == 0


async def test_of_calls_whose_desktop_is_back_keyed_ones_are_sent_again_and_others_fail(scene: Scene) -> None:
    await scene.call("keyed", "k")
    await scene.call("bare")
    await scene.cut_desk()
    assert scene.phone.read() == []
    desk = await scene.come_back()
    assert desk.read_ids() == ["keyed"]
    assert scene.phone.read_codes() == {"bare": -32010}
    await scene.answer(desk, "keyed")
    await scene.answer(desk, "bare")
    await scene.answer(desk, "keyed")
    assert scene.phone.read_codes() == {"keyed": None}


async def test_a_desktop_that_answers_on_its_new_connection_has_answered(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("bare")
    replaced, scene.desk = scene.desk, await scene.come_back()
    await scene.answer(scene.desk, "bare")
    scene.desks.cut(replaced)
    await trio.sleep(GRACE_SECONDS)
    await scene.town.deliver()
    assert scene.phone.read_codes() == {"bare": None}


async def test_what_waits_for_a_desktop_is_sent_before_what_is_new(scene: Scene) -> None:
    await scene.call("old", "k")
    await scene.cut_desk()
    desk = await scene.desks.connect(DESK, "desktop", is_told=False)
    scene.phones.roster.note_changed(ANN)
    await scene.phones.call(scene.phone, "new")
    await scene.town.deliver()
    assert desk.read_ids() == ["old", "new"]


async def test_a_desktop_that_nobody_told_of_is_found_within_its_grace(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("keyed", "k")
    await scene.cut_desk()
    desk = await scene.desks.connect(DESK, "desktop", is_told=False)
    scene.phones.roster.note_changed(ANN)
    await trio.sleep(1)
    await scene.town.deliver()
    assert desk.read_ids() == ["keyed"]


async def test_a_desktop_that_stays_away_leaves_no_call_without_an_answer(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.call("keyed", "k")
    await scene.call("bare")
    await scene.cut_desk()
    await trio.sleep(GRACE_SECONDS - 0.1)
    assert scene.phone.read() == []
    await trio.sleep(0.2)
    assert scene.phone.read_codes() == {"keyed": -32010, "bare": -32010}
    assert scene.phones.calls.pending == 0


@pytest.mark.parametrize("method", ["system.ping", "ping"])
async def test_a_ping_has_no_grace(scene: Scene, method: str) -> None:
    await scene.call("p", "k", method)
    await scene.cut_desk()
    assert scene.phone.read_codes() == {"p": -32010}


async def test_a_call_that_is_not_answered_in_time_is_answered_by_us(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("c-1")
    await trio.sleep(ANSWER_SECONDS - 1)
    assert scene.phone.read() == []
    await trio.sleep(1.1)
    assert scene.phone.read_codes() == {"c-1": -32603}
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read() == []


async def test_a_piece_of_an_answer_is_a_sign_of_life(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("c-1")
    for _ in range(3):
        await trio.sleep(ANSWER_SECONDS - 1)
        await scene.answer(scene.desk, "c-1", is_final=False)
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read_ids() == ["c-1"] * 4


async def test_an_answer_in_pieces_that_broke_off_is_not_begun_again(scene: Scene) -> None:
    await scene.call("keyed", "k")
    await scene.answer(scene.desk, "keyed", is_final=False)
    await scene.cut_desk()
    desk = await scene.come_back()
    assert desk.read() == []
    assert [payload["error"] for payload in scene.phone.read()] == [None, OFFLINE]


async def test_an_answer_that_nobody_waits_for_is_delivered_where_its_device_is_registered(scene: Scene) -> None:
    await scene.call("c-1")
    scene.phones.cut(scene.phone)
    assert scene.phones.calls.pending == 0
    phone = await scene.desks.connect(PHONE)
    await scene.answer(scene.desk, "c-1")
    assert phone.read_ids() == ["c-1"]


async def test_an_answer_to_nobody_is_dropped(scene: Scene) -> None:
    await scene.answer(scene.desk, "c-1", "no device id")
    await scene.answer(scene.desk, "c-1", str(OTHER_DESK))
    await scene.call("c-1")
    await scene.phones.leave(scene.phone)
    await scene.answer(scene.desk, "c-1")
    await scene.cut_desk()
    await scene.come_back()
    assert scene.town.letters == type(scene.town.letters)()


async def test_nobody_but_the_desktop_that_was_asked_answers(scene: Scene) -> None:
    other = await scene.desks.connect(OTHER_DESK, "desktop")
    await scene.call("c-1")
    await scene.answer(other, "c-1")
    assert scene.phone.read() == []
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read_codes() == {"c-1": None}


async def test_a_call_made_again_with_its_key_is_forwarded_again_and_answered_once(scene: Scene) -> None:
    await scene.call("c-1", "k")
    await scene.call("c-1", "k")
    assert scene.desk.read_ids() == ["c-1", "c-1"]
    assert scene.phones.calls.pending == 1
    await scene.answer(scene.desk, "c-1")
    await scene.answer(scene.desk, "c-1")
    assert scene.phone.read_ids() == ["c-1"]


async def test_a_call_made_again_while_its_desktop_is_away_waits_with_the_first(scene: Scene) -> None:
    await scene.call("c-1", "k")
    await scene.cut_desk()
    await scene.call("c-1", "k")
    assert scene.phone.read() == []
    desk = await scene.come_back()
    assert desk.read_ids() == ["c-1"]


async def test_two_calls_that_share_an_id_and_no_key_are_both_answered(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("c-1")
    await scene.call("c-1")
    assert scene.desk.read_ids() == ["c-1", "c-1"]
    await scene.answer(scene.desk, "c-1")
    await scene.cut_desk()
    await trio.sleep(GRACE_SECONDS + 1)
    assert [payload["error"] for payload in scene.phone.read()] == [None, OFFLINE]


async def test_the_calls_of_one_device_that_wait_are_bounded(scene: Scene) -> None:
    for number in range(MAX_PENDING):
        await scene.phones.call(scene.phone, str(number))
    await scene.town.deliver()
    assert scene.phone.read() == []
    await scene.call("one more")
    assert scene.phone.read_codes() == {"one more": -32603}
    await scene.answer(scene.desk, "0")
    await scene.call("now")
    assert scene.phone.read_codes() == {"0": None}


async def test_ids_are_bounded(scene: Scene) -> None:
    await scene.call("x" * 513)
    assert scene.phone.read_codes() == {"x" * 513: -32600}


async def test_a_caller_waits_while_the_desktop_has_much_to_read(
    scene: Scene, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await scene.call("big", padding=5_000_000)
    nursery.start_soon(scene.phones.call, scene.phone, "next")
    await scene.town.deliver()
    assert scene.desk.read_ids() == ["big"]
    await trio.sleep(0.2)
    await scene.town.deliver()
    assert scene.desk.read_ids() == ["next"]
    assert scene.phone.read() == []


async def test_a_caller_does_not_wait_for_ever_nor_again_and_again(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.call("big", padding=5_000_000)
    started_at = trio.current_time()
    await scene.call("next")
    assert scene.phone.read_codes() == {"next": -32010}
    assert trio.current_time() - started_at == pytest.approx(10, abs=0.1)
    await scene.call("another")
    assert scene.phone.read_codes() == {"another": -32010}
    assert trio.current_time() - started_at < 11
    assert scene.desk.read_ids() == ["big"]
    await trio.sleep(0.2)
    await scene.town.deliver()
    await scene.call("read again")
    assert scene.desk.read_ids() == ["read again"]


async def test_a_desktop_that_ends_while_a_caller_waits_is_offline(scene: Scene, nursery: trio.Nursery) -> None:
    await scene.call("big", padding=5_000_000)
    nursery.start_soon(scene.phones.call, scene.phone, "next")
    await scene.town.deliver()
    await scene.cut_desk()
    assert scene.phone.read_codes() == {"next": -32010}
