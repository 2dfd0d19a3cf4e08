"""Signing in and out, as the accounts know it: each a transaction that ends with its row in the audit log.

What a transaction decides by is locked or read after what it waited for: a deletion that goes on beside it has either
left its tombstone, or waits until the transaction is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString
from uuid import UUID, uuid4

from storage.accounts import User
from storage.audit import AuditEntry, AuditLog
from storage.errors import StorageError
from storage.identities import build_placeholders, read_email, read_name
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection
from storage.push_tokens import remove_push_token


class AccountDeleted(StorageError):
    """The account was deleted after this token was made: it brings nobody back."""


class AccountInUse(StorageError):
    """Money of the account is on its way. The message says what to wait for."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is to an issuer. `email` None: the issuer knows none."""

    issuer: str
    subject: str
    email: str | None = field(repr=False)
    email_verified: bool
    name: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """A sign-in that stands. `id` is the `session_id` of its tokens; the refresh token is the issuer's, encrypted."""

    id: UUID
    device_id: str | None
    refresh_token: bytes | None = field(repr=False)
    auth_time: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`is_returning`: the same person had an account before, which was deleted not long ago."""

    user: User
    is_new: bool
    is_returning: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """`refresh_tokens` (encrypted) are of no use any more: of the last device that signed out, or a deleted account."""

    refresh_tokens: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What may still be remembered elsewhere: every id that the user was known by."""

    user_ids: tuple[UUID, ...]
    refresh_tokens: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignIns:
    """Every method raises DatabaseUnavailable; whether it took effect is unknown then, and it may be repeated."""

    database: Database
    audit: AuditLog

    async def find(self, issuer: str, subject: str) -> User | None:
        """Whom an identity belongs to."""
        row = await self.database.as_operator("find an identity").fetch_one(
            _FIND_USER, {"issuer": issuer, "subject": subject}
        )
        return User(*row) if row else None

    async def sign_in(
        self, identity: Identity, login: Login, issued_at: datetime, build_entry: Callable[[SignedIn], AuditEntry]
    ) -> SignedIn:
        """The identity's user, found by it, else by a verified address, else made; and the login noted. `issued_at` is
        when the issuer made the token: raises AccountDeleted if the account was deleted in that second or after it.

        A user's address is the last that was verified and is nobody else's, its name the last that was given.
        """
        async with self.database.as_operator("sign in").transaction() as connection:
            user_id = await _find_owner(connection, identity)
            is_returning = await _refuse_deleted(connection, identity, issued_at)
            if user_id is None:
                user = await _make_user(connection, uuid4(), identity)
            else:
                user = await _update_user(connection, user_id, identity)
            await _note_identity(connection, user.id, identity)
            await _note_login(connection, user.id, identity, login)
            signed_in = SignedIn(user, is_new=user_id is None, is_returning=is_returning)
            await self.audit.append(connection, build_entry(signed_in))
        return signed_in

    async def provision(
        self,
        user_id: UUID,
        revocation_id: UUID,
        identity: Identity,
        auth_time: datetime,
        build_entry: Callable[[User], AuditEntry],
    ) -> User | None:
        """The user of a token that another region made: who has that id here, else whose identity it is, else a new one
        with that id. None if that token was revoked here, or the account deleted after `auth_time`.

        Joins nobody by address, and a new user has none: whether it was verified there, is not known here. An entry is
        written if a user is made, or learns that it has another id elsewhere. Safe to repeat.
        """
        async with self.database.as_operator("provision a user").transaction() as connection:
            user = await _find_by_id_or_identity(connection, user_id, identity)
            if await _is_over(connection, user_id, revocation_id, identity, auth_time):
                return None
            if user is not None and user.id == user_id:
                return user
            if user is None:
                user = await _make_user(connection, user_id, identity)
                await _note_identity(connection, user.id, identity)
            elif not await _make_alias(connection, user_id, user.id):
                return user
            await self.audit.append(connection, build_entry(user))
        return user

    async def find_login(self, login_id: UUID) -> Login | None:
        """None if it has ended, or never was."""
        row = await self.database.as_operator("find a login").fetch_one(_FIND_LOGIN, [login_id])
        return Login(*row) if row else None

    async def note_refresh(self, login_id: UUID, refresh_token: bytes | None, entry: AuditEntry) -> None:
        """The login lives on: the issuer may have changed its refresh token (None leaves the one that is there)."""
        async with self.database.as_operator("note a refresh").transaction() as connection:
            await connection.send(connection.bind(_NOTE_REFRESH, {"id": login_id, "token": refresh_token}))
            await self.audit.append(connection, entry)

    async def end(
        self, user_id: UUID, revocation_id: UUID, until: datetime, entry: AuditEntry, device_id: UUID | None = None
    ) -> Ended:
        """Sign out: the session is revoked until then, and its login, if there is one, is gone. Safe to repeat.

        A device that signed in several times and leaves with one of them has left: nothing is pushed to it any more.
        """
        session = {"user_id": user_id, "revocation_id": revocation_id, "until": until}
        async with self.database.as_operator("sign out").transaction() as connection:
            bind = connection.bind
            await connection.send(bind(_LOCK_USER, session) + bind(_REVOKE, session))
            stands = await connection.send(bind(_FIND_OTHER_DEVICE, session))
            rows = await connection.send(bind(_DROP_LOGINS, {**session, "is_last": not stands}))
            if device_id is not None:
                await remove_push_token(connection, user_id, device_id)
            await self.audit.append(connection, entry)
        return Ended(() if stands else tuple(token for (token,) in rows if token is not None))

    async def delete_account(self, user_id: UUID, entry: AuditEntry) -> Deleted:
        """The user and everything that is its; only the audit log keeps rows about it. Safe to repeat: then there is
        nothing to tell. Raises AccountInUse while a call runs or a top-off is under way.
        """
        async with self.database.as_operator("delete an account").transaction() as connection:
            bind, user = connection.bind, {"user_id": user_id}
            ((has_call, has_top_off, aliases, refresh_tokens),) = await connection.send(
                bind(_LOCK_BALANCE, user) + bind(_LOCK_USER_WITH_ROWS, user) + bind(_COLLECT, user)
            )
            if has_call:
                raise AccountInUse("an answer is still being made: stop it or wait for its end, then try again")
            if has_top_off:
                raise AccountInUse("an automatic top-off is being paid: wait a few minutes, then try again")
            if await connection.send(bind(_DELETE_USER, user)):
                await self.audit.append(connection, entry)
        return Deleted((user_id, *aliases), tuple(refresh_tokens))

    async def purge(self) -> None:
        """Drop logins, revocations and tombstones whose time is over. Safe to repeat."""
        await self.database.as_operator("purge sign-ins").fetch(_PURGE)


