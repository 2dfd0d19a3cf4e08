"""Consent, decided: which documents a user has agreed to, which are missing, and what a client may say of it. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

import msgspec

from server.auth.tokens import Headers
from server.errors import ArgumentInvalid, ChoiceUnknown, RequestInvalid
from storage.consents import Consent, ConsentSource
from storage.legal_documents import DOC_TYPES, LEGAL_REGIONS, DocType, LegalDocument, LegalRegion, find_current

MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 16
PERCENT_STEP = Decimal("0.01")

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_CLIENT_TYPES: Mapping[str, ConsentSource] = {
    "desktop": "desktop",
    "mobile": "mobile",
    "ios": "mobile",
    "website": "website",
    "web": "website",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A document in force, and what the user has said to it; `accepted_version` may be an earlier one."""

    document: LegalDocument
    accepted_version: str | None
    accepted_at: datetime | None

    @property
    def is_missing(self) -> bool:
        return self.accepted_version != self.document.version


def read_region(text: str) -> LegalRegion:
    """In any case. Raises ChoiceUnknown."""
    for region in LEGAL_REGIONS:
        if text.lower() == region:
            return region
    raise ChoiceUnknown(f"region: one of {', '.join(LEGAL_REGIONS)}")


def read_doc_type(text: str) -> DocType:
    """In any case. Raises ChoiceUnknown."""
    for doc_type in DOC_TYPES:
        if text.lower() == doc_type:
            return doc_type
    raise ChoiceUnknown(f"doc_type: one of {', '.join(DOC_TYPES)}")


def read_moment(name: str, text: str) -> datetime:
    """In UTC. Clients do not escape the plus sign of the offset, which comes as a space then. Raises RequestInvalid,
    naming the parameter.
    """
    try:
        moment = msgspec.convert(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", text), _Moment)
        return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise RequestInvalid(f"{name}: a time as RFC 3339 has it, such as 2025-01-31T10:20:30Z") from error


def check_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """As it is, if PostgreSQL can keep it. Raises ArgumentInvalid."""
    if not _is_storable(metadata, MAX_METADATA_DEPTH):
        raise ArgumentInvalid(f"metadata: at most {MAX_METADATA_DEPTH} levels, and no NUL character")
    if len(msgspec.json.encode(metadata)) > MAX_METADATA_BYTES:
        raise ArgumentInvalid(f"metadata: at most {MAX_METADATA_BYTES} bytes of JSON")
    return metadata


def find_source(headers: Headers, *, is_api_key: bool) -> ConsentSource:
    """Where somebody agreed, as far as the client says. The desktop names itself by a title where not by its type."""
    if is_api_key:
        return "api"
    named = _CLIENT_TYPES.get((headers.get("X-Client-Type") or "").strip().lower())
    return named or ("desktop" if headers.get("X-Title") else "api")


def find_standings(current: Iterable[LegalDocument], consents: Iterable[Consent]) -> list[Standing]:
    """One for each document, in their order. Consents are of the documents' region."""
    said = {consent.doc_type: consent for consent in consents}
    return [_build_standing(document, said.get(document.doc_type)) for document in current]


def _build_standing(document: LegalDocument, said: Consent | None) -> Standing:
    if said is None:
        return Standing(document, None, None)
    return Standing(document, said.accepted_version, said.accepted_at)


def find_blocking(
    documents: Sequence[LegalDocument], consents: Iterable[Consent], region: LegalRegion, today: date
) -> list[DocType]:
    """What has to be accepted before work goes on: documents that the user never accepted, or of which a version that
    came into force since was a material change. One that only corrects something is shown as missing and stops nobody.
    """
    standings = find_standings(find_current(documents, region, today), consents)
    return [standing.document.doc_type for standing in standings if _is_blocking(documents, standing)]


def _is_blocking(documents: Iterable[LegalDocument], standing: Standing) -> bool:
    current = standing.document
    versions = [
        document for document in documents if (document.doc_type, document.region) == (current.doc_type, current.region)
    ]
    accepted = next((document for document in versions if document.version == standing.accepted_version), None)
    if accepted is None:
        return True
    return any(document.material_change for document in versions if accepted.age < document.age <= current.age)


def find_percent(accepted: int, total: int) -> Decimal | None:
    """To two places. None of nobody."""
    if not total:
        return None
    return (Decimal(accepted) * 100 / total).quantize(PERCENT_STEP, ROUND_HALF_EVEN)


def _is_storable(value: object, depth: int) -> bool:
    """PostgreSQL keeps no NUL: https://www.postgresql.org/docs/current/datatype-json.html"""
    match value:
        case str():
            return "\0" not in value
        case Mapping():
            return depth > 0 and all("\0" not in key and _is_storable(item, depth - 1) for key, item in value.items())
        case list():
            return depth > 0 and all(_is_storable(item, depth - 1) for item in value)
    return True
