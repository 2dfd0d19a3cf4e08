"""Letters of terminals: none within a process; and what becomes of terminals when letters are lost, or cannot leave."""

from collections import Counter

import trio
from trio.testing import MockClock

from server.relay.terminal_route import GRACE_SECONDS, STUCK_SECONDS
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, open_scene
from tests.server.relay.terminal_town import PHONE, bind, cut


async def test_devices_of_one_process_need_no_letters() -> None:
    async with open_scene(LOCAL) as scene:
        await scene.say(BURST)
        cut(scene.phone)
        await scene.connect_phone(scene.phone_house)
        assert scene.town.sent == Counter()


async def test_a_frame_is_one_letter_and_a_burst_is_confirmed_by_few() -> None:
    async with open_scene(REMOTE) as scene:
        scene.town.sent.clear()
        await scene.say(BURST[:MIB])
        assert scene.town.sent["terminal-frame"] == 64
        assert scene.town.sent["terminal-taken"] <= 17


async def test_letters_that_were_lost_with_everybody_alive_are_made_good(autojump_clock: MockClock) -> None:
    """Frames, then confirmations; nobody is told."""
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        scene.town.is_cut_off = True
        await scene.say(BURST[MIB : 2 * MIB])
        scene.town.is_cut_off = False
        async with scene.town.while_settling():
            await trio.sleep(STUCK_SECONDS + 2)
        await scene.say(BURST[2 * MIB :])
        assert scene.is_whole


async def test_confirmations_that_were_lost_are_asked_for(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[: 2 * MIB])
        scene.town.is_cut_off = True
        scene.phone.is_reading = True
        await scene.town.settle()
        scene.town.is_cut_off = False
        async with scene.town.while_settling():
            await trio.sleep(STUCK_SECONDS + 2)
        assert scene.is_whole


async def test_a_process_that_was_taken_for_lost_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        scene.town.is_cut_off = True
        await scene.say(BURST[MIB : 2 * MIB])
        scene.town.is_cut_off = False
        scene.desk_house.lose("two")
        scene.phone_house.lose("one")
        await scene.say(BURST[2 * MIB :])
        assert scene.heard == ["bind", "unbind"]
        async with scene.town.while_settling():
            await trio.sleep(2)
        assert scene.is_whole
        assert scene.phone.bound == ["t-1"]


async def test_letters_that_cannot_leave_pause_the_desktop_until_they_can(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        scene.town.is_away = True
        await scene.say(BURST[: 2 * MIB])
        assert scene.heard == ["bind", "unbind"]
        scene.town.is_away = False
        async with scene.town.while_settling():
            await trio.sleep(2)
        assert scene.is_whole
        assert scene.phone.errors == []


async def test_while_letters_cannot_leave_a_bind_elsewhere_has_failed_and_one_here_has_not() -> None:
    async with open_scene(REMOTE) as scene:
        scene.town.is_away = True
        await bind(scene.phone, "t-2")
        await scene.town.settle()
        assert scene.phone.errors == ["forwardFailed"]
        near = scene.town.add_phone()
        scene.town.records.is_away.append(True)
        await scene.desk_house.connect(near, PHONE)
        await bind(near, "t-2")
        await scene.say(b"$ ", "t-2")
        assert near.got["t-2"] == b"$ "


async def test_a_phone_whose_end_was_told_to_nobody_is_missed_when_there_is_something_for_it(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        scene.town.is_cut_off = True
        cut(scene.phone)
        await scene.town.settle()
        scene.town.is_cut_off = False
        await scene.say(BURST[:MIB])
        assert scene.heard == ["bind"]
        async with scene.town.while_settling():
            await trio.sleep(STUCK_SECONDS + 2)
        assert scene.heard == ["bind", "unbind"]
        await scene.connect_phone(scene.spare)
        assert scene.is_whole


async def test_a_process_that_was_asleep_and_has_lost_its_desktop_says_nothing_any_more(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        former = cut(scene.desktop, is_noticed=False)
        scene.town.asleep.add("one")
        await scene.connect_desktop(scene.spare)
        await scene.say(b"new")
        scene.desktop.connection, new = former, scene.desktop.connection
        scene.desktop._send("t-1", b"old")
        scene.desktop.connection = new
        scene.town.asleep.clear()
        async with scene.town.while_settling():
            await trio.sleep(GRACE_SECONDS + 10)
        await scene.say(b"er")
        assert scene.got.endswith(b"newer")
        assert b"old" not in scene.got
        assert list(scene.desk_house.terminals._producers) == []
