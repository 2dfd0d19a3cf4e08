"""Legal documents, and who agreed to them: shown to whom they concern, and counted for administrators."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from quart import Blueprint, Response, request

from server.auth.callers import Caller
from server.circumstances import circumstances
from server.consent import (
    Standing,
    check_metadata,
    find_percent,
    find_source,
    find_standings,
    read_doc_type,
    read_moment,
    read_region,
)
from server.errors import NotFound, RequestInvalid
from server.guard import access, caller
from server.operations import Content, encode_answer, operation
from server.services import services
from server.times import show_time, show_time_if_any
from storage.audit import AuditEntry
from storage.consents import (
    AcceptedBetween,
    ConsentAct,
    accept_document,
    count_agreed,
    count_by_document,
    count_users,
    read_consents,
    withdraw_consent,
)
from storage.legal_documents import LEGAL_REGIONS, DocType, LegalDocument, LegalRegion, find_current

CSV = "text/csv"
CLIENT = {
    "X-Client-Type": "`desktop`, `mobile` or `website`: where you agreed, or withdrew.",
    "X-Title": "The name of a desktop app, where that is all that it says of itself.",
}
COLUMNS = ("Region", "Document Type", "Version", "Accepted Count", "Total Count", "Acceptance Rate")

RegionName = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^([eE][uU]|[uU][sS])$"})]
DocTypeName = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": "^([tT][eE][rR][mM][sS]|[pP][rR][iI][vV][aA][cC][yY])$"})
]
Moment = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""Their form is described here and checked in server/consent.py, which says better what is wrong."""

blueprint = Blueprint("consent", __name__, url_prefix="/api/consent")


class ConsentRegionQuery(msgspec.Struct):
    """`region`: `eu` or `us`, in any case."""

    region: RegionName


class ConsentWish(msgspec.Struct, rename={"doc_type_camel": "docType"}):
    """Which document: `terms` or `privacy`, of `eu` or `us`, in any case; `docType` is another name of `doc_type`.
    `metadata` is what the client wants to be kept with it, an object of at most 4096 bytes.
    """

    region: RegionName
    doc_type: DocTypeName | None = None
    doc_type_camel: DocTypeName | None = None
    metadata: dict[str, Any] | None = None


NamedDocument = Annotated[
    ConsentWish, msgspec.Meta(extra_json_schema={"anyOf": [{"required": ["doc_type"]}, {"required": ["docType"]}]})
]


class ConsentReportQuery(msgspec.Struct, rename={"start": "from", "end": "to"}):
    """What is counted, all filters together. `from` and `to` are times as RFC 3339 has it, both included."""

    region: RegionName | None = None
    doc_type: DocTypeName | None = None
    start: Moment | None = None
    end: Moment | None = None
    format: Literal["json", "csv"] = "json"


class LegalDocumentAnswer(msgspec.Struct, rename="camel"):
    """`url` is a path on the website. `materialChange`: who agreed to an earlier version has not agreed to this one."""

    id: UUID
    doc_type: DocType
    region: LegalRegion
    version: str
    effective_at: date
    url: str
    content_hash: str | None
    material_change: bool
    created_at: str
    updated_at: str


class ConsentItemAnswer(msgspec.Struct, rename="camel"):
    """A document in force, and the version that you agreed to, which may be an earlier one."""

    doc_type: DocType
    region: LegalRegion
    current_version: str
    accepted_version: str | None
    accepted_at: str | None
    requires_reconsent: bool
    effective_at: date
    url: str


class ConsentStatusAnswer(msgspec.Struct, rename="camel"):
    user_id: UUID
    region: LegalRegion
    items: Sequence[ConsentItemAnswer]
    all_consented: bool


class ConsentCheckAnswer(msgspec.Struct, rename="camel"):
    """`missing` are types of documents whose current version you have not agreed to."""

    requires_reconsent: bool
    missing: Sequence[DocType]
    details: Sequence[ConsentItemAnswer]


