"""Who may bind a terminal, of which desktop, and what is answered where that cannot be."""

from dataclasses import replace
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from server.relay.messages import Bind
from storage.presence import Link
from tests.server.relay.terminal_devices import Desktop, Phone
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, Scene, open_scene
from tests.server.relay.terminal_town import DESK, PHONE, bind, cut, open_town, unbind

OTHER_DESK = uuid4()


async def test_without_a_desktop_there_is_nothing_to_bind_or_unbind() -> None:
    async with open_town("one") as town:
        phone = town.add_phone()
        await town.houses["one"].connect(phone, PHONE)
        await bind(phone)
        await unbind(phone)
        await town.settle()
        assert (phone.bound, phone.errors) == ([], ["producerNotConnected"] * 2)


async def test_a_terminal_that_another_device_had_does_not_wait_for_a_desktop_with_this_one() -> None:
    async with open_scene(LOCAL) as scene:
        cut(scene.desktop)
        del scene.town.links[DESK]
        other = scene.town.add_phone()
        await scene.spare.connect(other, uuid4())
        await bind(other)
        await scene.town.settle()
        assert (other.bound, other.errors) == ([], ["producerNotConnected"])


@pytest.mark.parametrize("session_id", ["", "x" * 70_000, "\ud800"])
async def test_a_session_that_no_frame_can_name_is_refused(session_id: str) -> None:
    async with open_scene(LOCAL) as scene:
        await bind(scene.phone, session_id)
        await unbind(scene.phone, session_id)
        await scene.town.settle()
        assert (scene.phone.bound, scene.phone.errors) == (["t-1"], ["missingSessionId"] * 2)
        assert scene.heard == ["bind"]


async def test_a_session_id_may_be_any_text() -> None:
    async with open_scene(REMOTE) as scene:
        session_id = 'Ä "1"\\ / 💻'
        await bind(scene.phone, session_id)
        await scene.say(b"$ ", session_id)
        await scene.town.settle()
        assert scene.phone.got[session_id] == b"$ "


@pytest.mark.parametrize("names", [LOCAL, REMOTE], ids=["local", "remote"])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("force", [True, False])
async def test_a_bind_reaches_the_desktop_as_it_was_asked(names: tuple[str, str], include: bool, force: bool) -> None:
    async with open_scene(names) as scene:
        await bind(scene.phone, "t-2", include_snapshot=include, force_snapshot=force)
        await scene.town.settle()
        asked = {"sessionId": "t-2", "includeSnapshot": include, "forceSnapshot": force}
        assert scene.desktop.heard[-1] == ("bind", asked)


async def test_the_primary_desktop_is_bound_unless_another_is_named() -> None:
    async with open_scene(LOCAL) as scene:
        other = await add_desktop(scene)
        await bind(scene.phone, "t-2")
        assert scene.phone.connection is not None
        named = Bind("t-3", target_device_id=OTHER_DESK)
        await scene.phone_house.terminals.bind(scene.phone.connection.member, named)
        await scene.town.settle()
        assert [payload["sessionId"] for _, payload in scene.desktop.heard] == ["t-1", "t-2"]
        assert [payload["sessionId"] for _, payload in other.heard] == ["t-3"]


async def test_two_desktops_may_have_terminals_of_one_name() -> None:
    async with open_scene(LOCAL) as scene:
        other = await add_desktop(scene)
        await bind_named(scene.phone, "t-1")
        other.say("t-1", b"the other's")
        await scene.say(b"the first's ")
        await scene.town.settle()
        assert sorted(scene.got.split()) == sorted(b"the other's the first's".split())
        await unbind(scene.phone)
        await scene.town.settle()
        assert not scene.desktop.sessions["t-1"].is_bound
        assert not other.sessions["t-1"].is_bound


@pytest.mark.parametrize("change", [{"client_type": "mobile"}, {"is_visible": False}])
async def test_what_is_no_desktop_that_can_be_reached_cannot_be_named(change: dict[str, object]) -> None:
    async with open_scene(LOCAL) as scene:
        await add_desktop(scene)
        link: Link = scene.town.links[OTHER_DESK]
        scene.town.links[OTHER_DESK] = replace(link, **change)  # type: ignore[arg-type] # fields by name
        await bind_named(scene.phone, "t-3")
        await scene.town.settle()
        assert scene.phone.errors == ["producerNotConnected"]


