"""Deliveries as a process makes them: each sent, each noted, none sent again that was taken. PostgreSQL is real."""

import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
import trio

from server.push.delivery import BATCH, GRACE_SECONDS, Deliverer
from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from storage.deliveries import Deliveries, Delivery, Key, Note
from storage.errors import DatabaseUnavailable
from storage.postgres import Database
from tests.server.push.scripted_sender import ScriptedSender
from tests.storage.phones import Phones


class Unnoted(Deliveries):
    """PostgreSQL, which is away whenever something is to be noted, so many times."""

    def fail(self, times: int) -> None:
        object.__setattr__(self, "times", times)

    @property
    def times_left(self) -> int:
        times: int = getattr(self, "times", 0)
        return times

    async def note(self, notes: Sequence[Note]) -> frozenset[Key]:
        if self.times_left:
            self.fail(self.times_left - 1)
            raise DatabaseUnavailable("PostgreSQL broke off")
        return await Deliveries.note(self, notes)


def build(deliveries: Deliveries, sender: ScriptedSender, lease_seconds: float = 60) -> Deliverer:
    return Deliverer("ios", sender, deliveries, lease_seconds, lambda: 0.0)


def script_by_token(outcomes: Mapping[UUID, Outcome | Exception]) -> ScriptedSender:
    async def answer(delivery: Delivery) -> Outcome:
        await trio.lowlevel.checkpoint()
        outcome = outcomes[delivery.token_id]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return ScriptedSender(answer)


async def test_what_is_due_is_sent_once(deliveries: Deliveries, phones: Phones) -> None:
    stored = phones.notify(phones.make_token())
    sender = ScriptedSender()
    deliverer = build(deliveries, sender)
    assert [delivery.notification_id for delivery in await deliverer.deliver_once()] == [stored]
    assert await deliverer.deliver_once() == []
    assert sender.accepted == [stored]
    assert phones.read() == [("sent", 1, "")]


async def test_every_outcome_has_its_end(deliveries: Deliveries, phones: Phones) -> None:
    outcomes: list[Outcome] = [
        Accepted("sandbox"),
        TokenGone("Unregistered"),
        Later("ServiceUnavailable"),
        Later("TooManyRequests", 120),
        Refused("PayloadTooLarge"),
    ]
    tokens = [phones.make_token() for _ in outcomes]
    for minutes, token_id in enumerate(tokens):
        phones.notify(token_id, ago=f"{9 - minutes} minutes")
    await build(deliveries, script_by_token(dict(zip(tokens, outcomes, strict=True)))).deliver_once()
    assert phones.read("state, reason, round(extract(epoch FROM next_attempt_at - now()))::int") == [
        ("sent", "", 0),
        ("due", "ServiceUnavailable", 1),
        ("due", "TooManyRequests", 120),
        ("failed", "PayloadTooLarge", 0),
    ]
    assert [phones.has_token(token_id) for token_id in tokens] == [True, False, True, True, True]