class ConsentCountAnswer(msgspec.Struct):
    """Null is what the row does not tell apart. The rate is in percent, and absent where there are no users."""

    doc_type: DocType | None
    region: LegalRegion | None
    version: str | None
    accepted_count: int
    total_count: int
    acceptance_rate: str | UnsetType = UNSET


@blueprint.get("/documents/current")
@operation("List the legal documents in force")
async def show_documents(query: ConsentRegionQuery) -> list[LegalDocumentAnswer]:
    """The latest version of each type that is in force today, by the date in UTC."""
    return [_describe_document(document) for document in _find_current(read_region(query.region))]


@blueprint.get("/status")
@operation("Show what you have agreed to")
async def show_status(query: ConsentRegionQuery) -> ConsentStatusAnswer:
    """Every document in force in the region, and the version of it that you accepted."""
    region = read_region(query.region)
    standings = await _find_standings(region)
    items = [_describe_standing(standing) for standing in standings]
    return ConsentStatusAnswer(caller().user_id, region, items, not any(item.requires_reconsent for item in items))


@blueprint.get("/verify")
@operation("Check whether you have agreed to everything")
async def verify(query: ConsentRegionQuery) -> ConsentCheckAnswer:
    """The same as the status, and a list of the types of documents that are missing."""
    standings = await _find_standings(read_region(query.region))
    missing = [standing.document.doc_type for standing in standings if standing.is_missing]
    return ConsentCheckAnswer(bool(missing), missing, [_describe_standing(standing) for standing in standings])


@blueprint.post("/accept")
@operation("Agree to a legal document", headers=CLIENT)
async def accept(body: NamedDocument) -> None:
    """Accepts the version in force. Safe to repeat: if you have accepted it already, the time of that stays."""
    act = _read_wish(caller(), body)
    document = _find_document(act.region, act.doc_type)
    async with services().database.as_operator("accept a legal document").transaction() as connection:
        if await accept_document(connection, act, document.version):
            entry = _build_entry(caller(), "consent_accepted", act, document.version)
            await services().auditor.log.append(connection, entry)


@blueprint.post("/withdraw")
@operation("Withdraw your consent to a legal document", headers=CLIENT)
async def withdraw(body: NamedDocument) -> None:
    """Whatever version you accepted. Safe to repeat, also if you never accepted any."""
    act = _read_wish(caller(), body)
    _find_document(act.region, act.doc_type)
    try:
        async with services().database.as_operator("withdraw a consent").transaction() as connection:
            version = await withdraw_consent(connection, act)
            if version is not None:
                entry = _build_entry(caller(), "consent_withdrawn", act, version)
                await services().auditor.log.append(connection, entry)
    finally:
        if (gate := services().consent_gate) is not None:
            gate.forget(act.user_id)


@blueprint.get("/admin/report")
@access(is_admin=True)
@operation(
    "Count who has agreed",
    answers={200: (Content(list[ConsentCountAnswer]), Content(media_type=CSV))},
)
async def report(query: ConsentReportQuery) -> Response:
    """With a region alone: one row, of users who have accepted every document in force there. With a document type
    alone: one row, of users who have accepted the version in force in any region. Otherwise a row for each version, of
    users whose accepted version it is. Consents count that were given in the time asked for and are not withdrawn; the
    total is that of all users. `format=csv` answers with a file of the same rows.
    """
    region = None if query.region is None else read_region(query.region)
    doc_type = None if query.doc_type is None else read_doc_type(query.doc_type)
    rows = await _count(region, doc_type, _read_between(query))
    if query.format == "json":
        return Response(encode_answer(rows), content_type="application/json")
    headers = {"Content-Disposition": 'attachment; filename="consent_report.csv"'}
    return Response(write_csv(rows), headers=headers, content_type=f"{CSV}; charset=utf-8")


