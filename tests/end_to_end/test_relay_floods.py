"""A phone that stops reading while its terminal bursts: the server's memory is bounded, and nobody else is delayed."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from scripts.device_link.link import Link, LinkEnded
from scripts.device_link.terminal_frames import MOST_BYTES, build_frame
from tests.end_to_end.cloche import Cloche, Stores
from tests.end_to_end.relay_scene import Pocket, Scene, make_identity, open_scene, receive, register

MEBIBYTE = 1024 * 1024
FLOOD_BYTES = 100 * MEBIBYTE
POLITE_BYTES = 40 * MEBIBYTE
"""What the server's memory may grow by: what it keeps for a phone, and what is on its way."""
RUDE_BYTES = 110 * MEBIBYTE
"""The same for a desktop that goes on although it was asked to pause: what is kept for it at most, and copies."""
ALWAYS_SECONDS = 1.0
"""Longer than any call of others may take; a loaded machine, not the relay, makes it so long."""


def rss_bytes(cloche: Cloche) -> int:
    return int(Path(f"/proc/{cloche.process.pid}/statm").read_text().split()[1]) * 4096


class Watch:
    """Calls of a pair that has nothing to do with it, and the memory of the servers."""

    def __init__(self, scene: Scene, phone: Pocket) -> None:
        self.latencies: list[float] = []
        self._scene = scene
        self._phone = phone
        self._before = [rss_bytes(cloche) for cloche in scene.servers]
        self.grown = 0

    async def run(self) -> None:
        while True:
            started = trio.current_time()
            await self._phone.app.call("echo", 1)
            self.latencies.append(trio.current_time() - started)
            now = [rss_bytes(cloche) for cloche in self._scene.servers]
            self.grown = max(self.grown, *(after - before for after, before in zip(now, self._before, strict=True)))
            await trio.sleep(0.01)

    def check(self, most_bytes: int) -> None:
        ordered = sorted(self.latencies)
        p50, worst = ordered[len(ordered) // 2], ordered[-1]
        print(f"memory grew by {self.grown / MEBIBYTE:.1f} MiB; {len(ordered)} calls of others: "
              f"p50 {p50 * 1000:.1f} ms, the longest {worst * 1000:.1f} ms")
        assert self.grown < most_bytes
        assert worst < ALWAYS_SECONDS


async def open_others(scene: Scene) -> Pocket:
    """Another user's pair, on the same servers."""
    owner = scene.owner
    scene.owner = await scene.first.make_customer()
    await scene.open_desktop()
    phone = await scene.open_phone()
    scene.owner = owner
    return phone


@pytest.mark.parametrize("count", [1, 2])
async def test_a_phone_that_stops_reading_in_a_burst_of_a_hundred_mebibytes_costs_little_and_hurts_nobody(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene:
        others = await open_others(scene)
        desktop, phone = await scene.open_desktop(), await scene.open_phone()
        await phone.app.bind("t-1")
        await phone.wait_bound("t-1")
        phone.device.pause_reading()
        watch = Watch(scene, others)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            for _ in range(FLOOD_BYTES // (64 * 1024)):
                await desktop.app.terminals.write("t-1", bytes(64 * 1024))
                await trio.lowlevel.checkpoint()
            await desktop.device.wait_for(lambda: not desktop.app.terminals.open("t-1").is_bound)
            await trio.sleep(0.3)
            phone.device.go_on_reading()
            await desktop.app.terminals.write("t-1", b"the end of it")
            output = phone.app.output.setdefault("t-1", bytearray())
            await phone.device.wait_for(lambda: output.endswith(b"the end of it"), 30)
            nursery.cancel_scope.cancel()
        watch.check(POLITE_BYTES)
        assert desktop.app.terminals.open("t-1").written_bytes == FLOOD_BYTES + 13
        assert (phone.device.registrations, desktop.device.registrations) == (1, 1)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_desktop_that_does_not_pause_is_bounded_too(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        others = await open_others(scene)
        identity = make_identity(scene.owner, "desktop")
        link = await scene.open_bare(stack, scene.first, client_type="desktop", device_id=identity.device_id)
        await register(link, identity.device_id)
        phone = await scene.open_phone()
        await phone.app.bind("t-1")
        await phone.wait_bound("t-1")
        while (await receive(link))["type"] != "terminal.binary.bind":
            pass
        phone.device.pause_reading()
        watch = Watch(scene, others)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            nursery.start_soon(read_away, link)
            frame = build_frame("t-1", bytes(MOST_BYTES))
            for _ in range(FLOOD_BYTES // MOST_BYTES):
                await link.send_bytes(frame)
            await trio.sleep(0.3)
            phone.device.go_on_reading()
            nursery.cancel_scope.cancel()
        watch.check(RUDE_BYTES)


async def read_away(link: Link) -> None:
    while True:
        try:
            await link.receive()
        except LinkEnded:
            return
