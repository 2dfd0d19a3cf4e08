"""API keys of the caller: made, listed and revoked. A key is shown once, when it is made."""

import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.auth.credentials import KEY_BYTES, hash_api_key
from server.errors import NotAllowed, NotFound, RequestInvalid
from server.guard import access, caller
from server.operations import operation
from server.services import services
from storage.api_keys import ApiKey, NewKey, RevokedKey, make_api_key, revoke_api_key
from storage.audit import AuditEntry

SCOPES = ("read", "write", "rpc", "admin")
DEFAULT_SCOPES = ("read", "write")
MAX_LABEL = 100
MAX_DAYS = 3650
HINT_CHARACTERS = 6

blueprint = Blueprint("api_keys", __name__, url_prefix="/api/auth/api-keys")


Time = Annotated[datetime, msgspec.Meta(tz=True)]


class ApiKeyWish(msgspec.Struct, rename="camel"):
    """`scopes` are one or more of `read`, `write`, `rpc` and `admin`; the usual ones are the first two. A key without
    days does not expire. Null counts as absent.
    """

    label: str
    scopes: list[str] | None = None
    expires_in_days: int | None = None


class ApiKeyAnswer(msgspec.Struct, rename="camel"):
    """A key as it is listed: `hint` is how it begins. Times are UTC."""

    id: UUID
    hint: str
    label: str
    scopes: Sequence[str]
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None
    revoked_at: Time | None


class ApiKeysAnswer(msgspec.Struct):
    keys: Sequence[ApiKeyAnswer]


class MadeApiKeyAnswer(msgspec.Struct, rename="camel"):
    """`key` is shown here and never again."""

    id: UUID
    key: str
    hint: str
    label: str
    scopes: Sequence[str]
    created_at: Time
    expires_at: Time | None


@blueprint.post("")
@access(is_for_people=True)
@operation("Make an API key", status=201)
async def make(body: ApiKeyWish) -> MadeApiKeyAnswer:
    """Every request makes a key, up to a number of living ones (409). A key can do no more than the token that it is
    made with.
    """
    who = caller()
    key = secrets.token_hex(KEY_BYTES)
    wish = check_wish(body)
    new = build_key(who, wish, (key, services().config.api_key_secret), datetime.now(UTC))
    async with services().database.as_operator("make an API key").transaction() as connection:
        made = await make_api_key(connection, new)
        entry = _build_entry(who, "api_key_made", new.id, scopes=list(new.scopes), expires_at=_show(new.expires_at))
        await services().auditor.log.append(connection, entry)
    return MadeApiKeyAnswer(made.id, key, made.hint, made.label, made.scopes, made.created_at, made.expires_at)


@blueprint.get("")
@operation("List your API keys")
async def show() -> ApiKeysAnswer:
    keys = await services().api_keys.list(caller().user_id)
    return ApiKeysAnswer([_describe(key) for key in keys])


@blueprint.delete("/<uuid:key_id>")
@access(is_for_people=True)
@operation("Revoke an API key")
async def revoke(key_id: UUID) -> None:
    """It ends at once. Safe to repeat, and to be repeated after a 503."""
    revoked = await _revoke(caller(), key_id)
    if revoked is None:
        raise NotFound("you have no such API key; GET /api/auth/api-keys lists yours")
    with services().limits.outage.watch():
        await services().api_keys.end(caller().user_id, key_id, revoked.key_hash)


def check_wish(wish: ApiKeyWish) -> ApiKeyWish:
    """Raises RequestInvalid, naming the member."""
    label = wish.label.strip()
    if not 0 < len(label) <= MAX_LABEL or any(unicodedata.category(character) == "Cc" for character in label):
        raise RequestInvalid(f"label: 1 to {MAX_LABEL} characters, and no control characters")
    if wish.scopes is not None and (not wish.scopes or not set(wish.scopes) <= set(SCOPES)):
        raise RequestInvalid(f"scopes: one or more of {', '.join(SCOPES)}")
    if wish.expires_in_days is not None and not 1 <= wish.expires_in_days <= MAX_DAYS:
        raise RequestInvalid(f"expiresInDays: a whole number from 1 to {MAX_DAYS}")
    return ApiKeyWish(label, wish.scopes, wish.expires_in_days)


def build_key(who: Caller, wish: ApiKeyWish, signed: tuple[str, str], now: datetime) -> NewKey:
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


def _describe(key: ApiKey) -> ApiKeyAnswer:
    return ApiKeyAnswer(**asdict(key))


def _show(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
