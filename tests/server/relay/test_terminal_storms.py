"""Cut off at random, and back at processes at random, also while letters are lost: no byte is missing in silence."""

import random
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.server.relay.terminal_output import RECORD_BYTES, count_out, read_out
from tests.server.relay.terminal_scene import KIB, LOCAL, Scene, open_scene
from tests.server.relay.terminal_town import DESK, PHONE, House, bind, cut

STEPS = 60


@pytest.mark.parametrize("seed", range(12))
async def test_no_byte_is_missing_whoever_is_cut_off_and_comes_back_where(seed: int, autojump_clock: MockClock) -> None:
    async with open_scene(LOCAL) as scene:
        storm = Storm(scene, random.Random(seed))  # noqa: S311 - not for secrets
        async with scene.town.while_settling():
            for _ in range(STEPS):
                await storm.step()
            await storm.calm()
        positions = read_out(scene.got)
        assert scene.desktop.snapshots == 0
        assert positions[0] == 0
        assert positions[-1] == len(scene.said) - RECORD_BYTES
        assert all(after <= before + RECORD_BYTES for before, after in pairwise(positions))
        assert len(scene.got) - len(scene.said) <= storm.cuts * 256 * KIB


@pytest.mark.parametrize("seed", range(12))
async def test_where_letters_are_lost_too_a_byte_is_missing_only_if_a_snapshot_says_so(
    seed: int, autojump_clock: MockClock
) -> None:
    async with open_scene(LOCAL) as scene:
        storm = LetterStorm(scene, random.Random(seed))  # noqa: S311 - not for secrets
        async with scene.town.while_settling():
            for _ in range(STEPS):
                await storm.step()
            await storm.calm()
        positions = read_out(scene.got)
        assert positions[-1] == len(scene.said) - RECORD_BYTES
        holes = [at for at, after in pairwise(positions) if after > at + RECORD_BYTES]
        assert scene.desktop.snapshots > 0 or holes == []


class Storm:
    def __init__(self, scene: Scene, random: random.Random) -> None:
        self.cuts = 0
        self._scene = scene
        self._random = random

    async def step(self) -> None:
        """The phone reads but now and then; the desktop says less than it would forget while it is away."""
        step = self._random.choice((self._say, self._read, self._cut_phone, self._cut_desktop, self._rest))
        await step()

    async def calm(self) -> None:
        scene = self._scene
        if scene.desktop.connection is None:
            await self._connect_desktop()
        cut(scene.phone, is_noticed=bool(self._random.getrandbits(1)))
        scene.phone.is_reading = True
        await self._connect_phone()
        self._say_nowait(16 * KIB)
        while not scene.got.endswith(bytes(scene.said[-RECORD_BYTES:])):
            await scene.town.wait_a_moment()

    async def _say(self) -> None:
        if len(self._scene.desktop.sessions["t-1"].pending) < 7000 * KIB:
            self._say_nowait(self._random.choice((16, 1000, 64 * KIB, 500 * KIB)))

    def _say_nowait(self, size_bytes: int) -> None:
        size_bytes -= size_bytes % RECORD_BYTES
        self._scene.desktop.say("t-1", count_out(len(self._scene.desktop.sessions["t-1"].said), size_bytes))

    async def _read(self) -> None:
        self._scene.phone.is_reading = False
        self._scene.phone.take(self._random.choice((1, 20 * KIB, 300 * KIB)))

    async def _rest(self) -> None:
        self._scene.phone.is_reading = True
        await self._scene.town.wait_a_moment()

    async def _cut_phone(self) -> None:
        cut(self._scene.phone, is_noticed=self._random.random() < 0.7)
        await self._connect_phone()

    async def _cut_desktop(self) -> None:
        """What it has been told before is heard: a desktop that has not ended does as it is told."""
        self._scene.desktop.listen()
        cut(self._scene.desktop)
        await self._say()
        await self._connect_desktop()

    async def _connect_phone(self) -> None:
        self.cuts += 1
        if self._random.random() < 0.5:
            await self._scene.town.wait_a_moment()
        await self._pick_house().connect(self._scene.phone, PHONE)
        await bind(self._scene.phone)

    async def _connect_desktop(self) -> None:
        if self._random.random() < 0.5:
            await self._scene.town.wait_a_moment()
        await self._pick_house().connect(self._scene.desktop, DESK)

    def _pick_house(self) -> House:
        return self._random.choice(list(self._scene.town.houses.values()))


class LetterStorm(Storm):
    """Letters are lost, of which both sides are told; or do not leave for a while."""

    async def step(self) -> None:
        await self._random.choice((super().step, super().step, super().step, self._lose_letters, self._hold_letters))()

    async def _lose_letters(self) -> None:
        town = self._scene.town
        town.is_cut_off = True
        await self._step_a_little()
        town.is_cut_off = False
        for house in town.houses.values():
            for other in town.houses.keys() - {house.name}:
                house.lose(other)
        await self._bind_if_refused()

    async def _hold_letters(self) -> None:
        self._scene.town.is_away = True
        await self._step_a_little()
        self._scene.town.is_away = False
        await trio.sleep(1.5)
        await self._bind_if_refused()

    async def _step_a_little(self) -> None:
        for _ in range(self._random.randrange(3)):
            await super().step()

    async def _bind_if_refused(self) -> None:
        await self._scene.town.wait_a_moment()
        if self._scene.phone.errors:
            self._scene.phone.errors.clear()
            await bind(self._scene.phone)
