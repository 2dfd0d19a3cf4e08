"""Deliveries: claimed by one at a time, noted together, due again when whoever had them is gone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import trio

from storage.deliveries import Deliveries, Delivery, Ended, Gone, Key, Note, PutOff
from storage.embedded import EmbeddedServers
from storage.postgres import Database
from tests.conftest import with_database
from tests.storage.people import open_query
from tests.storage.phones import Phones

LEASE_SECONDS = 60


@pytest.fixture
async def deliveries(accounts: Database) -> Deliveries:
    return Deliveries(accounts)


@pytest.fixture
def owner_url(servers: EmbeddedServers, accounts_name: str) -> str:
    return with_database(servers.owner_database_url, accounts_name)


@pytest.fixture
def phones(owner_url: str) -> Iterator[Phones]:
    """Of this test alone."""
    with open_query(owner_url) as query:
        query("DELETE FROM users")
        yield Phones(query)


async def claim(deliveries: Deliveries, limit: int = 100) -> list[Delivery]:
    return await deliveries.claim_due("ios", limit, LEASE_SECONDS)


async def claim_one(deliveries: Deliveries) -> Delivery:
    (delivery,) = await claim(deliveries)
    return delivery


async def note(deliveries: Deliveries, *notes: Note) -> None:
    assert await deliveries.note(notes) == frozenset()


# Claims


async def test_what_is_claimed_has_all_that_is_to_be_sent(deliveries: Deliveries, phones: Phones) -> None:
    token_id = phones.make_token()
    notification_id = phones.notify(token_id)
    delivery = await claim_one(deliveries)
    assert delivery.key == (notification_id, token_id)
    assert (delivery.token, delivery.environment, delivery.platform) == (f"token-{token_id}", None, "ios")
    assert (delivery.kind, delivery.job_id) == ("job_completed", "job-1")
    assert (delivery.is_silent, delivery.attempts) == (False, 1)
    assert (delivery.title, delivery.body, delivery.custom_data) == ("the title", "the body", {"type": "job_completed"})
    assert timedelta(hours=23) < delivery.deliver_until - delivery.created_at <= timedelta(days=1)
    assert abs(delivery.claimed_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_neither_token_nor_text_shows_in_a_repr(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    shown = repr(Ended(await claim_one(deliveries), "sent"))
    assert [word for word in ("token-", "the title", "the body", "'type'") if word in shown] == []


async def test_what_is_claimed_is_due_again_when_the_lease_is_over_with_the_same_push_id(
    deliveries: Deliveries, phones: Phones
) -> None:
    phones.notify(phones.make_token())
    first = await claim_one(deliveries)
    assert await claim(deliveries) == []
    phones.query("UPDATE notification_deliveries SET next_attempt_at = next_attempt_at - interval '59 seconds'")
    assert await claim(deliveries) == []
    phones.query("UPDATE notification_deliveries SET next_attempt_at = next_attempt_at - interval '1 second'")
    second = await claim_one(deliveries)
    assert (first.attempts, second.attempts) == (1, 2)
    assert first.push_id == second.push_id


async def test_those_due_the_longest_are_claimed_and_come_in_the_order_in_which_they_were_stored(
    deliveries: Deliveries, phones: Phones
) -> None:
    token_id = phones.make_token()
    stored = [phones.notify(token_id, ago=f"{minutes} minutes") for minutes in (3, 2, 1, 0)]
    phones.query(
        "UPDATE notification_deliveries SET next_attempt_at = now() - interval '1 hour' WHERE notification_id = %s",
        stored[2],
    )
    assert [delivery.notification_id for delivery in await claim(deliveries, 2)] == [stored[0], stored[2]]
    assert [delivery.notification_id for delivery in await claim(deliveries, 2)] == [stored[1], stored[3]]


async def test_each_platform_is_claimed_for_itself(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token(platform="android"))
    assert await claim(deliveries) == []
    assert len(await deliveries.claim_due("android", 10, LEASE_SECONDS)) == 1


async def test_many_workers_claim_each_delivery_once(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify_often(200, phones.make_token(), phones.make_token())
    claimed: list[Key] = []

    async def work() -> None:
        while mine := await claim(deliveries, 7):
            claimed.extend(delivery.key for delivery in mine)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(work)
    assert len(claimed) == len(set(claimed)) == 400


async def test_what_was_not_delivered_in_its_time_expires_and_hides_nothing_behind_it(
    deliveries: Deliveries, phones: Phones
) -> None:
    token_id = phones.make_token()
    late = [phones.notify(token_id, ago="2 days") for _ in range(5)]
    living = phones.notify(token_id)
    assert [delivery.notification_id for delivery in await claim(deliveries, 2)] == [living]
    states = phones.query("SELECT notification_id, state, attempts, ended_at IS NULL FROM notification_deliveries")
    assert {row[1:] for row in states if row[0] in late} == {("expired", 0, False)}


async def test_what_nobody_claims_any_more_expires_too(deliveries: Deliveries, phones: Phones) -> None:
    android = phones.make_token(platform="android")
    phones.notify(android, ago="2 days")
    phones.notify(android, ago="2 days")
    phones.notify(android)
    assert [await deliveries.expire(limit=1) for _ in range(3)] == [1, 1, 0]
    assert [state for (state,) in phones.read("state")] == ["expired", "expired", "due"]


async def test_what_somebody_has_at_this_moment_does_not_expire(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token(), within="1 hour")
    await claim_one(deliveries)
    phones.query("UPDATE notifications SET deliver_until = now()")
    assert await deliveries.expire() == 0


# Notes


async def test_a_batch_is_noted_in_one_statement(deliveries: Deliveries, phones: Phones) -> None:
    tokens = [phones.make_token() for _ in range(4)]
    for minutes, token_id in enumerate(tokens):
        phones.notify(token_id, ago=f"{9 - minutes} minutes")
    sent, failed, later, gone = await claim(deliveries)
    since = datetime.now(UTC)
    await note(
        deliveries,
        Ended(sent, "sent", environment="sandbox"),
        Ended(failed, "failed", "PayloadTooLarge"),
        PutOff(later, 40, "ServiceUnavailable"),
        Gone(gone, since, 1, "Unregistered"),
    )
    assert phones.read("state, reason, ended_at IS NULL") == [
        ("sent", "", False),
        ("failed", "PayloadTooLarge", False),
        ("due", "ServiceUnavailable", True),
    ]
    assert [phones.has_token(token_id) for token_id in tokens] == [True, True, True, False]
    reached = phones.query("SELECT id, environment FROM push_tokens WHERE last_success_at IS NOT NULL")
    assert reached == [(tokens[0], "sandbox")]


async def test_what_is_put_off_is_due_at_its_time(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    await note(deliveries, PutOff(await claim_one(deliveries), 40, "ServiceUnavailable"))
    assert phones.read("round(extract(epoch FROM next_attempt_at - now()) / 10)") == [(4,)]


async def test_what_was_not_begun_is_no_attempt(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    await note(deliveries, PutOff(await claim_one(deliveries), 0, "stopping", is_begun=False))
    assert (await claim_one(deliveries)).attempts == 1


async def test_what_has_ended_stays_ended(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    delivery = await claim_one(deliveries)
    await note(deliveries, Ended(delivery, "sent"))
    long_ago = delivery.created_at - timedelta(days=1)
    for slow in (Ended(delivery, "failed"), PutOff(delivery, 0, "late"), Gone(delivery, long_ago, 0, "late")):
        await note(deliveries, slow)
    assert phones.read("state, reason") == [("sent", "")]
    assert await claim(deliveries) == []


async def test_a_slow_worker_cannot_put_off_what_another_has_claimed(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    slow = await claim_one(deliveries)
    phones.end_leases()
    await claim_one(deliveries)
    await note(deliveries, PutOff(slow, 0, "late"))
    assert await claim(deliveries) == []


async def test_a_note_that_comes_twice_cannot_put_off_what_another_has_claimed_meanwhile(
    deliveries: Deliveries, phones: Phones
) -> None:
    """Its answer was lost, so it is repeated. What was not begun is no attempt: the next claim has the same number."""
    phones.notify(phones.make_token())
    lost = PutOff(await claim_one(deliveries), 0, "stopping", is_begun=False)
    await note(deliveries, lost)
    assert (await claim_one(deliveries)).attempts == lost.delivery.attempts
    await note(deliveries, lost)
    assert phones.read("attempts, reason") == [(1, "stopping")]
    assert await claim(deliveries) == []


async def test_what_is_put_off_for_longer_than_it_has_expires_when_its_time_is_over(
    deliveries: Deliveries, phones: Phones
) -> None:
    phones.notify(phones.make_token(), within="10 minutes")
    await note(deliveries, PutOff(await claim_one(deliveries), 3600, "TooManyRequests"))
    assert phones.query(
        "SELECT next_attempt_at = deliver_until FROM notification_deliveries"
        " JOIN notifications ON notifications.id = notification_id"
    ) == [(True,)]


async def test_a_slow_worker_ends_what_another_has_claimed(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    slow = await claim_one(deliveries)
    phones.end_leases()
    await claim_one(deliveries)
    await note(deliveries, Ended(slow, "sent"))
    assert phones.read() == [("sent", 2, "")]


async def test_reasons_that_nothing_can_hold_are_mended(deliveries: Deliveries, phones: Phones) -> None:
    phones.notify(phones.make_token())
    await note(deliveries, Ended(await claim_one(deliveries), "failed", "a\0b\ud800" + "c" * 900))
    assert phones.read("reason") == [("a?b?" + "c" * 496,)]


async def test_nothing_to_note_is_fine(deliveries: Deliveries) -> None:
    await note(deliveries)


async def test_a_notification_that_was_deleted_meanwhile_is_noted_nowhere(
    deliveries: Deliveries, phones: Phones
) -> None:
    phones.notify(phones.make_token())
    delivery = await claim_one(deliveries)
    phones.query("DELETE FROM notifications")
    await note(deliveries, Ended(delivery, "sent"))
    assert phones.read() == []


# Tokens that are gone


async def test_a_token_that_is_gone_takes_all_with_it_that_was_on_its_way_there(
    deliveries: Deliveries, phones: Phones
) -> None:
    gone, other = phones.make_token(), phones.make_token()
    phones.notify(gone)
    phones.notify(other)
    phones.notify(gone, ago="1 minute")
    first, *_ = await claim(deliveries)
    await note(deliveries, Gone(first, first.claimed_at, 1, "Unregistered"))
    assert phones.read("token_id, state") == [(other, "due")]


async def test_a_token_that_was_brought_again_since_stays_and_is_tried_again(
    deliveries: Deliveries, phones: Phones
) -> None:
    token_id = phones.make_token(registered="1 hour")
    phones.notify(token_id)
    delivery = await claim_one(deliveries)
    await note(deliveries, Gone(delivery, delivery.claimed_at - timedelta(hours=2), 0, "Unregistered"))
    assert phones.has_token(token_id)
    again = await claim_one(deliveries)
    await note(deliveries, Gone(again, again.claimed_at - timedelta(hours=2), None, "Unregistered"))
    assert phones.has_token(token_id)
    assert phones.read() == [("failed", 2, "Unregistered")]


async def test_a_token_that_was_brought_while_it_was_found_gone_stays(deliveries: Deliveries, phones: Phones) -> None:
    token_id = phones.make_token()
    phones.notify(token_id)
    delivery = await claim_one(deliveries)
    phones.query("UPDATE push_tokens SET registered_at = now()")
    await note(deliveries, Gone(delivery, delivery.claimed_at, 0, "BadDeviceToken"))
    assert phones.has_token(token_id)


async def test_of_what_is_said_of_one_token_the_latest_moment_counts(deliveries: Deliveries, phones: Phones) -> None:
    token_id = phones.make_token(registered="1 hour")
    phones.notify(token_id)
    phones.notify(token_id)
    one, two = await claim(deliveries)
    early = one.claimed_at - timedelta(hours=2)
    await note(deliveries, Gone(one, early, 0, "Unregistered"), Gone(two, two.claimed_at, 0, "Unregistered"))
    assert not phones.has_token(token_id)


# Locks


async def test_what_somebody_has_locked_is_told_and_noted_later(
    deliveries: Deliveries, phones: Phones, owner_url: str
) -> None:
    """A transaction that deletes the notification may still be rolled back: then it must not be sent again."""
    token_id, other = phones.make_token(), phones.make_token()
    held = phones.notify(token_id, ago="1 minute")
    phones.notify(other)
    one, two = await claim(deliveries)
    with psycopg.connect(owner_url) as deletion:
        deletion.execute("DELETE FROM notifications WHERE id = %s", [held])
        assert await deliveries.note([Ended(one, "sent"), Ended(two, "sent")]) == {one.key}
        deletion.rollback()
    assert phones.read("state") == [("due",), ("sent",)]
    await note(deliveries, Ended(one, "sent"))
    assert phones.read("state") == [("sent",), ("sent",)]


async def test_a_token_that_somebody_has_locked_is_left_for_the_next_that_finds_it_gone(
    deliveries: Deliveries, phones: Phones, owner_url: str
) -> None:
    token_id = phones.make_token()
    phones.notify(token_id)
    delivery = await claim_one(deliveries)
    with psycopg.connect(owner_url) as saving:
        saving.execute("SELECT FROM push_tokens FOR KEY SHARE")
        await note(deliveries, Gone(delivery, delivery.claimed_at, 0, "Unregistered"))
    assert phones.has_token(token_id)
    again = await claim_one(deliveries)
    await note(deliveries, Gone(again, again.claimed_at, 0, "Unregistered"))
    assert not phones.has_token(token_id)


async def test_a_token_of_which_somebody_has_a_delivery_is_left_too_and_nobody_waits(
    deliveries: Deliveries, phones: Phones, owner_url: str
) -> None:
    token_id = phones.make_token()
    held = phones.notify(token_id)
    phones.notify(token_id, ago="1 minute")
    delivery, _ = await claim(deliveries)
    with psycopg.connect(owner_url) as deletion:
        deletion.execute("DELETE FROM notifications WHERE id = %s", [held])
        with trio.fail_after(2):
            await note(deliveries, Gone(delivery, delivery.claimed_at, 0, "Unregistered"))
    assert phones.has_token(token_id)
    again = await claim_one(deliveries)
    await note(deliveries, Gone(again, again.claimed_at, 0, "Unregistered"))
    assert not phones.has_token(token_id)


async def test_what_is_locked_is_claimed_by_nobody(
    deliveries: Deliveries, phones: Phones, owner_url: str
) -> None:
    phones.notify(phones.make_token())
    with psycopg.connect(owner_url) as deletion:
        deletion.execute("DELETE FROM users")
        with trio.fail_after(2):
            assert await claim(deliveries) == []


# Figures


async def test_deliveries_are_counted_by_platform_and_state(deliveries: Deliveries, phones: Phones) -> None:
    token_id = phones.make_token()
    phones.notify(token_id, ago="10 minutes")
    phones.notify(token_id)
    phones.notify(phones.make_token(platform="android"))
    oldest, newest = await claim(deliveries)
    await note(deliveries, Ended(newest, "sent"))
    traffic = await deliveries.count()
    assert traffic.due == {"ios": 1, "android": 1}
    assert traffic.recent == {"due": 2, "sent": 1}
    assert traffic.late_seconds["ios"] == 0
    await note(deliveries, PutOff(oldest, 0, ""))
    phones.query("UPDATE notification_deliveries SET next_attempt_at = now() - interval '90 seconds'")
    assert 90 <= (await deliveries.count()).late_seconds["ios"] < 120
