"""Terminals while connections come and go: every byte arrives, in order, whoever is cut off and comes back where."""

from collections.abc import Callable

import pytest
import trio

from scripts.device_link.terminal_frames import build_frame
from tests.end_to_end.cloche import Stores
from tests.end_to_end.relay_counting import Story, count_out, read_story
from tests.end_to_end.relay_scene import Machine, Pocket, Scene, beat, open_scene

MEBIBYTE = 1024 * 1024
BURST_BYTES = 5 * MEBIBYTE
PIECE_BYTES = 64 * 1024
AGAIN_BYTES = MEBIBYTE
"""What the phone has taken and not confirmed when it is cut off comes again: no more than may be under way to it."""


async def write_all(desktop: Machine, start: int, size: int, session_id: str = "t-1") -> None:
    for position in range(start, start + size, PIECE_BYTES):
        await desktop.app.terminals.write(session_id, count_out(position, min(PIECE_BYTES, start + size - position)))


async def wait_story(phone: Pocket, end: int, session_id: str = "t-1", seconds: float = 20) -> Story:
    """Once the output has got to its end."""
    last = count_out(end - 16, 16)
    output = phone.app.output.setdefault(session_id, bytearray())
    await phone.device.wait_for(lambda: output.endswith(last), seconds)
    return read_story(bytes(output))


async def open_bound(
    scene: Scene, hear_output: Callable[[str, bytes], None] | None = None
) -> tuple[Machine, Pocket]:
    desktop = await scene.open_desktop()
    phone = await scene.open_phone(hear_output=hear_output)
    desktop.app.terminals.open("t-1")
    await phone.app.bind("t-1")
    await phone.wait_bound("t-1")
    await desktop.device.wait_for(lambda: desktop.app.terminals.open("t-1").is_bound)
    return desktop, phone


class CutAt:
    """Once the phone has so many bytes, it is cut off, and comes back, perhaps elsewhere."""

    def __init__(self, *sizes: int) -> None:
        self.phone: Pocket | None = None
        self.next_url = ""
        self._sizes = list(sizes)

    def __call__(self, session_id: str, _output: bytes) -> None:
        if self.phone is not None and self._sizes and len(self.phone.app.output[session_id]) >= self._sizes[0]:
            self._sizes.pop(0)
            self.phone.device.url = self.next_url or self.phone.device.url
            self.phone.device.cut()


@pytest.mark.parametrize(("count", "comes_back_to"), [(1, 0), (2, 1), (2, 0)])
async def test_a_phone_that_is_cut_off_twice_in_a_burst_misses_nothing(
    stores: Stores, count: int, comes_back_to: int
) -> None:
    cutting = CutAt(MEBIBYTE, 3 * MEBIBYTE)
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene, cutting)
        cutting.phone, cutting.next_url = phone, scene.servers[comes_back_to].url
        await write_all(desktop, 0, BURST_BYTES)
        story = await wait_story(phone, BURST_BYTES)
        print(f"came again: {story.repeated_bytes} bytes")
        assert phone.device.registrations == 3
        assert (story.start, story.end, story.holes) == (0, BURST_BYTES, ())
        assert story.repeated_bytes <= 2 * AGAIN_BYTES
        assert not any(bind["forceSnapshot"] for bind in desktop.app.binds)


@pytest.mark.parametrize("count", [1, 2])
async def test_what_a_phone_has_confirmed_does_not_come_again(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, MEBIBYTE)
        await wait_story(phone, MEBIBYTE)
        for _ in range(3):  # the last ping's answer is before these, and the next one's
            await beat(phone.device)
        phone.device.cut()
        await write_all(desktop, MEBIBYTE, MEBIBYTE)
        story = await wait_story(phone, 2 * MEBIBYTE)
        assert story == Story(0, 2 * MEBIBYTE, (), 0)


@pytest.mark.parametrize(("count", "comes_back_to"), [(1, 0), (2, 0), (2, 1)])
async def test_a_desktop_that_leaves_in_a_burst_and_is_back_leaves_no_gap_and_asks_nothing_of_the_phone(
    stores: Stores, count: int, comes_back_to: int
) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, 2 * MEBIBYTE)
        scene.move(desktop.device, scene.servers[comes_back_to])
        await desktop.app.leave()
        await write_all(desktop, 2 * MEBIBYTE, 3 * MEBIBYTE)
        story = await wait_story(phone, BURST_BYTES)
        assert story == Story(0, BURST_BYTES, (), 0)
        assert (desktop.device.registrations, phone.device.registrations) == (2, 1)
        assert (phone.app.bound["t-1"], desktop.app.terminals.lost_bytes) == (1, 0)


