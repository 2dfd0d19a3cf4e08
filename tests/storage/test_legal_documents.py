"""Legal documents: which version is in force, and what stays beside it."""

from datetime import date, timedelta

import psycopg
import pytest
from psycopg import errors

from storage.legal_documents import LegalDocument, find_current, read_documents
from storage.postgres import open_database
from tests.storage.documents import build_document, write_documents

TODAY = date(2026, 3, 1)
DAY = timedelta(days=1)


def versions(documents: list[LegalDocument]) -> list[tuple[str, str]]:
    return [(document.doc_type, document.version) for document in documents]


def test_the_latest_version_that_is_in_force_is_the_current_one() -> None:
    documents = [
        build_document("terms", "new", TODAY - DAY),
        build_document("terms", "old", TODAY - 30 * DAY),
        build_document("privacy", "only", TODAY),
    ]
    assert versions(find_current(documents, "eu", TODAY)) == [("privacy", "only"), ("terms", "new")]
    assert find_current(documents, "us", TODAY) == []


def test_a_version_of_tomorrow_waits_and_the_one_of_today_stays() -> None:
    days = {"now": TODAY, "soon": TODAY + DAY}
    documents = [build_document(version=version, effective_at=day) for version, day in days.items()]
    assert versions(find_current(documents, "eu", TODAY)) == [("terms", "now")]
    assert versions(find_current(documents, "eu", TODAY + DAY)) == [("terms", "soon")]
    assert find_current(documents, "eu", TODAY - DAY) == []


def test_of_two_versions_of_one_day_the_one_that_was_written_last_is_current() -> None:
    first, second = (build_document(version=str(hours), made_after=timedelta(hours=hours)) for hours in (1, 2))
    for documents in ([first, second], [second, first]):
        assert find_current(documents, "eu", TODAY) == [second]


def test_regions_have_their_own_documents() -> None:
    documents = [build_document(version="e", region="eu"), build_document(version="u", region="us")]
    assert find_current(documents, "us", TODAY) == [documents[1]]


async def test_all_versions_are_read(database_url: str, owner_database_url: str) -> None:
    old, new = build_document(version="1"), build_document(version="2", effective_at=date(2999, 1, 1), material=True)
    privacy = build_document("privacy", region="us")
    write_documents(owner_database_url, new, privacy, old)
    async with open_database(database_url, size=1) as database:
        assert await read_documents(database) == [privacy, old, new]


def test_one_version_stands_once(owner_database_url: str) -> None:
    with pytest.raises(errors.UniqueViolation):
        write_documents(owner_database_url, build_document(), build_document())


def test_the_server_publishes_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute("SET ROLE cloche_operator; UPDATE legal_documents SET version = 'x'")