async def test_a_desktop_that_is_not_where_it_was_is_looked_for_once_more() -> None:
    async with open_scene(REMOTE) as scene:
        cut(scene.desktop)
        await scene.connect_desktop(scene.spare)
        scene.town.links[DESK] = replace(scene.town.links[DESK], instance="one")
        await bind(scene.phone, "t-2")
        await scene.town.deliver()
        scene.town.links[DESK] = replace(scene.town.links[DESK], instance="spare")
        async with scene.town.while_settling():
            while "t-2" not in scene.phone.bound:
                await scene.town.wait_a_moment()
        assert scene.phone.errors == []


async def test_a_desktop_that_is_nowhere_is_told_as_not_connected() -> None:
    async with open_scene(REMOTE) as scene:
        cut(scene.desktop)
        await bind(scene.phone, "t-2")
        async with scene.town.while_settling():
            while not scene.phone.errors:
                await scene.town.wait_a_moment()
        assert scene.phone.errors == ["producerNotConnected"]


async def test_a_connection_that_ended_while_its_bind_was_looked_up_is_not_kept() -> None:
    async with open_scene(LOCAL) as scene:
        former = cut(scene.phone)
        await scene.phone_house.terminals.bind(former.member, Bind("t-2"))
        assert scene.phone_house.terminals._consumers._sockets == {}


async def add_desktop(scene: Scene) -> Desktop:
    other = scene.town.add_desktop()
    await scene.spare.connect(other, OTHER_DESK)
    return other


async def bind_named(phone: Phone, session_id: str) -> None:
    assert phone.connection is not None
    wanted = Bind(session_id, include_snapshot=False, target_device_id=OTHER_DESK)
    await phone.connection.terminals.bind(phone.connection.member, wanted)


async def test_a_process_that_stops_is_not_settled_until_another_has_fetched_what_waits(
    autojump_clock: MockClock,
) -> None:
    async with open_scene(REMOTE) as scene, trio.open_nursery() as nursery:
        scene.phone.is_reading = False
        await scene.say(BURST[: 3 * MIB])
        cut(scene.desktop)
        settled = trio.Event()
        nursery.start_soon(wait_settled, scene, settled)
        await trio.sleep(3)
        assert not settled.is_set()
        await scene.connect_desktop(scene.spare)
        await trio.sleep(0.1)
        assert settled.is_set()
        scene.town.kill("one")
        scene.phone.is_reading = True
        await scene.town.settle()
        assert scene.is_whole


async def test_a_process_that_stops_writes_down_that_all_has_arrived(autojump_clock: MockClock) -> None:
    async with open_scene(REMOTE) as scene:
        await scene.say(BURST[:MIB])
        cut(scene.desktop)
        with trio.fail_after(0.2):
            await scene.desk_house.terminals.wait_settled()
        scene.town.kill("one")
        scene.desktop.say("t-1", BURST[MIB:])
        await scene.connect_desktop(scene.spare)
        assert scene.is_whole


async def test_a_process_without_terminals_is_settled(autojump_clock: MockClock) -> None:
    async with open_town("one") as town:
        with trio.fail_after(0):
            await town.houses["one"].terminals.wait_settled()


async def test_nothing_is_bound_on_a_connection_that_is_about_to_be_closed(autojump_clock: MockClock) -> None:
    async with open_scene(LOCAL) as scene:
        assert scene.desktop.connection is not None
        terminals, member = scene.desk_house.terminals, scene.desktop.connection.member
        assert [terminals.prepare_end(member), terminals.prepare_end(member)] == [True, False]
        await bind(scene.phone)
        await bind(scene.phone, "t-2")
        await scene.say(b"$ ", "t-2")
        assert scene.phone.bound == ["t-1", "t-1", "t-2"]
        assert scene.heard == ["bind", "unbind"]
        cut(scene.desktop)
        await scene.connect_desktop(scene.spare)
        assert scene.phone.got["t-2"] == b"$ "


async def wait_settled(scene: Scene, settled: trio.Event) -> None:
    await scene.desk_house.terminals.wait_settled()
    settled.set()
