"""What is written down of terminals, when, and by whom."""

import logging
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from server.relay.terminal_producers import FOREIGN_SECONDS
from server.relay.terminal_route import AWAY_SECONDS
from storage.terminal_routes import TerminalRecord
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, Scene, open_scene
from tests.server.relay.terminal_town import DESK, bind, cut

KEY = (DESK, "t-1")


def say_kept(scene: Scene) -> tuple[str, str, bool]:
    """Whose memory it is, where the phone is, and whether that memory is not needed."""
    record = scene.town.records.kept[KEY]
    return record.owner, record.instance, record.is_whole


async def test_a_terminal_is_its_desktops_process_for_as_long_as_that_is_there() -> None:
    async with open_scene(REMOTE) as scene:
        assert say_kept(scene) == ("one", "two", False)
        cut(scene.phone)
        await scene.connect_phone(scene.spare)
        assert say_kept(scene) == ("one", "spare", False)
        cut(scene.desktop)
        await scene.connect_desktop(scene.spare)
        assert say_kept(scene) == ("spare", "spare", False)
        assert scene.town.records.kept[KEY].epoch == 1


async def test_nothing_is_written_for_what_passes() -> None:
    async with open_scene(REMOTE) as scene:
        scene.town.records.saves = 0
        await scene.say(BURST)
        assert scene.town.records.saves == 0


async def test_a_terminal_whose_bytes_have_all_arrived_after_its_desktop_left_is_whole_until_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await trio.sleep(3)
        assert say_kept(scene) == ("one", "two", False)
        scene.phone.is_reading = True
        await scene.town.settle()
        await trio.sleep(3)
        assert say_kept(scene) == ("one", "two", True)
        await scene.connect_desktop(scene.desk_house)
        assert say_kept(scene) == ("one", "two", False)


async def test_what_says_that_a_terminal_is_whole_is_not_written_once_its_desktop_is_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was slow to take it."""
    async with open_scene(REMOTE) as scene:
        kept, save = scene.town.records, scene.town.records.save

        async def save_late(user_id: UUID, record: TerminalRecord) -> bool:
            await trio.sleep(0.5)
            return await save(user_id, record)

        monkeypatch.setattr(kept, "save", save_late)
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await trio.sleep(1.4)
        assert say_kept(scene) == ("one", "two", False)
        await scene.connect_desktop(scene.desk_house)
        for _ in range(20):
            await trio.sleep(0.1)
            assert say_kept(scene) == ("one", "two", False)


async def test_a_terminal_whose_desktop_stays_away_is_forgotten_but_for_what_is_written_down(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await trio.sleep(AWAY_SECONDS + 3)
        assert list(scene.desk_house.terminals._producers) == []
        await scene.say(BURST[MIB:])
        await scene.connect_desktop(scene.desk_house)
        assert scene.is_whole


async def test_while_redis_is_away_terminals_go_on_and_are_written_down_later(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scene(LOCAL) as scene:
        scene.town.records.kept.clear()
        scene.town.records.is_away.append(True)
        with caplog.at_level(logging.WARNING):
            await bind(scene.phone, "t-2")
            await trio.sleep(10)
        await scene.say(b"$ ", "t-2")
        assert scene.phone.got["t-2"] == b"$ "
        assert len(caplog.records) == 1
        cut(scene.desktop)
        await scene.connect_desktop(scene.desk_house)
        await scene.say(b"ls", "t-2")
        assert scene.phone.got["t-2"] == b"$ ls"
        scene.town.records.is_away.clear()
        await trio.sleep(3)
        assert (DESK, "t-2") in scene.town.records.kept


async def test_a_process_that_has_the_desktop_takes_what_another_wrongly_says_to_have() -> None:
    async with open_scene(LOCAL) as scene:
        await scene.town.records.claim(scene.town.user_id, DESK, "spare")
        await bind(scene.phone, force_snapshot=True)
        await scene.town.settle()
        assert say_kept(scene) == ("one", "one", False)


async def test_a_process_without_the_desktop_forgets_what_another_has_and_does_not_ask_for(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(LOCAL) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        await scene.town.records.claim(scene.town.user_id, DESK, "spare")
        await trio.sleep(FOREIGN_SECONDS / 2)
        assert [len(producer.routes) for producer in scene.desk_house.terminals._producers] == [1]
        await trio.sleep(FOREIGN_SECONDS / 2 + 3)
        assert say_kept(scene) == ("spare", "one", False)
        assert list(scene.desk_house.terminals._producers) == []
