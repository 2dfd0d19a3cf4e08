"""Consents: what stands, what has happened, and who is counted."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from storage.audit import AuditLog
from storage.consents import (
    AcceptedBetween,
    Consent,
    ConsentAct,
    accept_document,
    count_agreed,
    count_by_document,
    count_users,
    read_consents,
    withdraw_consent,
)
from storage.credits import UserUnknown
from storage.legal_documents import DocType, LegalRegion
from storage.postgres import Database, open_database
from storage.sign_ins import SignIns
from tests.storage.calls import make_user
from tests.storage.documents import build_document, write_documents
from tests.storage.people import ENTRY, Query, wait_until_somebody_waits

EVENTS = """
    SELECT doc_type, region, version, action, source, address, user_agent, metadata
    FROM user_consent_events WHERE user_id = %s ORDER BY created_at
"""
ALWAYS = AcceptedBetween()
HOUR = timedelta(hours=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=8) as database:
        yield database


def build_act(user_id: UUID, doc_type: DocType = "terms", region: LegalRegion = "eu", **changes: Any) -> ConsentAct:
    return ConsentAct(user_id, doc_type, region, **{"source": "desktop", **changes})


async def accept(database: Database, act: ConsentAct, version: str = "1") -> bool:
    async with database.as_operator("test").transaction() as connection:
        return await accept_document(connection, act, version)


async def withdraw(database: Database, act: ConsentAct) -> str | None:
    async with database.as_operator("test").transaction() as connection:
        return await withdraw_consent(connection, act)


async def test_what_was_accepted_stands_with_its_time_and_its_event(database: Database, query: Query) -> None:
    user_id, before = await make_user(database), datetime.now(UTC)
    act = build_act(user_id, address="192.0.2.1", user_agent="Desk\0top", metadata={"locale": "de", "n": 10**30})
    assert await accept(database, act, "2025-08-12")
    (consent,) = await read_consents(database, user_id, "eu")
    assert consent.accepted_at is not None
    assert before <= consent.accepted_at <= datetime.now(UTC)
    assert consent == Consent("terms", "eu", "2025-08-12", consent.accepted_at)
    assert await read_consents(database, user_id, "us") == []
    assert query(EVENTS, user_id) == [
        ("terms", "eu", "2025-08-12", "accepted", "desktop", "192.0.2.1", "Desk\ufffdtop", act.metadata)
    ]
    assert query("SELECT created_at FROM user_consent_events") == [(consent.accepted_at,)]


async def test_accepting_again_changes_nothing_and_a_new_version_does(database: Database, query: Query) -> None:
    user_id = await make_user(database)
    assert await accept(database, build_act(user_id))
    first = await read_consents(database, user_id, "eu")
    assert not await accept(database, build_act(user_id, source="mobile"))
    assert await read_consents(database, user_id, "eu") == first
    assert await accept(database, build_act(user_id), "2")
    (consent,) = await read_consents(database, user_id, "eu")
    assert consent.accepted_version == "2"
    assert [row[2:4] for row in query(EVENTS, user_id)] == [("1", "accepted"), ("2", "accepted")]


async def test_a_withdrawal_leaves_nothing_accepted_and_names_the_version_that_was(
    database: Database, query: Query
) -> None:
    user_id = await make_user(database)
    await accept(database, build_act(user_id), "7")
    await accept(database, build_act(user_id, "privacy"), "8")
    assert await withdraw(database, build_act(user_id)) == "7"
    assert await withdraw(database, build_act(user_id)) is None
    assert await withdraw(database, build_act(user_id, region="us")) is None
    privacy, terms = await read_consents(database, user_id, "eu")
    assert (terms.accepted_version, terms.accepted_at, privacy.accepted_version) == (None, None, "8")
    events = [row[:4] for row in query(EVENTS, user_id)]
    assert events[-1] == ("terms", "eu", "7", "withdrawn")
    assert len(events) == 3
    assert await accept(database, build_act(user_id), "7")


async def test_one_users_consent_is_nobody_elses(database: Database) -> None:
    one, other = await make_user(database), await make_user(database)
    await accept(database, build_act(one))
    assert await read_consents(database, other, "eu") == []
    assert await withdraw(database, build_act(other)) is None
    assert len(await read_consents(database, one, "eu")) == 1


async def test_many_who_accept_at_once_make_one_event(database: Database, query: Query) -> None:
    user_id = await make_user(database)
    changed = []

    async def try_it() -> None:
        changed.append(await accept(database, build_act(user_id)))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(try_it)
    assert sorted(changed) == [False] * 7 + [True]
    assert len(query(EVENTS, user_id)) == 1


async def test_events_stand_in_the_order_of_the_changes_whoever_began_first(database: Database, query: Query) -> None:
    user_id = await make_user(database)
    act, rights = build_act(user_id), database.as_operator("test")
    async with rights.transaction() as slow:
        async with rights.transaction() as slower:
            await accept(database, act, "1")
            await withdraw(database, act)
            await accept_document(slower, act, "2")
        await withdraw_consent(slow, act)
    told = [(version, action) for _, _, version, action, *_ in query(EVENTS, user_id)]
    assert told == [("1", "accepted"), ("1", "withdrawn"), ("2", "accepted"), ("2", "withdrawn")]


async def test_nobody_is_accepted_for_who_is_not_there(database: Database, query: Query) -> None:
    for change in (partial(accept, database), partial(withdraw, database)):
        with pytest.raises(UserUnknown):
            await change(build_act(uuid4()))
    assert query("SELECT 1 FROM user_consent_events") == []


async def test_an_account_that_goes_takes_its_consents_along(database: Database, query: Query) -> None:
    """Who accepts meanwhile waits, and is told that nobody is there."""
    user_id = await make_user(database)
    await accept(database, build_act(user_id))
    refused = []

    async def try_it() -> None:
        try:
            await accept(database, build_act(user_id, "privacy"))
        except UserUnknown:
            refused.append(user_id)

    async with trio.open_nursery() as nursery, database.as_operator("test").transaction() as connection:
        await connection.send(connection.bind("DELETE FROM users WHERE id = %s", [user_id]))
        nursery.start_soon(try_it)
        await wait_until_somebody_waits(query)
    assert refused == [user_id]
    assert query("SELECT 1 FROM user_consents UNION ALL SELECT 2 FROM user_consent_events") == []


async def test_a_deletion_waits_for_who_accepts(database: Database, query: Query) -> None:
    user_id = await make_user(database)
    sign_ins = SignIns(database, AuditLog(database, "test", "s" * 32))
    async with trio.open_nursery() as nursery, database.as_operator("test").transaction() as connection:
        await accept_document(connection, build_act(user_id), "1")
        nursery.start_soon(sign_ins.delete_account, user_id, ENTRY)
        await wait_until_somebody_waits(query)
    assert query("SELECT 1 FROM user_consents UNION ALL SELECT 2 FROM users") == []


async def test_users_are_counted_by_the_version_where_they_stand(database: Database, owner_database_url: str) -> None:
    write_documents(
        owner_database_url,
        build_document("terms", "1"),
        build_document("terms", "2", datetime(2026, 1, 1, tzinfo=UTC).date()),
        build_document("privacy", "1"),
        build_document("terms", "1", region="us"),
    )
    ann, bob, cid = [await make_user(database) for _ in range(3)]
    await accept(database, build_act(ann), "1")
    await accept(database, build_act(ann), "2")
    await accept(database, build_act(bob), "1")
    await accept(database, build_act(bob, "terms", "us"), "1")
    await accept(database, build_act(cid, "privacy"), "1")
    await withdraw(database, build_act(cid, "privacy"))

    async def count(region: LegalRegion | None, doc_type: DocType | None) -> list[tuple[str, str, str, int]]:
        counts = await count_by_document(database, region, doc_type, ALWAYS)
        return [(found.doc_type, found.region, found.version, found.accepted) for found in counts]

    privacy, old, new, american = await count(None, None)
    assert (privacy, old) == (("privacy", "eu", "1", 0), ("terms", "eu", "1", 1))
    assert (new, american) == (("terms", "eu", "2", 1), ("terms", "us", "1", 1))
    assert await count("eu", "terms") == [old, new]
    assert await count("us", "privacy") == []
    assert await count_users(database) == 3


async def test_who_agreed_to_enough_of_the_documents_is_counted_once(database: Database) -> None:
    documents = [build_document("privacy", "1"), build_document("terms", "2")]
    ann, bob = await make_user(database), await make_user(database)
    await accept(database, build_act(ann, "privacy"), "1")
    await accept(database, build_act(ann), "2")
    await accept(database, build_act(bob, "privacy"), "1")
    await accept(database, build_act(bob), "1")
    assert await count_agreed(database, documents, 2, ALWAYS) == 1
    assert await count_agreed(database, documents, 1, ALWAYS) == 2
    assert await count_agreed(database, [], 0, ALWAYS) == 0


async def test_only_what_was_accepted_in_the_time_counts(database: Database, owner_database_url: str) -> None:
    write_documents(owner_database_url, build_document())
    user_id = await make_user(database)
    await accept(database, build_act(user_id))
    ((at,),) = [[consent.accepted_at] for consent in await read_consents(database, user_id, "eu")]
    assert at is not None
    for between, expected in [
        (AcceptedBetween(at, at), 1),
        (AcceptedBetween(at - HOUR, None), 1),
        (AcceptedBetween(None, at + HOUR), 1),
        (AcceptedBetween(at + timedelta(microseconds=1), None), 0),
        (AcceptedBetween(None, at - timedelta(microseconds=1)), 0),
        (AcceptedBetween(at + HOUR, at - HOUR), 0),
    ]:
        (count,) = await count_by_document(database, None, None, between)
        assert count.accepted == expected
        assert await count_agreed(database, [build_document()], 1, between) == expected
