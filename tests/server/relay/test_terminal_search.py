"""Desktops that are not where a terminal's device looks for them."""

from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from server.relay.terminal_consumers import SEARCH_SECONDS
from server.relay.terminal_letters import Bound, Refused
from server.relay.terminal_route import Consumer
from server.relay.terminal_search import FOLLOW_SECONDS
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, Scene, open_scene
from tests.server.relay.terminal_town import DESK, PHONE, bind, cut, unbind


async def move_unnoticed(scene: Scene) -> None:
    """The new process learns neither from letters nor from Redis that somebody has a terminal bound."""
    cut(scene.desktop)
    scene.town.records.kept.clear()
    await scene.connect_desktop(scene.spare)
    assert scene.heard == ["bind"]


async def rest(scene: Scene, seconds: float = 3 * FOLLOW_SECONDS) -> None:
    async with scene.town.while_settling():
        await trio.sleep(seconds)


@pytest.mark.parametrize("names", [LOCAL, REMOTE], ids=["local", "remote"])
async def test_a_terminal_follows_its_desktop_to_a_process_that_does_not_know_of_it(
    names: tuple[str, str], autojump_clock: MockClock
) -> None:
    async with open_scene(names) as scene:
        await scene.say(BURST[:MIB])
        await move_unnoticed(scene)
        await rest(scene)
        assert scene.heard == ["bind", "bind"]
        got = scene.got
        await scene.say(b"more")
        assert scene.got == got + b"more"
        assert scene.phone.bound == ["t-1"]


async def test_what_its_former_process_may_have_had_is_made_good_by_a_snapshot(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        scene.phone.is_reading = False
        await scene.say(BURST[: 3 * MIB])
        await move_unnoticed(scene)
        await rest(scene)
        assert scene.desktop.snapshots == 1


async def test_a_terminal_that_was_unbound_does_not_follow_its_desktop(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        await unbind(scene.phone)
        await scene.town.settle()
        scene.desktop.heard.clear()
        cut(scene.desktop)
        scene.town.records.kept.clear()
        await scene.connect_desktop(scene.spare)
        await rest(scene)
        assert scene.heard == []


async def test_a_desktop_is_asked_once_for_each_connection_whether_it_knows_of_a_terminal(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.town.settle()
        scene.town.sent.clear()
        await rest(scene, 10 * FOLLOW_SECONDS)
        assert scene.town.sent == {"terminal-check": 1}
        cut(scene.desktop)
        await scene.connect_desktop(scene.desk_house)
        await rest(scene, 10 * FOLLOW_SECONDS)
        assert scene.town.sent == {"terminal-check": 2}
        assert scene.heard == ["bind", "bind"]


@pytest.mark.parametrize("names", [LOCAL, REMOTE], ids=["local", "remote"])
async def test_a_desktop_that_comes_back_where_another_connection_is_thought_to_have_its_terminal_is_bound(
    names: tuple[str, str], autojump_clock: MockClock
) -> None:
    """What was written down of it was old, and that other connection was lost with its process."""
    async with open_scene(names) as scene:
        await scene.say(BURST[:MIB])
        [producer] = scene.desk_house.terminals._producers
        route = producer.routes[b"t-1"]
        route.expect(Consumer(PHONE, uuid4(), "gone", 1), trio.current_time())
        cut(scene.desktop)
        await scene.connect_desktop(scene.desk_house)
        assert scene.heard == ["bind"]
        await rest(scene)
        assert scene.heard == ["bind", "bind"]
        await scene.say(BURST[MIB:])
        assert scene.is_whole
        assert scene.phone.bound == ["t-1"]


async def test_a_bind_that_comes_while_its_desktop_moves_is_confirmed(autojump_clock: MockClock) -> None:
    """Whoever is asked has not the desktop any more, or not yet."""
    async with open_scene(REMOTE) as scene:
        cut(scene.desktop)
        await bind(scene.phone, "t-2")
        await rest(scene, SEARCH_SECONDS - 1)
        assert scene.phone.bound == ["t-1"]
        await scene.connect_desktop(scene.spare)
        await rest(scene, 1)
        assert (scene.phone.bound, scene.phone.errors) == (["t-1", "t-2"], [])


async def test_a_bind_whose_desktop_is_nowhere_is_refused_after_a_while(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        cut(scene.desktop)
        await bind(scene.phone, "t-2")
        await rest(scene, SEARCH_SECONDS - 1)
        assert scene.phone.errors == []
        await rest(scene, 2)
        assert scene.phone.errors == ["producerNotConnected"]


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_the_answer_to_a_bind_counts_though_the_terminal_has_been_handed_on_meanwhile(
    is_accepted: bool, autojump_clock: MockClock
) -> None:
    async with open_scene(REMOTE) as scene:
        assert scene.phone.connection is not None
        consumers, member = scene.phone_house.terminals._consumers, scene.phone.connection.member
        scene.town.asleep.update({"one", "two"})
        await bind(scene.phone)
        [binding] = consumers.list_bindings(member, "t-1")
        binding.instance = "spare"  # whose question was read first
        if is_accepted:
            consumers._note_bound("one", scene.town.user_id, Bound(member.connection_id, binding.id), b"")
        else:
            consumers._note_refused("one", scene.town.user_id, Refused(member.connection_id, binding.id), b"")
        scene.town.asleep.clear()
        await rest(scene)
        assert (scene.phone.bound, scene.phone.errors) == (["t-1", "t-1"], [])
        assert scene.town.links[DESK].instance == binding.instance == "one"