async def _find_owner(connection: TrioConnection, identity: Identity) -> UUID | None:
    """The user by identity, else by verified address, and locked: two first sign-ins at once make one user."""
    bind, parameters = connection.bind, _read_identity(identity)
    rows = await connection.send(
        bind(_LOCK_IDENTITY, parameters) + bind(_LOCK_ADDRESS, parameters) + bind(_FIND_OWNER, parameters)
    )
    return rows[0][0] if rows else None


async def _find_by_id_or_identity(connection: TrioConnection, user_id: UUID, identity: Identity) -> User | None:
    bind, parameters = connection.bind, {"user_id": user_id, **_read_identity(identity)}
    rows = await connection.send(
        bind(_LOCK_IDENTITY, parameters) + bind(_LOCK_ID, parameters) + bind(_FIND_BY_ID_OR_IDENTITY, parameters)
    )
    return User(*rows[0]) if rows else None


async def _refuse_deleted(connection: TrioConnection, identity: Identity, issued_at: datetime) -> bool:
    """Whether an account was deleted before. Raises AccountDeleted if that was after the token was made."""
    parameters = {**_read_identity(identity), "time": issued_at}
    rows = await connection.send(connection.bind(_FIND_TOMBSTONE, parameters))
    if any(is_newer for (is_newer,) in rows):
        raise AccountDeleted("the account was deleted after this token was made")
    return bool(rows)


async def _is_over(
    connection: TrioConnection, user_id: UUID, revocation_id: UUID, identity: Identity, auth_time: datetime
) -> bool:
    parameters = {**_read_identity(identity), "user_id": user_id, "revocation_id": revocation_id, "time": auth_time}
    rows = await connection.send(connection.bind(_FIND_END, parameters))
    return bool(rows) or any(
        is_newer for (is_newer,) in await connection.send(connection.bind(_FIND_TOMBSTONE, parameters))
    )


