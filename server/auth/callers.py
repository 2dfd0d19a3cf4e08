"""The caller of a request: found from its credentials, or refused. The one validator of every route."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import trio

from server.auditor import Auditor
from server.auth.credentials import Credentials, hash_api_key, read_credentials
from server.auth.provisioning import Provisioning
from server.auth.tokens import AppToken, Headers, check_device, read_token
from server.budgets import Budget
from server.circumstances import circumstances
from server.edge import as_counted, read_address
from server.errors import NotAllowed, NotAuthenticated
from server.limits import Limits
from storage.accounts import User
from storage.api_keys import ApiKeys, KeyOwner
from storage.audit import AuditEntry
from storage.errors import RedisUnavailable
from storage.rate_limits import TOMBSTONE, Verdict
from storage.redis import user_key
from storage.sessions import Sessions

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UNKNOWN_TOKEN = "Token revoked or user unknown"  # noqa: S105 - what the caller is told
UNKNOWN_KEY = "API key unknown, revoked or expired"
TURN_SECONDS = 1.0
"""Of a burst with one key one request asks PostgreSQL; the others wait for it no longer than this."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Identity and role are those of the user's row, not of the token, which may be older than a change.

    `token` or `key_id` is what the caller brought; `verdict` is what the request has drawn on its budget.
    """

    user_id: UUID
    email: str = field(repr=False)
    role: str
    name: str | None = field(repr=False)
    device_id: str | None
    scopes: frozenset[str]
    token: AppToken | None = field(default=None, repr=False)
    key_id: UUID | None = None
    verdict: Verdict | None = field(default=None, repr=False)

    @property
    def is_admin(self) -> bool:
        """An API key is no administrator's unless it was made to be."""
        return self.role == "admin" and (self.key_id is None or "admin" in self.scopes)

    @property
    def owner_id(self) -> UUID:
        """Whose budgets its requests draw on: the user as its token names it."""
        return self.token.user_id if self.token else self.user_id

    @property
    def actor(self) -> str:
        """As the audit log names it."""
        return f"user:{self.user_id}" if self.key_id is None else f"api_key:{self.key_id}"


class _Refused(NotAuthenticated):
    """Refused, and more is known. `entry` is for the audit log, if the credentials name somebody; `is_counted` says
    that the address has drawn for this request already.
    """

    def __init__(self, message: str, entry: AuditEntry | None = None, *, is_counted: bool = False) -> None:
        super().__init__(message)
        self.entry = entry
        self.is_counted = is_counted


