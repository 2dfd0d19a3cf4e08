"""Legal documents for tests: made up, or written where a server finds them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg

from storage.legal_documents import DocType, LegalDocument, LegalRegion

BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def build_document(
    doc_type: DocType = "terms",
    version: str = "1",
    effective_at: date = date(2025, 8, 12),
    *,
    region: LegalRegion = "eu",
    material: bool = False,
    made_after: timedelta = timedelta(0),
) -> LegalDocument:
    made_at, url = BEGINNING + made_after, f"/legal/{region}/{doc_type}"
    return LegalDocument(uuid4(), doc_type, region, version, effective_at, url, None, material, made_at, made_at)


def write_documents(owner_database_url: str, *documents: LegalDocument) -> None:
    """These and no others, as the owner of the tables writes them."""
    with psycopg.connect(owner_database_url) as connection:
        connection.execute("DELETE FROM legal_documents")
        for document in documents:
            connection.execute(_WRITE, _read_row(document))


def _read_row(document: LegalDocument) -> dict[str, Any]:
    return {name: getattr(document, name) for name in LegalDocument.__slots__}


_WRITE = """
    INSERT INTO legal_documents
        (id, doc_type, region, version, effective_at, url, content_hash, material_change, created_at, updated_at)
    VALUES (%(id)s, %(doc_type)s, %(region)s, %(version)s, %(effective_at)s, %(url)s, %(content_hash)s,
        %(material_change)s, %(created_at)s, %(updated_at)s)
"""