async def test_a_fault_of_ours_keeps_no_other_push_and_tells_no_secret(
    deliveries: Deliveries, phones: Phones, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = phones.make_token(), phones.make_token()
    phones.notify(bad, ago="1 minute")
    phones.notify(good)
    fault = ValueError(f"no header can hold token-{bad} nor the title")
    await build(deliveries, script_by_token({bad: fault, good: Accepted()})).deliver_once()
    assert phones.read("state, reason") == [("due", "a fault of ours: ValueError"), ("sent", "")]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "scripted_sender.py" in vars(record)["frames"]
    assert [word for word in ("token-", "the title") if word in str(vars(record))] == []


async def test_pushes_to_one_token_go_one_after_the_other_in_their_order(
    deliveries: Deliveries, phones: Phones
) -> None:
    token_id = phones.make_token()
    stored = [phones.notify(token_id, ago=f"{9 - minutes} minutes") for minutes in range(9)]
    running = 0

    async def answer(_: Delivery) -> Outcome:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(0.001)
        running -= 1
        return Accepted()

    sender = ScriptedSender(answer)
    await build(deliveries, sender).deliver_once()
    assert sender.accepted == stored


async def test_what_is_newer_waits_for_what_is_to_be_sent_again_but_not_for_ever(
    deliveries: Deliveries, phones: Phones
) -> None:
    token_id = phones.make_token()
    older = phones.notify(token_id, ago="1 minute")
    newer = phones.notify(token_id)

    async def answer(delivery: Delivery) -> Outcome:
        return Later("InternalServerError") if delivery.notification_id == older else Accepted()

    sender = ScriptedSender(answer)
    deliverer = build(deliveries, sender)
    for _ in range(3):
        await deliverer.deliver_once()
        phones.end_leases()
    assert sender.accepted == []
    await deliverer.deliver_once()
    assert sender.accepted == [newer]
    assert phones.read("state, attempts") == [("due", 4), ("sent", 1)]


async def test_a_sender_that_hangs_has_its_time_and_no_more(deliveries: Deliveries, phones: Phones) -> None:
    hanging, fine = phones.make_token(), phones.make_token()
    phones.notify(hanging, ago="2 minutes")
    phones.notify(hanging, ago="1 minute")
    phones.notify(fine)

    async def answer(delivery: Delivery) -> Outcome:
        if delivery.token_id == hanging:
            await trio.sleep_forever()
        return Accepted()

    await build(deliveries, ScriptedSender(answer), lease_seconds=0.2).deliver_once()
    assert phones.read("state, attempts, reason <> ''") == [("due", 1, True), ("due", 0, True), ("sent", 1, False)]


async def test_two_thousand_deliveries_are_drained_by_workers_side_by_side_and_none_is_sent_twice(
    deliveries: Deliveries, phones: Phones
) -> None:
    phones.notify_often(100, *(phones.make_token() for _ in range(20)))
    one, two = ScriptedSender(), ScriptedSender()
    async with trio.open_nursery() as nursery:
        for deliverer in (build(deliveries, one), build(deliveries, two)):
            nursery.start_soon(deliverer.keep_delivering)
            nursery.start_soon(deliverer.keep_delivering)
        with trio.fail_after(20):
            while len(one.begun) + len(two.begun) < 2000:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    accepted = one.accepted + two.accepted
    assert len(accepted) == len(set(accepted)) == 2000
    assert phones.query("SELECT state, count(*) FROM notification_deliveries GROUP BY state") == [("sent", 2000)]


async def test_what_a_killed_process_had_is_sent_again_when_its_lease_is_over(
    deliveries: Deliveries, phones: Phones
) -> None:
    stored = phones.notify(phones.make_token())
    (lost,) = await deliveries.claim_due("ios", BATCH, 60)
    sender = ScriptedSender()
    deliverer = build(deliveries, sender)
    assert await deliverer.deliver_once() == []
    phones.end_leases()
    await deliverer.deliver_once()
    assert sender.accepted == [stored]
    assert sender.begun[0].push_id == lost.push_id


# The end of a process


async def test_a_stop_waits_for_answers_under_way_and_notes_them(deliveries: Deliveries, phones: Phones) -> None:
    quick, slow = phones.make_token(), phones.make_token()
    phones.notify(quick, ago="1 minute")
    phones.notify(slow)
    stopping = trio.Event()

    async def answer(delivery: Delivery) -> Outcome:
        if delivery.token_id == slow:
            await stopping.wait()
            await trio.sleep(0.05)
        return Accepted()

    sender = ScriptedSender(answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build(deliveries, sender).keep_delivering)
        await sender.wait_begun(2)
        nursery.cancel_scope.cancel()
        stopping.set()
    assert phones.read() == [("sent", 1, ""), ("sent", 1, "")]


async def test_a_stop_gives_back_at_once_what_was_not_begun_and_loses_nothing(
    deliveries: Deliveries, phones: Phones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.push.delivery.GRACE_SECONDS", 0.05)
    token_id = phones.make_token()
    stored = [phones.notify(token_id, ago=f"{9 - minutes} minutes") for minutes in range(3)]

    async def answer(delivery: Delivery) -> Outcome:
        if delivery.notification_id == stored[1]:
            await trio.sleep_forever()
        return Accepted()

    sender = ScriptedSender(answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build(deliveries, sender).keep_delivering)
        await sender.wait_begun(2)
        nursery.cancel_scope.cancel()
    columns = "state, attempts, next_attempt_at < now() + interval '5 seconds'"
    assert phones.read(columns) == [("sent", 1, True), ("due", 1, True), ("due", 0, True)]
    phones.end_leases()
    successor = ScriptedSender()
    await build(deliveries, successor).deliver_once()
    assert sender.accepted + successor.accepted == stored


async def test_a_stop_in_the_middle_of_a_claim_gives_it_back(push_database: Database, phones: Phones) -> None:
    class Slow(Deliveries):
        async def claim_due(self, *args: object) -> list[Delivery]:
            claimed = await Deliveries.claim_due(self, *args)  # type: ignore[arg-type] # as they came
            stopped.set()
            await trio.sleep(0.02)
            return claimed

    stopped = trio.Event()
    phones.notify(phones.make_token())
    sender = ScriptedSender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build(Slow(push_database), sender).keep_delivering)
        await stopped.wait()
        nursery.cancel_scope.cancel()
    assert sender.begun == []
    assert phones.read("state, attempts, next_attempt_at <= now()") == [("due", 0, True)]


async def test_what_could_not_be_noted_is_noted_when_the_process_is_stopped(
    push_database: Database, phones: Phones
) -> None:
    """PostgreSQL is back, and nobody has looked since. Who stops is given a moment, also for what is locked."""
    phones.notify(phones.make_token())
    deliveries = Unnoted(push_database)
    deliveries.fail(2)
    sender = ScriptedSender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build(deliveries, sender).keep_delivering)
        with trio.fail_after(5):
            while deliveries.times_left > 1:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert phones.read("state") == [("sent",)]


