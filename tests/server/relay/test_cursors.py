"""What devices have seen is written down now and then."""

import logging
from collections.abc import Mapping
from uuid import UUID, uuid4

import pytest
import trio

from server.relay.cursors import NOTE_SECONDS, Cursors
from storage.errors import RedisUnavailable
from storage.event_stream import EventStream

ANN, BOB, PHONE, TABLET = uuid4(), uuid4(), uuid4(), uuid4()


class Notes(EventStream):
    """Without a Redis."""

    def __init__(self) -> None:
        object.__setattr__(self, "noted", [])
        self.be_away(is_away=False)

    def be_away(self, *, is_away: bool) -> None:
        object.__setattr__(self, "is_away", is_away)

    async def note_cursors(self, user_id: UUID, cursors: Mapping[UUID, int]) -> None:
        if self.is_away:  # type: ignore[attr-defined] # set above, for it is frozen
            raise RedisUnavailable("away")
        await trio.lowlevel.checkpoint()
        self.noted.append((user_id, dict(cursors)))  # type: ignore[attr-defined] # set above, for it is frozen


def read_noted(notes: Notes) -> list[tuple[UUID, dict[UUID, int]]]:
    noted: list[tuple[UUID, dict[UUID, int]]] = notes.noted  # type: ignore[attr-defined] # set above
    return noted


async def test_the_greatest_of_each_device_is_written_once() -> None:
    notes = Notes()
    cursors = Cursors(notes)
    for device, number in ((PHONE, 5), (TABLET, 1), (PHONE, 9), (PHONE, 7)):
        cursors.note(ANN, device, number)
    await cursors.write(ANN)
    await cursors.write(ANN)
    assert read_noted(notes) == [(ANN, {PHONE: 9, TABLET: 1})]


async def test_what_could_not_be_written_in_time_is_written_later() -> None:
    notes = Notes()
    cursors = Cursors(notes)
    cursors.note(ANN, PHONE, 5)
    with trio.CancelScope() as leaving:
        leaving.cancel()
        await cursors.write(ANN)
    await cursors.write(ANN)
    assert read_noted(notes) == [(ANN, {PHONE: 5})]


async def test_what_has_been_noted_is_written_every_few_seconds(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    cursors = Cursors(notes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cursors.keep_noting)
        cursors.note(ANN, PHONE, 1)
        cursors.note(BOB, TABLET, 2)
        await trio.sleep(NOTE_SECONDS * 1.5)
        cursors.note(ANN, PHONE, 3)
        await trio.sleep(NOTE_SECONDS * 3)
        nursery.cancel_scope.cancel()
    assert read_noted(notes) == [(ANN, {PHONE: 1}), (BOB, {TABLET: 2}), (ANN, {PHONE: 3})]


async def test_while_redis_is_away_it_waits_and_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    cursors = Cursors(notes)
    notes.be_away(is_away=True)
    cursors.note(ANN, PHONE, 5)
    with caplog.at_level(logging.WARNING):
        await cursors.write(ANN)
        await cursors.write(ANN)
    assert len(caplog.records) == 1
    cursors.note(ANN, PHONE, 4)
    notes.be_away(is_away=False)
    await cursors.write(ANN)
    assert read_noted(notes) == [(ANN, {PHONE: 5})]
