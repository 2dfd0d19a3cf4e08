"""Whom the gate lets through, whom it remembers, and how soon it forgets."""

from collections.abc import AsyncIterator
from datetime import date
from uuid import UUID

import pytest
from trio.testing import MockClock

from server.consent_gate import REMEMBER_SECONDS, ConsentGate, build_consent_gate
from server.errors import ConsentRequired
from storage.consents import Consent, ConsentAct, accept_document, read_consents, withdraw_consent
from storage.errors import DatabaseUnavailable
from storage.legal_documents import DocType, LegalDocument, LegalRegion
from storage.postgres import Database, open_database
from tests.storage.calls import make_user
from tests.storage.documents import build_document

PRIVACY, TERMS = build_document("privacy", "1"), build_document("terms", "1")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


def build_gate(database: Database, *documents: LegalDocument, max_remembered: int = 10) -> ConsentGate:
    return ConsentGate(database, "eu", lambda: documents or (PRIVACY, TERMS), max_remembered)


async def accept(database: Database, user_id: UUID, *doc_types: DocType, version: str = "1") -> None:
    for doc_type in doc_types:
        async with database.as_operator("test").transaction() as connection:
            await accept_document(connection, ConsentAct(user_id, doc_type, "eu", "api"), version)


async def withdraw(database: Database, user_id: UUID) -> None:
    async with database.as_operator("test").transaction() as connection:
        await withdraw_consent(connection, ConsentAct(user_id, "terms", "eu", "api"))


async def make_agreed_user(database: Database) -> UUID:
    user_id = await make_user(database)
    await accept(database, user_id, "privacy", "terms")
    return user_id


async def test_who_lacks_a_document_is_told_which_and_where_until_it_is_accepted(database: Database) -> None:
    gate, user_id = build_gate(database), await make_user(database)
    with pytest.raises(ConsentRequired, match=r"privacy and terms first: GET /api/consent/status\?region=eu"):
        await gate.check(user_id)
    await accept(database, user_id, "privacy")
    with pytest.raises(ConsentRequired, match="the current terms first"):
        await gate.check(user_id)
    await accept(database, user_id, "terms")
    await gate.check(user_id)


async def test_who_has_agreed_is_looked_up_once_a_minute(mock_clock: MockClock, database: Database) -> None:
    gate, user_id = build_gate(database), await make_agreed_user(database)
    await gate.check(user_id)
    await withdraw(database, user_id)
    mock_clock.jump(REMEMBER_SECONDS - 1)
    await gate.check(user_id)
    mock_clock.jump(1)
    with pytest.raises(ConsentRequired):
        await gate.check(user_id)


async def test_the_minute_begins_with_the_question_however_late_the_answer_comes(
    mock_clock: MockClock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, user_id = build_gate(database), await make_agreed_user(database)

    async def read_slowly(database: Database, user_id: UUID, region: LegalRegion) -> list[Consent]:
        found = await read_consents(database, user_id, region)
        await withdraw(database, user_id)
        mock_clock.jump(10)
        return found

    with monkeypatch.context() as patch:
        patch.setattr("server.consent_gate.read_consents", read_slowly)
        await gate.check(user_id)
    mock_clock.jump(REMEMBER_SECONDS - 10)
    with pytest.raises(ConsentRequired):
        await gate.check(user_id)


async def test_who_withdraws_here_is_forgotten_at_once(database: Database) -> None:
    gate, user_id = build_gate(database), await make_agreed_user(database)
    await gate.check(user_id)
    await withdraw(database, user_id)
    gate.forget(user_id)
    with pytest.raises(ConsentRequired):
        await gate.check(user_id)


async def test_what_was_read_before_a_withdrawal_is_not_remembered_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, user_id = build_gate(database), await make_agreed_user(database)

    async def read_slowly(database: Database, user_id: UUID, region: LegalRegion) -> list[Consent]:
        found = await read_consents(database, user_id, region)
        await withdraw(database, user_id)
        gate.forget(user_id)
        return found

    with monkeypatch.context() as patch:
        patch.setattr("server.consent_gate.read_consents", read_slowly)
        await gate.check(user_id)
    with pytest.raises(ConsentRequired):
        await gate.check(user_id)


async def test_a_new_document_asks_everybody_again(database: Database) -> None:
    documents, user_id = [TERMS], await make_agreed_user(database)
    gate = ConsentGate(database, "eu", lambda: documents)
    await gate.check(user_id)
    documents.append(build_document("terms", "2", date(2025, 9, 1), material=True))
    with pytest.raises(ConsentRequired):
        await gate.check(user_id)
    await accept(database, user_id, "terms", version="2")
    await gate.check(user_id)


async def test_no_more_users_are_remembered_than_there_is_room_for(database: Database) -> None:
    gate = build_gate(database, max_remembered=2)
    oldest, *others = [await make_agreed_user(database) for _ in range(3)]
    for user_id in (oldest, *others):
        await gate.check(user_id)
        await withdraw(database, user_id)
    for user_id in others:
        await gate.check(user_id)
    with pytest.raises(ConsentRequired):
        await gate.check(oldest)


async def test_who_cannot_be_looked_up_does_not_pass(database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        gate, user_id = build_gate(database), await make_agreed_user(database)
    with pytest.raises(DatabaseUnavailable):
        await gate.check(user_id)


async def test_where_no_document_is_in_force_nobody_is_asked(database: Database) -> None:
    gate = build_gate(database, build_document(effective_at=date(2999, 1, 1)))
    await gate.check(await make_user(database))


async def test_without_a_region_there_is_no_gate(database: Database) -> None:
    assert build_consent_gate(database, None, tuple) is None
    assert build_consent_gate(database, "us", tuple) is not None