@dataclass(frozen=True, slots=True)
class Callers:
    """Finds callers. `secrets` are those that app tokens may be signed with, the current one first.

    Every method raises NotAuthenticated, NotAllowed or LimitExceeded for the caller's faults, RedisUnavailable or
    DatabaseUnavailable for ours. Whoever brings nothing that holds draws on its address's `public` budget, and is in
    the audit log if what it brought names somebody: a token of ours that was revoked, comes from another device or
    address or belongs to nobody any more, or a key that has ended. A token that merely expired is not, nor is what
    anybody can invent.
    """

    sessions: Sessions
    api_keys: ApiKeys
    provisioning: Provisioning
    limits: Limits
    auditor: Auditor
    secrets: Sequence[str] = field(repr=False)
    api_key_secret: str = field(repr=False)
    _asking: dict[str, trio.Event] = field(default_factory=dict, init=False, repr=False)

    async def find(self, method: str, headers: Headers, budget: Budget) -> Caller:
        """The caller, who has drawn on this budget."""
        return _admit(await self._find(headers, budget, grace_seconds=0), method)

    async def find_for_refresh(self, headers: Headers, grace_seconds: float) -> Caller:
        """Who wants a new token, for one that may be over for `grace_seconds` if both device headers prove its device.

        Draws on `writes`. An API key is no sign-in: NotAllowed.
        """
        caller = _admit(await self._find(headers, self.limits.budgets.writes, grace_seconds), "POST")
        if caller.token is None:
            raise NotAllowed("an API key gets no token: sign in for one")
        return caller

    async def _find(self, headers: Headers, budget: Budget, grace_seconds: float) -> Caller:
        try:
            credentials = read_credentials(headers)
            if credentials.is_api_key:
                return await self._find_key(credentials, budget)
            token = read_token(self.secrets, credentials.text, grace_seconds=grace_seconds)
            self._check_origin(token, headers)
            return await self._find_token(token, budget)
        except NotAuthenticated as error:
            refusal = error
        await self._note(refusal)
        raise refusal

    async def _note(self, error: NotAuthenticated) -> None:
        """Counted first: an address that has had its share is told so, and fills no log."""
        refused = error if isinstance(error, _Refused) else _Refused(str(error))
        if not refused.is_counted:
            await self.limits.take_for_address(circumstances().address, [(self.limits.budgets.public, "")])
        if refused.entry is not None:
            await self.auditor.note_refusal(refused.entry)

    def _check_origin(self, token: AppToken, headers: Headers) -> None:
        try:
            check_device(token, headers)
            check_address(token, circumstances().address)
        except NotAuthenticated as error:
            raise self._refuse_token(token, str(error)) from error
        check_proofs(token, headers)

    async def _find_token(self, token: AppToken, budget: Budget) -> Caller:
        lookups = self.sessions.lookups(token.user_id, token.revocation_id)
        values, verdict = await self.limits.take_for_caller(token.user_id, None, budget, lookups, token.device_id)
        if TOMBSTONE in values:
            raise self._refuse_token(token, UNKNOWN_TOKEN)
        user = self.sessions.read(values) or await self._find_session(token)
        return Caller(user.id, user.email, user.role, user.name, token.device_id, token.scopes, token, None, verdict)

    async def _find_session(self, token: AppToken) -> User:
        """Redis does not remember: PostgreSQL knows. A token of another region brings its user along."""
        auth_time = datetime.fromtimestamp(token.auth_time, UTC)
        user = await self.sessions.find(token.user_id, token.revocation_id, auth_time)
        if user is None:
            user = await self.provisioning.provision(token)
        await self._remember(token, user)
        if user is None:
            raise self._refuse_token(token, UNKNOWN_TOKEN)
        return user

    async def _remember(self, token: AppToken, user: User | None) -> None:
        """While Redis is away nothing is remembered, and every request asks PostgreSQL."""
        with suppress(RedisUnavailable), self.limits.outage.watch():
            if user is None:
                await self.sessions.bury(self.sessions.lookups(token.user_id, token.revocation_id)[:1])
            else:
                await self.sessions.remember(token.user_id, token.revocation_id, user)

    async def _find_key(self, credentials: Credentials, budget: Budget) -> Caller:
        key_hash = hash_api_key(self.api_key_secret, credentials.text)
        owner = await self._find_remembered(key_hash) or await self._find_forgotten(key_hash)
        user = owner.user
        values, verdict = await self.limits.take_for_caller(user.id, owner.key_id, budget, [user_key(user.id)])
        if TOMBSTONE in values:
            raise self._refuse_key(owner)
        return Caller(user.id, user.email, user.role, user.name, None, owner.scopes, None, owner.key_id, verdict)

    async def _find_remembered(self, key_hash: str) -> KeyOwner | None:
        with suppress(RedisUnavailable), self.limits.outage.watch(is_read=True):
            return await self.api_keys.find_remembered(key_hash)
        return None

    async def _find_forgotten(self, key_hash: str) -> KeyOwner:
        """A burst with one key asks PostgreSQL once, for each that asks draws on the address's budget for as long."""
        if (asked := self._asking.get(key_hash)) is not None:
            with trio.move_on_after(TURN_SECONDS):
                await asked.wait()
            return await self._find_remembered(key_hash) or await self._look_up(key_hash)
        self._asking[key_hash] = asked = trio.Event()
        try:
            return await self._look_up(key_hash)
        finally:
            del self._asking[key_hash]
            asked.set()

    async def _look_up(self, key_hash: str) -> KeyOwner:
        """PostgreSQL is asked for an address that has room, so guessing is bounded; a key that lives gives back."""
        address, public = circumstances().address, (self.limits.budgets.public, "")
        drawn = await self.limits.take_for_address(address, [public])
        owner = await self.api_keys.find(key_hash)
        if owner is None:
            raise _Refused(UNKNOWN_KEY, is_counted=True)
        if not owner.is_live:
            raise self._refuse_key(owner, is_counted=True)
        await self.limits.give_back(address, public, drawn)
        with suppress(RedisUnavailable), self.limits.outage.watch():
            await self.api_keys.remember(key_hash, owner)
        return owner

    def _refuse_token(self, token: AppToken, message: str) -> _Refused:
        return self._refuse(message, token.user_id, ("session", str(token.revocation_id)))

    def _refuse_key(self, owner: KeyOwner, *, is_counted: bool = False) -> _Refused:
        return self._refuse(UNKNOWN_KEY, owner.user.id, ("api_key", str(owner.key_id)), is_counted=is_counted)

    def _refuse(
        self, message: str, subject_id: UUID, entity: tuple[str, str], *, is_counted: bool = False
    ) -> _Refused:
        """Nobody is known to act: credentials that do not hold may be stolen."""
        entry = self.auditor.build_entry(
            "credentials_refused", "refused", actor="anonymous", subject_id=subject_id, entity=entity, reason=message
        )
        return _Refused(message, entry, is_counted=is_counted)


def check_scopes(scopes: frozenset[str], method: str) -> None:
    needed = {"read"} if method in SAFE_METHODS else {"read", "write"}
    if not needed <= scopes:
        raise NotAllowed(f"the credentials lack the scope {' '.join(sorted(needed - scopes))}")


def check_address(token: AppToken, address: str) -> None:
    """`address` is as we count it: IPv6 by its network, and so is the claim. No token of ours carries one."""
    if token.ip_binding is None:
        return
    bound = read_address(token.ip_binding)
    if bound is None or as_counted(bound) != address:
        raise NotAuthenticated("Token is bound to another address")


def check_proofs(token: AppToken, headers: Headers) -> None:
    """A token that is over, and within its grace, counts for a device that it is bound to and that says so twice;
    `check_device` has compared what it says.
    """
    is_proven = token.device_id and token.binding and headers.get("X-Device-ID") and headers.get("X-Token-Binding")
    if token.expires_at <= time.time() and not is_proven:
        raise NotAuthenticated("Token expired")


def _admit(caller: Caller, method: str) -> Caller:
    circumstances().user_id = str(caller.user_id)
    check_scopes(caller.scopes, method)
    return caller
