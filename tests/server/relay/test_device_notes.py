"""What a device tells of itself, on its way to PostgreSQL."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.relay.device_notes import DeviceNotes
from storage.errors import DatabaseUnavailable


async def test_one_is_written_at_a_time_and_of_each_kind_the_newest() -> None:
    written: list[str] = []
    gate = trio.Event()

    def note(word: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            await gate.wait()
            written.append(word)

        return write

    async with trio.open_nursery() as nursery:
        notes = DeviceNotes(nursery)
        notes.put("beat", note("beat 1"))
        await wait_all_tasks_blocked()
        for word in ("beat 2", "beat 3", "project 1", "beat 4"):
            notes.put(word.split()[0], note(word))
        assert len(nursery.child_tasks) == 1
        gate.set()
    assert written == ["beat 1", "beat 4", "project 1"]


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), trio.TooSlowError(), ValueError("ours")])
async def test_what_fails_is_told_and_the_next_is_written(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    written: list[str] = []

    async def fail() -> None:
        raise error

    async def write() -> None:
        written.append("next")

    async with trio.open_nursery() as nursery:
        notes = DeviceNotes(nursery)
        notes.put("one", fail)
        notes.put("other", write)
    async with trio.open_nursery() as nursery:
        DeviceNotes(nursery).put("later", write)
    assert written == ["next", "next"]
    assert "was not noted" in caplog.text


async def test_what_a_device_told_last_is_written_though_its_socket_ends() -> None:
    written: list[str] = []

    async def write() -> None:
        await trio.sleep(0.02)
        written.append("last")

    async with trio.open_nursery() as nursery:
        DeviceNotes(nursery).put("visibility", write)
        nursery.cancel_scope.cancel()
    assert written == ["last"]