def write_csv(rows: Sequence[ConsentCountAnswer]) -> str:
    """As https://www.rfc-editor.org/rfc/rfc4180 has it. What a row does not tell is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        rate = "" if row.acceptance_rate is UNSET else row.acceptance_rate
        told = (row.region, row.doc_type, row.version, row.accepted_count, row.total_count, rate)
        writer.writerow("" if value is None else value for value in told)
    return text.getvalue()


def _find_current(region: LegalRegion) -> list[LegalDocument]:
    return find_current(services().live.documents, region, datetime.now(UTC).date())


def _find_document(region: LegalRegion, doc_type: DocType) -> LegalDocument:
    for document in _find_current(region):
        if document.doc_type == doc_type:
            return document
    raise NotFound(f"no {doc_type} are in force in the region {region}")


async def _find_standings(region: LegalRegion) -> list[Standing]:
    consents = await read_consents(services().database, caller().user_id, region)
    return find_standings(_find_current(region), consents)


async def _count(
    region: LegalRegion | None, doc_type: DocType | None, between: AcceptedBetween
) -> list[ConsentCountAnswer]:
    database = services().database
    total = await count_users(database)
    if (region is None) == (doc_type is None):
        counts = await count_by_document(database, region, doc_type, between)
        return [_describe_count(count.doc_type, count.region, count.version, count.accepted, total) for count in counts]
    regions = LEGAL_REGIONS if region is None else (region,)
    documents = [document for each in regions for document in _find_current(each)]
    named = [document for document in documents if doc_type in (None, document.doc_type)]
    accepted = await count_agreed(database, named, len(named) if doc_type is None else 1, between)
    return [_describe_count(doc_type, region, None, accepted, total)]


def _read_wish(who: Caller, wish: ConsentWish) -> ConsentAct:
    """Raises RequestInvalid, ChoiceUnknown or ArgumentInvalid."""
    named = wish.doc_type if wish.doc_type is not None else wish.doc_type_camel
    if named is None:
        raise RequestInvalid("the body: doc_type is missing")
    at_hand = circumstances()
    return ConsentAct(
        user_id=who.user_id,
        doc_type=read_doc_type(named),
        region=read_region(wish.region),
        source=find_source(request.headers, is_api_key=who.key_id is not None),
        address=at_hand.address,
        user_agent=at_hand.user_agent,
        metadata=check_metadata(wish.metadata or {}),
    )


def _read_between(query: ConsentReportQuery) -> AcceptedBetween:
    return AcceptedBetween(
        None if query.start is None else read_moment("from", query.start),
        None if query.end is None else read_moment("to", query.end),
    )


def _build_entry(who: Caller, action: str, act: ConsentAct, version: str) -> AuditEntry:
    return services().auditor.build_entry(
        action,
        "success",
        actor=who.actor,
        subject_id=who.user_id,
        entity=("legal_document", f"{act.doc_type}:{act.region}"),
        version=version,
        source=act.source,
    )


def _describe_document(document: LegalDocument) -> LegalDocumentAnswer:
    return LegalDocumentAnswer(
        id=document.id,
        doc_type=document.doc_type,
        region=document.region,
        version=document.version,
        effective_at=document.effective_at,
        url=document.url,
        content_hash=document.content_hash,
        material_change=document.material_change,
        created_at=show_time(document.created_at),
        updated_at=show_time(document.updated_at),
    )


def _describe_standing(standing: Standing) -> ConsentItemAnswer:
    document = standing.document
    return ConsentItemAnswer(
        doc_type=document.doc_type,
        region=document.region,
        current_version=document.version,
        accepted_version=standing.accepted_version,
        accepted_at=show_time_if_any(standing.accepted_at),
        requires_reconsent=standing.is_missing,
        effective_at=document.effective_at,
        url=document.url,
    )


def _describe_count(
    doc_type: DocType | None, region: LegalRegion | None, version: str | None, accepted: int, total: int
) -> ConsentCountAnswer:
    percent = find_percent(accepted, total)
    rate = UNSET if percent is None else f"{percent:f}"
    return ConsentCountAnswer(doc_type, region, version, accepted, total, rate)