async def _make_user(connection: TrioConnection, user_id: UUID, identity: Identity) -> User:
    """With the first address that nobody has."""
    parameters = _read_identity(identity)
    addresses = [parameters["address"], *build_placeholders(identity.issuer, identity.subject)]
    rows = await connection.send(
        connection.bind(_MAKE_USER, {**parameters, "user_id": user_id, "addresses": addresses})
    )
    return User(*rows[0])


async def _update_user(connection: TrioConnection, user_id: UUID, identity: Identity) -> User:
    rows = await connection.send(connection.bind(_UPDATE_USER, {**_read_identity(identity), "user_id": user_id}))
    return User(*rows[0])


async def _make_alias(connection: TrioConnection, alias_id: UUID, user_id: UUID) -> bool:
    """Whether it is new."""
    return bool(await connection.send(connection.bind(_MAKE_ALIAS, [alias_id, user_id])))


async def _note_identity(connection: TrioConnection, user_id: UUID, identity: Identity) -> None:
    await connection.send(connection.bind(_NOTE_IDENTITY, {**_read_identity(identity), "user_id": user_id}))


async def _note_login(connection: TrioConnection, user_id: UUID, identity: Identity, login: Login) -> None:
    row = {
        "id": login.id,
        "user_id": user_id,
        "device_id": login.device_id and login.device_id.lower(),
        "issuer": identity.issuer,
        "subject": identity.subject,
        "refresh_token": login.refresh_token,
        "auth_time": login.auth_time,
        "expires_at": login.expires_at,
    }
    await connection.send(connection.bind(_NOTE_LOGIN, row))


def _read_identity(identity: Identity) -> dict[str, object]:
    email = read_email(identity.email)
    return {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "email": email,
        "email_verified": identity.email_verified,
        "address": email if identity.email_verified else None,
        "name": read_name(identity.name),
    }


# Advisory locks of one transaction are taken in this order. The keys are numbers: two that fall together only wait.
_LOCK_IDENTITY: LiteralString = """
    SELECT pg_advisory_xact_lock(hashtextextended('identity:' || hash_subject(%(issuer)s, %(subject)s), 0));
"""
_LOCK_ADDRESS: LiteralString = """
    SELECT pg_advisory_xact_lock(hashtextextended('address:' || lower(%(address)s::text), 0));
"""
_LOCK_ID: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended('user:' || %(user_id)s, 0));"
_LOCK_USER: LiteralString = "SELECT FROM users WHERE id = %(user_id)s FOR NO KEY UPDATE;"
_LOCK_USER_WITH_ROWS: LiteralString = "SELECT FROM users WHERE id = %(user_id)s FOR UPDATE;"
# First of all, as holds and settlements do it: each of those also needs the user's row, to refer to it.
_LOCK_BALANCE: LiteralString = "SELECT FROM credit_balances WHERE user_id = %(user_id)s FOR UPDATE;"

_FIND_USER: LiteralString = """
    SELECT users.id, users.email, role, name FROM users JOIN identities ON identities.user_id = users.id
    WHERE issuer = %(issuer)s AND subject = %(subject)s
"""

# In any case, but of ASCII letters alone: to PostgreSQL the Kelvin sign is a capital k, to the post it is not.
_FIND_OWNER: LiteralString = """
    SELECT id FROM users WHERE id = coalesce(
        (SELECT user_id FROM identities WHERE issuer = %(issuer)s AND subject = %(subject)s),
        (SELECT id FROM users AS owners
         WHERE lower(email) = lower(%(address)s::text)
           AND (email = %(address)s OR octet_length(email || %(address)s) = length(email || %(address)s)))
    )
    FOR NO KEY UPDATE
"""

_FIND_BY_ID_OR_IDENTITY: LiteralString = """
    SELECT id, email, role, name FROM users WHERE id = coalesce(
        (SELECT user_id FROM user_aliases WHERE alias_id = %(user_id)s),
        (SELECT id FROM users AS known WHERE id = %(user_id)s),
        (SELECT user_id FROM identities WHERE issuer = %(issuer)s AND subject = %(subject)s)
    )
    FOR NO KEY UPDATE
"""

_FIND_TOMBSTONE: LiteralString = """
    SELECT deleted_at >= %(time)s FROM deleted_accounts WHERE reference = hash_subject(%(issuer)s, %(subject)s)
"""

