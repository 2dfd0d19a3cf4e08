"""What users agree to: every version of every document. Read whole, for they are few and every process keeps them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, LiteralString, get_args
from uuid import UUID

from storage.postgres import Database

DocType = Literal["privacy", "terms"]
LegalRegion = Literal["eu", "us"]

DOC_TYPES: tuple[DocType, ...] = get_args(DocType)
"""In the order in which they are shown."""
LEGAL_REGIONS: tuple[LegalRegion, ...] = get_args(LegalRegion)


@dataclass(frozen=True, slots=True)
class LegalDocument:
    """One version, in force from the first moment of `effective_at` (UTC) until a later version is. `url` is a path on
    the website. `material_change`: who agreed to an earlier version has not agreed to this one.
    """

    id: UUID
    doc_type: DocType
    region: LegalRegion
    version: str
    effective_at: date
    url: str
    content_hash: str | None
    material_change: bool
    created_at: datetime
    updated_at: datetime

    @property
    def age(self) -> tuple[date, datetime, UUID]:
        """Greater for the version that replaces the other."""
        return (self.effective_at, self.created_at, self.id)


async def read_documents(database: Database) -> list[LegalDocument]:
    """All versions, also those of the future; those of one type and region from the oldest to the newest."""
    rows = await database.as_operator("read the legal documents").fetch(_READ)
    return [LegalDocument(*row) for row in rows]


def find_current(documents: Iterable[LegalDocument], region: LegalRegion, today: date) -> list[LegalDocument]:
    """The version in force of each type that the region has, in the order of the types."""
    current: dict[DocType, LegalDocument] = {}
    for document in documents:
        if document.region == region and document.effective_at <= today:
            known = current.get(document.doc_type)
            if known is None or known.age < document.age:
                current[document.doc_type] = document
    return [current[doc_type] for doc_type in DOC_TYPES if doc_type in current]


_READ: LiteralString = """
    SELECT id, doc_type, region, version, effective_at, url, content_hash, material_change, created_at, updated_at
    FROM legal_documents ORDER BY doc_type, region, effective_at, created_at, id
"""
