"""When a process looks for what is due: at once when something was stored, and slowly while a service is away."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import trio
import trio.testing

from server.push.delivery import BATCH, POLL_SECONDS, Deliverer
from server.push.outcomes import Accepted, Later, Outcome
from storage.deliveries import Deliveries, Delivery, Key, Note, PutOff
from storage.errors import DatabaseUnavailable
from tests.server.push import apns_samples
from tests.server.push.scripted_sender import ScriptedSender


class Books:
    """What is due, in memory and by trio's clock; `claims` are the moments at which somebody looked."""

    def __init__(self, due: int = 0) -> None:
        self.due = [(0.0, build_delivery()) for _ in range(due)]
        self.claims: list[float] = []
        self.is_away = False

    async def claim_due(self, _platform: str, limit: int, _lease: float) -> list[Delivery]:
        self.claims.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise DatabaseUnavailable("PostgreSQL is away")
        self.due.sort(key=lambda entry: entry[0])
        count = sum(1 for moment, _ in self.due[:limit] if moment <= trio.current_time())
        ready, self.due = self.due[:count], self.due[count:]
        return [delivery for _, delivery in ready]

    async def note(self, notes: Sequence[Note]) -> frozenset[Key]:
        await trio.lowlevel.checkpoint()
        self.due += [(trio.current_time() + note.seconds, note.delivery) for note in notes if isinstance(note, PutOff)]
        return frozenset()

    def as_deliveries(self) -> Deliveries:
        me: Any = self
        return cast(Deliveries, me)


def build_delivery() -> Delivery:
    """To a token of its own."""
    return replace(apns_samples.build_delivery(), notification_id=uuid4(), token_id=uuid4())


def build(books: Books, sender: ScriptedSender) -> Deliverer:
    return Deliverer("ios", sender, books.as_deliveries(), 60, lambda: 0.0)


async def refuse(_: Delivery) -> Outcome:
    return Later("nobody answers")


async def test_a_worker_that_has_nothing_to_do_looks_again_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    books = Books()
    with trio.move_on_after(3 * POLL_SECONDS - 1):
        await build(books, ScriptedSender()).keep_delivering()
    assert books.claims == [0, POLL_SECONDS, 2 * POLL_SECONDS]


async def test_what_is_stored_here_is_sent_at_once(autojump_clock: trio.testing.MockClock) -> None:
    books, sender = Books(), ScriptedSender()
    deliverer = build(books, sender)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliverer.keep_delivering)
        nursery.start_soon(deliverer.keep_delivering)
        await trio.sleep(1)
        for moment in (1, 2):
            books.due.append((0.0, build_delivery()))
            deliverer.wake()
            await trio.sleep(1)
            assert len(sender.begun) == moment
            assert max(books.claims) == moment
        nursery.cancel_scope.cancel()


async def test_what_is_stored_while_a_worker_looks_is_not_overlooked(autojump_clock: trio.testing.MockClock) -> None:
    sender = ScriptedSender()

    class Late(Books):
        async def claim_due(self, platform: str, limit: int, lease: float) -> list[Delivery]:
            found = await Books.claim_due(self, platform, limit, lease)
            if len(self.claims) == 1:
                self.due.append((0.0, build_delivery()))
                deliverer.wake()
            return found

    late = Late()
    deliverer = build(late, sender)
    with trio.move_on_after(1):
        await deliverer.keep_delivering()
    assert len(sender.begun) == 1


async def test_a_push_is_sent_again_when_its_pause_is_over(autojump_clock: trio.testing.MockClock) -> None:
    moments: list[float] = []

    async def answer(_: Delivery) -> Outcome:
        moments.append(trio.current_time())
        return Accepted() if len(moments) == 3 else Later("ServiceUnavailable", 2)

    with trio.move_on_after(20):
        await build(Books(1), ScriptedSender(answer)).keep_delivering()
    assert moments == [0, 2, 4]


