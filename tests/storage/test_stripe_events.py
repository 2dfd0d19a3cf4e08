"""Stripe's events: stored once, claimed by one worker at a time, due again when a worker is gone, ended once."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import trio
from psycopg import errors

from storage.errors import StorageError
from storage.postgres import open_database
from storage.stripe_events import StripeEvents
from tests.storage.people import Query

LEASE_SECONDS = 60
PAYLOAD = b'{"id": "evt_1", "data": {"object": {"name": "\\u0000 \xc3\xa4"}}}\n'


@pytest.fixture
async def events(database_url: str) -> AsyncIterator[StripeEvents]:
    async with open_database(database_url, size=8) as database:
        yield StripeEvents(database)


async def store(events: StripeEvents, *ids: str) -> None:
    for id_ in ids:
        assert await events.store(id_, "invoice.paid", PAYLOAD)


async def claim_ids(events: StripeEvents, limit: int = 100) -> list[str]:
    return [event.id for event in await events.claim_due(limit, LEASE_SECONDS)]


async def test_an_event_is_stored_once(events: StripeEvents) -> None:
    assert await events.store("evt_1", "invoice.paid", PAYLOAD)
    assert not await events.store("evt_1", "invoice.paid", b"{}")
    (event,) = await events.claim_due(10, LEASE_SECONDS)
    assert (event.id, event.type, event.payload, event.attempts) == ("evt_1", "invoice.paid", PAYLOAD, 1)


async def test_an_event_that_ended_is_not_stored_again(events: StripeEvents) -> None:
    await store(events, "evt_1")
    await events.finish("evt_1", "done")
    assert not await events.store("evt_1", "invoice.paid", PAYLOAD)
    assert await claim_ids(events) == []


async def test_a_payload_shows_in_no_repr(events: StripeEvents) -> None:
    await store(events, "evt_1")
    assert "evt_1" in repr(await events.claim_due(1, LEASE_SECONDS))
    await store(events, "evt_2")
    assert "data" not in repr(await events.claim_due(1, LEASE_SECONDS))


async def test_events_are_claimed_in_the_order_in_which_they_came(events: StripeEvents) -> None:
    await store(events, "evt_3", "evt_1", "evt_2")
    assert await claim_ids(events, 2) == ["evt_3", "evt_1"]
    assert await claim_ids(events, 2) == ["evt_2"]


async def test_many_workers_claim_every_event_once(events: StripeEvents) -> None:
    ids = [f"evt_{number}" for number in range(40)]
    await store(events, *ids)
    claimed: list[str] = []

    async def work() -> None:
        while mine := await claim_ids(events, 3):
            claimed.extend(mine)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(work)
    assert sorted(claimed) == sorted(ids)


async def test_an_event_whose_worker_is_gone_is_due_again_when_the_lease_is_over(
    events: StripeEvents, query: Query
) -> None:
    await store(events, "evt_1")
    assert await claim_ids(events) == ["evt_1"]
    assert await claim_ids(events) == []
    query("UPDATE stripe_events SET next_attempt_at = next_attempt_at - interval '59 seconds'")
    assert await claim_ids(events) == []
    query("UPDATE stripe_events SET next_attempt_at = next_attempt_at - interval '1 second'")
    (event,) = await events.claim_due(1, LEASE_SECONDS)
    assert event.attempts == 2


async def test_a_worker_whose_connection_broke_keeps_its_claim_and_loses_it_by_its_age(
    events: StripeEvents, query: Query, database_url: str
) -> None:
    await store(events, "evt_1")
    async with open_database(database_url, size=1) as database:
        doomed = StripeEvents(database)
        assert await claim_ids(doomed) == ["evt_1"]
        assert query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s",
            "%WITH due%",
        ) == [(True,)]
    query("UPDATE stripe_events SET next_attempt_at = now()")
    assert await claim_ids(events) == ["evt_1"]


async def test_a_claim_that_was_cut_before_its_end_claims_nothing(events: StripeEvents, query: Query) -> None:
    """The worker's backend dies while the statement waits: the event is due as before."""
    await store(events, "evt_1")
    query(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$"
    )
    query("CREATE TRIGGER die BEFORE UPDATE ON stripe_events FOR EACH ROW EXECUTE FUNCTION die()")
    with pytest.raises(StorageError):
        await claim_ids(events)
    query("DROP TRIGGER die ON stripe_events")
    assert [event.attempts for event in await events.claim_due(1, LEASE_SECONDS)] == [1]


async def test_an_event_that_was_put_off_is_due_at_its_time(events: StripeEvents, query: Query) -> None:
    await store(events, "evt_1")
    await claim_ids(events)
    assert await events.retry_later("evt_1", 300, "Stripe is away")
    assert await claim_ids(events) == []
    assert query("SELECT error, round(extract(epoch FROM next_attempt_at - now()) / 10) FROM stripe_events") == [
        ("Stripe is away", 30)
    ]
    await events.retry_later("evt_1", 0, "")
    assert await claim_ids(events) == ["evt_1"]


async def test_an_event_ends_once_and_is_never_due_again(events: StripeEvents, query: Query) -> None:
    await store(events, "evt_1")
    await claim_ids(events)
    assert await events.finish("evt_1", "refused", "another currency")
    assert not await events.finish("evt_1", "done")
    assert not await events.retry_later("evt_1", 0, "a slow worker")
    assert await claim_ids(events) == []
    assert query("SELECT state, error, ended_at IS NOT NULL FROM stripe_events") == [
        ("refused", "another currency", True)
    ]


async def test_long_errors_are_cut(events: StripeEvents, query: Query) -> None:
    await store(events, "evt_1")
    await events.retry_later("evt_1", 0, "x" * 9000)
    assert query("SELECT length(error) FROM stripe_events") == [(500,)]


async def test_payloads_of_events_that_ended_long_ago_are_dropped_and_their_ids_kept(
    events: StripeEvents, query: Query
) -> None:
    await store(events, "evt_old", "evt_new", "evt_pending")
    await events.finish("evt_old", "done")
    await events.finish("evt_new", "done")
    query("UPDATE stripe_events SET ended_at = now() - interval '31 days' WHERE id = 'evt_old'")
    query("UPDATE stripe_events SET received_at = now() - interval '90 days' WHERE id = 'evt_pending'")
    assert await events.purge_payloads(30) == 1
    assert await events.purge_payloads(30) == 0
    assert query("SELECT id FROM stripe_events WHERE payload IS NULL") == [("evt_old",)]
    assert not await events.store("evt_old", "invoice.paid", PAYLOAD)


async def test_payloads_are_dropped_so_many_at_a_time(events: StripeEvents, query: Query) -> None:
    await store(events, "evt_1", "evt_2", "evt_3")
    query("UPDATE stripe_events SET state = 'done', ended_at = now() - interval '31 days'")
    assert [await events.purge_payloads(30, limit=2) for _ in range(3)] == [2, 1, 0]


async def test_events_are_counted_by_state(events: StripeEvents) -> None:
    assert await events.count() == {}
    await store(events, "evt_1", "evt_2", "evt_3")
    await events.finish("evt_1", "failed", "tried too often")
    assert await events.count() == {"pending": 2, "failed": 1}


async def test_a_user_sees_no_events(events: StripeEvents) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        await events.database.as_user(uuid4()).fetch("SELECT FROM stripe_events")