_FIND_END: LiteralString = """
    SELECT 1 FROM revoked_tokens WHERE revocation_id = %(revocation_id)s AND expires_at > now()
    UNION ALL SELECT 1 FROM deleted_accounts WHERE reference = 'user:' || %(user_id)s AND deleted_at >= %(time)s
"""

_MAKE_USER: LiteralString = """
    INSERT INTO users (id, email, name)
    SELECT %(user_id)s, address, %(name)s::text
    FROM unnest(%(addresses)s::text[]) WITH ORDINALITY AS candidates (address, place)
    WHERE address IS NOT NULL AND NOT EXISTS (SELECT FROM users WHERE lower(email) = lower(address))
    ORDER BY place LIMIT 1
    RETURNING id, email, role, name
"""

_UPDATE_USER: LiteralString = """
    UPDATE users SET
        email = CASE WHEN EXISTS (SELECT FROM users AS others
                                  WHERE lower(others.email) = lower(%(address)s::text) AND others.id <> %(user_id)s)
                THEN email ELSE coalesce(%(address)s::text, email) END,
        name = coalesce(%(name)s::text, name),
        updated_at = now()
    WHERE id = %(user_id)s
    RETURNING id, email, role, name
"""

_NOTE_IDENTITY: LiteralString = """
    INSERT INTO identities (issuer, subject, user_id, email, email_verified)
    VALUES (%(issuer)s, %(subject)s, %(user_id)s, %(email)s, %(email_verified)s)
    ON CONFLICT (issuer, subject) DO UPDATE
    SET email = excluded.email, email_verified = excluded.email_verified, last_login_at = excluded.last_login_at
"""

_MAKE_ALIAS: LiteralString = """
    INSERT INTO user_aliases (alias_id, user_id) VALUES (%s, %s) ON CONFLICT (alias_id) DO NOTHING RETURNING 1
"""

_NOTE_LOGIN: LiteralString = """
    INSERT INTO logins (id, user_id, device_id, issuer, subject, refresh_token, auth_time, expires_at)
    VALUES (%(id)s, %(user_id)s, %(device_id)s, %(issuer)s, %(subject)s, %(refresh_token)s, %(auth_time)s,
        %(expires_at)s)
"""

_FIND_LOGIN: LiteralString = """
    SELECT id, device_id, refresh_token, auth_time, expires_at FROM logins WHERE id = %s AND expires_at > now()
"""

_NOTE_REFRESH: LiteralString = """
    UPDATE logins SET refresh_token = coalesce(%(token)s::bytea, refresh_token) WHERE id = %(id)s
"""

_REVOKE: LiteralString = """
    INSERT INTO revoked_tokens (revocation_id, user_id, expires_at)
    VALUES (%(revocation_id)s, %(user_id)s, %(until)s)
    ON CONFLICT (revocation_id) DO UPDATE SET expires_at = greatest(revoked_tokens.expires_at, excluded.expires_at)
"""

_FIND_OTHER_DEVICE: LiteralString = """
    SELECT 1 FROM logins
    WHERE user_id = %(user_id)s AND id <> %(revocation_id)s AND expires_at > now()
      AND NOT coalesce(device_id = (SELECT device_id FROM logins WHERE id = %(revocation_id)s), false)
    LIMIT 1
"""

_DROP_LOGINS: LiteralString = """
    DELETE FROM logins WHERE user_id = %(user_id)s AND (id = %(revocation_id)s OR %(is_last)s) RETURNING refresh_token
"""

_COLLECT: LiteralString = """
    SELECT EXISTS (SELECT FROM holds WHERE user_id = %(user_id)s AND state = 'held'),
           EXISTS (SELECT FROM purchases WHERE user_id = %(user_id)s AND kind = 'top_off' AND state = 'open'),
           ARRAY(SELECT alias_id FROM user_aliases WHERE user_id = %(user_id)s),
           ARRAY(SELECT refresh_token FROM logins WHERE user_id = %(user_id)s AND refresh_token IS NOT NULL)
"""

_DELETE_USER: LiteralString = "DELETE FROM users WHERE id = %(user_id)s RETURNING 1"

_PURGE: LiteralString = """
    WITH old_logins AS (DELETE FROM logins WHERE expires_at < now()),
         old_revocations AS (DELETE FROM revoked_tokens WHERE expires_at < now())
    DELETE FROM deleted_accounts WHERE expires_at < now()
"""