def test_a_stop_is_over_before_anybody_loses_patience() -> None:
    assert GRACE_SECONDS <= 5


# PostgreSQL is away


async def test_what_was_sent_and_could_not_be_noted_is_noted_later_and_not_sent_again(
    push_database: Database, phones: Phones, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if its lease is over before PostgreSQL is back."""
    stored = phones.notify(phones.make_token())
    deliveries = Unnoted(push_database)
    deliveries.fail(3)
    sender = ScriptedSender()
    deliverer = build(deliveries, sender)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await deliverer.deliver_once()
        phones.end_leases()
    await deliverer.deliver_once()
    assert sender.accepted == [stored]
    assert phones.read("state") == [("sent",)]


async def test_what_is_not_noted_yet_is_not_sent_by_another_worker_of_the_process(
    deliveries: Deliveries, phones: Phones
) -> None:
    """The lease of what waits for its answer ends, and a second worker claims it."""
    phones.notify(phones.make_token())
    answering = trio.Event()

    async def answer(_: Delivery) -> Outcome:
        await answering.wait()
        return Accepted()

    sender = ScriptedSender(answer)
    deliverer = build(deliveries, sender)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliverer.deliver_once)
        await sender.wait_begun(1)
        phones.end_leases()
        assert len(await deliverer.deliver_once()) == 1
        answering.set()
    assert len(sender.begun) == 1
    assert phones.read("state") == [("sent",)]


async def test_a_connection_that_is_killed_while_noting_costs_no_second_push(
    deliveries: Deliveries, phones: Phones
) -> None:
    stored = phones.notify(phones.make_token())
    phones.query(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$;"
        "CREATE TRIGGER die BEFORE UPDATE ON notification_deliveries FOR EACH ROW WHEN (NEW.state = 'sent')"
        " EXECUTE FUNCTION die()"
    )
    sender = ScriptedSender()
    deliverer = build(deliveries, sender)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await deliverer.deliver_once()
        phones.query("UPDATE notification_deliveries SET next_attempt_at = now() - interval '1 second'")
    phones.query("DROP FUNCTION die CASCADE")
    await deliverer.deliver_once()
    assert sender.accepted == [stored]
    assert phones.read("state") == [("sent",)]
