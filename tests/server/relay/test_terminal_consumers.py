"""What a phone is given of a terminal while its connections come and go: every byte, in order."""

from collections.abc import AsyncIterator

import pytest

from server.relay.terminal_confirmations import PING_EVERY_BYTES
from server.relay.terminal_consumers import MAX_BINDINGS
from server.relay.terminal_frames import build_frame
from server.relay.terminal_letters import Frame
from server.relay.terminal_window import WINDOW_BYTES
from server.websocket_frames import build_binary
from tests.server.relay.terminal_devices import BINARY, FRAME_BYTES, PING
from tests.server.relay.terminal_output import BURST
from tests.server.relay.terminal_scene import LOCAL, MIB, REMOTE, Scene, open_scene, take_confirmed
from tests.server.relay.terminal_town import bind, cut, leave


@pytest.fixture(params=[LOCAL, REMOTE], ids=["local", "remote"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with open_scene(request.param) as scene:
        yield scene


async def test_a_burst_arrives_whole(scene: Scene) -> None:
    await scene.say(BURST)
    assert scene.phone.bound == ["t-1"]
    assert scene.is_whole
    assert scene.waiting_bytes == 0


async def test_a_frame_arrives_as_the_desktop_has_sent_it(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(b"hi")
    assert scene.phone.connection is not None
    scene.phone.connection.pull()
    assert scene.phone.connection.wire[0] == (BINARY, bytes.fromhex("505443310003742d31") + b"hi")


async def test_a_phone_that_is_cut_off_in_a_burst_and_binds_again_misses_nothing(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[: 2 * MIB])
    take_confirmed(scene.phone, MIB // 2)
    cut(scene.phone)
    await scene.say(BURST[2 * MIB :])
    assert scene.heard == ["bind", "unbind"]
    await scene.connect_phone(scene.phone_house)
    assert scene.is_whole
    assert scene.heard == ["bind", "unbind", "bind"]


async def test_a_phone_may_bind_again_at_another_process(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[:MIB])
    take_confirmed(scene.phone, MIB // 4)
    cut(scene.phone)
    await scene.town.settle()
    await scene.say(BURST[MIB:])
    await scene.connect_phone(scene.spare)
    assert scene.is_whole


async def test_a_phone_may_be_cut_off_again_and_again(scene: Scene) -> None:
    for turn in range(5):
        scene.phone.is_reading = False
        await scene.say(BURST[turn * MIB : (turn + 1) * MIB])
        take_confirmed(scene.phone, 100_000)
        await scene.town.settle()
        cut(scene.phone)
        await scene.connect_phone((scene.phone_house, scene.spare)[turn % 2])
    assert scene.is_whole


async def test_a_phone_whose_old_socket_nobody_has_missed_yet_misses_nothing(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST[:MIB])
    take_confirmed(scene.phone, MIB // 4)
    former = cut(scene.phone, is_noticed=False)
    await scene.connect_phone(scene.phone_house)
    await scene.say(BURST[MIB:])
    leave(former)
    await scene.say(b"more")
    assert scene.is_whole


async def test_what_a_phone_took_after_its_last_pong_may_come_twice_and_that_is_little(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(BURST)
    scene.phone.take(MIB // 2)
    cut(scene.phone)
    await scene.connect_phone(scene.phone_house)
    got, said = scene.got, scene.said
    twice = len(got) - len(said)
    assert 0 < twice <= PING_EVERY_BYTES + FRAME_BYTES
    same = next(at for at in range(len(said)) if got[at] != said[at])
    assert got == said[:same] + said[same - twice :]


async def test_a_lone_frame_is_confirmed_at_once(scene: Scene) -> None:
    scene.phone.is_reading = False
    await scene.say(b"$ ")
    assert scene.phone.connection is not None
    scene.phone.connection.pull()
    assert [kind for kind, _ in scene.phone.connection.wire] == [BINARY, PING]
    await scene.say(b"l")
    await scene.say(b"s")
    scene.phone.connection.pull()
    assert [kind for kind, _ in scene.phone.connection.wire] == [BINARY, PING, BINARY, BINARY]
    take_confirmed(scene.phone, 1)
    scene.phone.connection.pull()
    assert [kind for kind, _ in scene.phone.connection.wire] == [BINARY, BINARY, PING]


async def test_a_phone_that_answers_no_pings_gets_a_window_and_no_more(scene: Scene) -> None:
    scene.phone.has_pongs = False
    await scene.say(BURST)
    assert WINDOW_BYTES - FRAME_BYTES <= len(scene.got) <= WINDOW_BYTES + FRAME_BYTES


@pytest.mark.parametrize("payload", [b"", b"t", b"t0", b"t99", b"heartbeat", b"t-1", "t²".encode(), b"t1" + b"0" * 90])
async def test_pongs_of_other_pings_confirm_nothing(scene: Scene, payload: bytes) -> None:
    scene.phone.has_pongs = False
    await scene.say(BURST)
    assert scene.phone.connection is not None
    scene.phone_house.terminals.note_pong(scene.phone.connection.member, payload)
    await scene.town.settle()
    assert len(scene.got) <= WINDOW_BYTES + FRAME_BYTES


async def test_its_terminals_share_one_window(scene: Scene) -> None:
    for session_id in ("t-2", "t-3"):
        await bind(scene.phone, session_id)
    await scene.town.settle()
    scene.phone.is_reading = False
    for session_id in ("t-1", "t-2", "t-3"):
        await scene.say(BURST, session_id)
    assert scene.phone.connection is not None
    assert scene.phone.connection.wire or scene.phone.connection.member.outbox.waiting_bytes
    assert scene.phone.connection.member.outbox.waiting_bytes < WINDOW_BYTES + 2 * FRAME_BYTES


async def test_one_terminals_burst_does_not_keep_another_waiting_behind_all_of_it(scene: Scene) -> None:
    await bind(scene.phone, "t-2")
    await scene.town.settle()
    scene.phone.is_reading = False
    await scene.say(BURST[: 3 * MIB])
    await scene.say(b"$ ", "t-2")
    while not scene.phone.got["t-2"]:
        scene.phone.take(FRAME_BYTES)
        await scene.town.settle()
    assert len(scene.got) <= WINDOW_BYTES + 3 * FRAME_BYTES


async def test_a_bind_of_a_process_that_is_lost_before_it_answers_has_failed() -> None:
    async with open_scene(REMOTE) as scene:
        await bind(scene.phone, "t-2")
        scene.town.kill("one")
        await scene.town.settle()
        assert scene.phone.errors == ["forwardFailed"]
        assert scene.phone.bound == ["t-1"]


async def test_a_connection_asks_for_so_many_terminals_at_once_and_no_more() -> None:
    async with open_scene(REMOTE) as scene:
        for number in range(MAX_BINDINGS + 3):
            await bind(scene.phone, f"s-{number}")
        scene.phone.take(1 << 20)
        assert scene.phone.errors == ["forwardFailed"] * 4


async def test_frames_that_come_twice_or_of_a_former_owner_are_not_given_and_missing_ones_are_asked_for_once() -> None:
    async with open_scene(REMOTE) as scene:
        assert scene.phone.connection is not None
        consumers, connection = scene.phone_house.terminals._consumers, scene.phone.connection
        [binding] = consumers.list_bindings(connection.member, "t-1")
        binding.epoch, binding.next_number = 2, 5
        scene.town.sent.clear()
        for epoch, number in ((1, 5), (2, 7), (2, 8), (2, 5), (3, 6), (3, 6)):
            frame = build_binary(build_frame(b"t-1", b"%d/%d" % (epoch, number)))
            letter = Frame(connection.member.connection_id, binding.id, epoch, number)
            consumers._put("one", scene.town.user_id, letter, frame)
        connection.pull()
        assert [payload[9:] for kind, payload in connection.wire if kind == BINARY] == [b"2/5", b"3/6"]
        assert scene.town.sent["terminal-here"] == 1


async def test_a_connection_that_has_ended_is_forgotten(scene: Scene) -> None:
    await scene.say(b"$ ")
    consumers = scene.phone_house.terminals._consumers
    cut(scene.phone)
    await scene.town.settle()
    assert consumers._sockets == {}