async def test_each_of_those_that_were_put_off_has_its_own_moment(autojump_clock: trio.testing.MockClock) -> None:
    pauses, moments = [2.0, 3.5, 3.0], list[float]()

    async def answer(_: Delivery) -> Outcome:
        moments.append(trio.current_time())
        return Later("TooManyRequests", pauses.pop()) if pauses else Accepted()

    with trio.move_on_after(20):
        await build(Books(3), ScriptedSender(answer)).keep_delivering()
    assert moments == [0, 0, 0, 2, 3, 3.5]


async def test_of_many_workers_one_looks_for_all(autojump_clock: trio.testing.MockClock) -> None:
    books = Books()
    deliverer = build(books, ScriptedSender())
    with trio.move_on_after(2 * POLL_SECONDS + 1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(deliverer.keep_delivering)
            await trio.sleep(1)
            deliverer.wake()
    assert books.claims == [0, 1, 1 + POLL_SECONDS]


async def test_who_finds_more_than_he_can_carry_calls_the_others(autojump_clock: trio.testing.MockClock) -> None:
    async def answer(_: Delivery) -> Outcome:
        await trio.sleep(1)
        return Accepted()

    sender = ScriptedSender(answer)
    deliverer = build(Books(3 * BATCH), sender)
    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(deliverer.keep_delivering)
            await trio.sleep(0.1)
            begun = len(sender.begun)
    assert begun == 3 * BATCH


async def test_who_has_nothing_to_do_sends_again_what_another_worker_has_put_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The other one has a batch by then that takes long."""
    books, moments = Books(2), list[float]()
    slow = books.due[0][1]

    async def answer(delivery: Delivery) -> Outcome:
        if delivery is not slow:
            moments.append(trio.current_time())
        if trio.current_time() < 1:
            return Later("ServiceUnavailable", 1 if delivery is slow else 2)
        if delivery is slow:
            await trio.sleep(10)
        return Accepted()

    deliverer = build(books, ScriptedSender(answer))
    with trio.move_on_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliverer.keep_delivering)
            nursery.start_soon(deliverer.keep_delivering)
    assert moments == [0, 2]


async def test_many_pushes_to_one_token_keep_nobody_elses_waiting_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(delivery: Delivery) -> Outcome:
        await trio.sleep(0.1)
        if delivery.token_id == other.token_id:
            reached.append(trio.current_time())
        return Accepted()

    other, crowded, reached = build_delivery(), build_delivery(), list[float]()
    books = Books()
    books.due = [(0.0, replace(crowded, notification_id=uuid4())) for _ in range(1000)]
    books.due.append((0.0, other))
    sender = ScriptedSender(answer)
    with trio.move_on_after(200):
        await build(books, sender).keep_delivering()
    assert reached[0] < 15
    assert len(sender.accepted) == len(set(sender.accepted)) == 1001


async def test_while_a_service_is_away_batches_come_seldom(autojump_clock: trio.testing.MockClock) -> None:
    """A backlog of many batches: each fails at once, and none is due before its own pause is over."""
    books, sender = Books(40 * BATCH), ScriptedSender(refuse)
    with trio.move_on_after(60):
        await build(books, sender).keep_delivering()
    assert books.claims == [0, 1, 3, 7, 15, 31]


async def test_after_an_outage_all_goes_on_at_full_pace(autojump_clock: trio.testing.MockClock) -> None:
    async def answer(_: Delivery) -> Outcome:
        return Later("nobody answers") if trio.current_time() < 5 else Accepted()

    sender = ScriptedSender(answer)
    with trio.move_on_after(8):
        await build(Books(20 * BATCH), sender).keep_delivering()
    assert len(sender.accepted) == 20 * BATCH


async def test_while_postgresql_is_away_it_is_asked_seldom(autojump_clock: trio.testing.MockClock) -> None:
    books = Books()
    books.is_away = True
    with trio.move_on_after(3 * POLL_SECONDS - 1):
        await build(books, ScriptedSender()).keep_delivering()
    assert books.claims == [0, POLL_SECONDS, 2 * POLL_SECONDS]