@pytest.mark.parametrize("count", [1, 2])
async def test_both_may_be_cut_off_at_once(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        await write_all(desktop, 0, MEBIBYTE)
        await desktop.app.leave()
        phone.device.cut()
        await write_all(desktop, MEBIBYTE, MEBIBYTE)
        story = await wait_story(phone, 2 * MEBIBYTE)
        assert (story.start, story.end, story.holes) == (0, 2 * MEBIBYTE, ())
        assert story.repeated_bytes <= 2 * AGAIN_BYTES


@pytest.mark.parametrize("count", [1, 2])
async def test_a_phone_that_pauses_pauses_its_terminal_and_no_other(stores: Stores, count: int) -> None:
    """More than the relay keeps for it; the desktop keeps the rest."""
    size = 11 * MEBIBYTE
    seen: list[bytes] = []
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene, lambda _, output: seen.append(output))
        other = await scene.open_phone()
        await other.app.bind("t-2")
        await other.wait_bound("t-2")
        phone.device.pause_reading()
        await write_all(desktop, 0, size)
        await desktop.device.wait_for(lambda: not desktop.app.terminals.open("t-1").is_bound)
        with trio.fail_after(2):
            assert (await other.app.call("system.ping"))["pong"] is True
        await write_all(desktop, 0, PIECE_BYTES, "t-2")
        assert await wait_story(other, PIECE_BYTES, "t-2", 2) == Story(0, PIECE_BYTES, (), 0)
        phone.device.go_on_reading()
        await phone.device.wait_for(lambda: sum(map(len, seen)) >= size, 30)
        assert read_story(b"".join(seen)) == Story(0, size, (), 0)


@pytest.mark.parametrize("count", [1, 2])
async def test_frames_that_are_none_go_nowhere_and_hurt_nobody(stores: Stores, count: int) -> None:
    broken = [
        b"",
        b"PTC",
        b"PTC1\x00",
        b"PTC2\x00\x03t-1hi",
        b"PTC1\x00\x09t-1hi",
        b"PTC1\x00\x03\xff\xfe\xfdhi",
        b"PTC1\xff\xff",
        build_frame("unknown", b"hi"),
    ]
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        assert desktop.device.link is not None
        for frame in broken:
            await desktop.device.link.send_bytes(frame)
        await desktop.app.terminals.write("t-1", b"there")
        assert await phone.wait_output("t-1", 5) == b"there"
        assert [one for one in phone.device.received if isinstance(one, bytes)] == [build_frame("t-1", b"there")]
        assert desktop.device.registrations == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_the_last_who_binds_has_the_terminal_and_only_they_let_it_go(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop, phone = await open_bound(scene)
        other = await scene.open_phone(scene.first)
        await other.app.bind("t-1")
        await other.wait_bound("t-1")
        await phone.app.unbind("t-1")
        await beat(phone.device)
        await desktop.app.terminals.write("t-1", b"for the other")
        assert await other.wait_output("t-1", 13) == b"for the other"
        assert "t-1" not in phone.app.output


@pytest.mark.parametrize("count", [1, 2])
async def test_nobody_binds_without_a_desktop_or_a_registration(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        phone = await scene.open_phone()
        await phone.app.bind("t-1")
        error = await phone.device.wait_heard(lambda message: message["type"] == "error")
        assert error["code"] == "producerNotConnected"
        phone.device.faults.clear()


@pytest.mark.parametrize("count", [1, 2])
async def test_output_of_before_a_bind_comes_after_its_confirmation(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        await write_all(desktop, 0, PIECE_BYTES)
        phone = await scene.open_phone()
        await phone.app.bind("t-1")
        assert await wait_story(phone, PIECE_BYTES) == Story(0, PIECE_BYTES, (), 0)
        kinds = [one if isinstance(one, bytes) else one["type"] for one in phone.device.received]
        first_frame = next(index for index, kind in enumerate(kinds) if isinstance(kind, bytes))
        assert kinds.index("terminal.binary.bound") < first_frame
