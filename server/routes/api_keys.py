"""API keys of the caller: made, listed and revoked. A key is shown once, when it is made."""

import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from quart import Blueprint, Response, request

from server.auth.callers import Caller
from server.auth.credentials import KEY_BYTES, hash_api_key
from server.errors import NotAllowed, NotFound, RequestInvalid
from server.guard import caller
from server.services import services
from storage.api_keys import ApiKey, NewKey, RevokedKey, make_api_key, revoke_api_key
from storage.audit import AuditEntry

SCOPES = ("read", "write", "rpc", "admin")
DEFAULT_SCOPES = ("read", "write")
MAX_LABEL = 100
MAX_DAYS = 3650
HINT_CHARACTERS = 6

blueprint = Blueprint("api_keys", __name__, url_prefix="/api/auth/api-keys")


class _Wish(msgspec.Struct, rename="camel"):
    """What may be asked for. Null counts as absent, and members that nobody knows are passed over."""

    label: str
    scopes: list[str] | None = None
    expires_in_days: int | None = None


class _Key(msgspec.Struct, rename="camel"):
    """A key as it is listed. Times are UTC."""

    id: UUID
    hint: str
    label: str
    scopes: Sequence[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class _MadeKey(msgspec.Struct, rename="camel"):
    id: UUID
    key: str
    hint: str
    label: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None


@blueprint.post("")
async def make() -> Response:
    """Raises TooManyKeys. Not safe to repeat: every request makes a key."""
    who = check_person(caller())
    key = secrets.token_hex(KEY_BYTES)
    wish = read_wish(await request.get_data(cache=False, as_text=False, parse_form_data=False))
    new = build_key(who, wish, (key, services().config.api_key_secret), datetime.now(UTC))
    async with services().database.as_operator("make an API key").transaction() as connection:
        made = await make_api_key(connection, new)
        entry = _build_entry(who, "api_key_made", new.id, scopes=list(new.scopes), expires_at=_show(new.expires_at))
        await services().auditor.log.append(connection, entry)
    shown = _MadeKey(made.id, key, made.hint, made.label, made.scopes, made.created_at, made.expires_at)
    return _as_json(201, shown)


@blueprint.get("")
async def show() -> Response:
    keys = await services().api_keys.list(caller().user_id)
    return _as_json(200, {"keys": [_describe(key) for key in keys]})


@blueprint.delete("/<uuid:key_id>")
async def revoke(key_id: UUID) -> Response:
    """Safe to repeat, and to be repeated if Redis could not be told: the answer was a 503 then."""
    revoked = await _revoke(check_person(caller()), key_id)
    if revoked is None:
        raise NotFound("you have no such API key; GET /api/auth/api-keys lists yours")
    with services().limits.outage.watch():
        await services().api_keys.bury(revoked.key_hash)
    return Response(status=204)


def check_person(who: Caller) -> Caller:
    """A key that got into wrong hands makes no others and ends none."""
    if who.key_id is not None:
        raise NotAllowed("an API key makes and revokes no API keys: sign in for that")
    return who


def read_wish(body: bytes) -> _Wish:
    """Raises RequestInvalid, naming the member."""
    try:
        wish = msgspec.json.decode(body, type=_Wish)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body: {error}") from error
    label = wish.label.strip()
    if not 0 < len(label) <= MAX_LABEL or any(unicodedata.category(character) == "Cc" for character in label):
        raise RequestInvalid(f"label: 1 to {MAX_LABEL} characters, and no control characters")
    if wish.scopes is not None and (not wish.scopes or not set(wish.scopes) <= set(SCOPES)):
        raise RequestInvalid(f"scopes: one or more of {', '.join(SCOPES)}")
    if wish.expires_in_days is not None and not 1 <= wish.expires_in_days <= MAX_DAYS:
        raise RequestInvalid(f"expiresInDays: a whole number from 1 to {MAX_DAYS}")
    return _Wish(label, wish.scopes, wish.expires_in_days)


def build_key(who: Caller, wish: _Wish, signed: tuple[str, str], now: datetime) -> NewKey:
    """`signed` is the key, and the secret that its hash is made with. Raises NotAllowed for more than the caller may do
    itself.
    """
    key, secret = signed
    scopes = tuple(dict.fromkeys(wish.scopes or DEFAULT_SCOPES))
    if "admin" in scopes and not who.is_admin:
        raise NotAllowed("the scope admin is for administrators")
    if not {*scopes} <= {*who.scopes, "admin"}:
        raise NotAllowed("a key can do no more than the token that it is made with")
    return NewKey(
        id=uuid4(),
        user_id=who.user_id,
        key_hash=hash_api_key(secret, key),
        hint=key[:HINT_CHARACTERS],
        label=wish.label,
        scopes=scopes,
        expires_at=None if wish.expires_in_days is None else now + timedelta(days=wish.expires_in_days),
    )


async def _revoke(who: Caller, key_id: UUID) -> RevokedKey | None:
    """Noted once, however often it is repeated."""
    async with services().database.as_operator("revoke an API key").transaction() as connection:
        revoked = await revoke_api_key(connection, who.user_id, key_id)
        if revoked is not None and revoked.was_live:
            await services().auditor.log.append(connection, _build_entry(who, "api_key_revoked", key_id))
    return revoked


def _build_entry(who: Caller, action: str, key_id: UUID, **details: object) -> AuditEntry:
    """Labels are the user's own words, so they are left out."""
    return services().auditor.build_entry(
        action, "success", actor=who.actor, subject_id=who.user_id, entity=("api_key", str(key_id)), **details
    )


def _describe(key: ApiKey) -> _Key:
    return _Key(**asdict(key))


def _show(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")


def _as_json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")
