"""Those who watch on one process: told what they want, and bounded."""

from contextlib import ExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.errors import TooManyWatchers
from server.relay.watchers import MOST_PER_USER, SLOW, Watchers
from server.websocket_frames import build_text
from tests.server.relay.audience import ANN, BOB, build_watcher, take_told


async def test_a_user_is_told_on_every_connection_that_wants_to_hear_it() -> None:
    watchers, one, other = Watchers(), build_watcher(), build_watcher()
    deaf, bob = build_watcher(ANN, "b"), build_watcher(BOB)
    with watchers.admit(one), watchers.admit(other), watchers.admit(deaf), watchers.admit(bob):
        watchers.tell(ANN, "a", build_text(b"1"))
        watchers.tell_all("b", build_text(b"2"))
    assert [await take_told(each) for each in (one, other, deaf, bob)] == [[1, 2], [1, 2], [2], [2]]


async def test_who_has_left_is_told_nothing() -> None:
    watchers, watcher = Watchers(), build_watcher()
    with watchers.admit(watcher):
        assert list(watchers.users) == [ANN]
    watchers.tell(ANN, "a", build_text(b"1"))
    assert await take_told(watcher) == []
    assert list(watchers.users) == []


def test_a_user_has_so_many_connections_and_no_more() -> None:
    watchers = Watchers()
    with ExitStack() as stack:
        for _ in range(MOST_PER_USER):
            stack.enter_context(watchers.admit(build_watcher()))
        with pytest.raises(TooManyWatchers), watchers.admit(build_watcher()):
            pass
        with watchers.admit(build_watcher(BOB)):
            assert len(watchers.list(ANN)) == MOST_PER_USER


async def test_who_reads_nothing_is_ended_and_the_first_word_counts() -> None:
    watchers, watcher = Watchers(), build_watcher()
    with watchers.admit(watcher):
        for _ in range(41):
            watchers.tell(ANN, "a", build_text(b"x" * 1024 * 1024))
    assert watcher.ending is not None
    assert watcher.ending.code == SLOW
    watcher.end(1000, "again")
    assert watcher.ending.code == SLOW
    assert watcher.outbox.is_closed
    assert not watcher.outbox.waiting_bytes


async def test_somebody_is_waited_for() -> None:
    watchers = Watchers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchers.wait_somebody)
        await wait_all_tasks_blocked()
        with watchers.admit(build_watcher()):
            await wait_all_tasks_blocked()
            assert not nursery.child_tasks
            await watchers.wait_somebody()
