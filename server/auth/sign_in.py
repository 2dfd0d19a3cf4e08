"""Signing in, staying signed in and signing out: from the issuer's token to ours.

PostgreSQL is told first and Redis after it: what fails in between is repeated by the client, which is safe.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import trio

from server.auditor import Auditor
from server.auth.callers import Caller
from server.auth.openid import AccessToken, IssuedTokens, OpenIdProvider, Profile
from server.auth.refresh_tokens import seal_refresh_token, unseal_refresh_token
from server.auth.settings import SignInSettings
from server.auth.tokens import SECONDS_PER_DAY, AppToken, issue_token, read_token
from server.billing.terms_reader import TermsReader
from server.circumstances import circumstances
from server.errors import IssuerUnavailable, NotAuthenticated, SignInRefused
from server.limits import Limits
from storage.accounts import User
from storage.audit import AuditEntry, Status
from storage.bookings import Bookings
from storage.errors import DatabaseUnavailable, StorageError
from storage.login_states import LoginStates
from storage.rate_limits import Verdict
from storage.redis import session_key, user_key
from storage.sessions import Sessions
from storage.sign_ins import AccountDeleted, Ended, Identity, Login, SignedIn, SignIns

CLOCK_SECONDS = 60
"""By how much an issuer's clock and ours may differ, as `server.auth.access_tokens` forgives it."""
SEE_THROUGH_SECONDS = 45.0
"""Longer than its parts may take together: two questions to the issuer, a transaction and a few commands."""
ASKED_SECONDS = 30
"""For so long nobody asks the issuer with a refresh token that another request is asking with, or that it did not
answer to: many issuers end a sign-in whose refresh token comes twice (RFC 9700, 4.14.2).
"""
GIVE_BACK_SECONDS = 3.0
REVOKE_SECONDS = 5.0
PURGE_SECONDS = 3600.0
TOO_OLD = "This sign-in is too old: sign in again"
UNVERIFIED_SUBJECTS = ("github|",)
"""GitHub's addresses come unverified through Auth0. Such an account stands alone: nobody is joined to it, or it to
anybody, by an address.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """What an app gets: its token and its user."""

    user: User
    token: str = field(repr=False)
    expires_in_seconds: int


@dataclass(frozen=True, slots=True)
class SignIn:
    """`secrets`: those that app tokens may be signed with, the current one first, which signs."""

    settings: SignInSettings
    token_days: float
    secrets: Sequence[str] = field(repr=False)
    issuer: OpenIdProvider
    states: LoginStates
    sign_ins: SignIns
    sessions: Sessions
    limits: Limits
    terms: TermsReader
    bookings: Bookings
    auditor: Auditor

    async def finalize(self, issuer_token: str, refresh_token: str | None, device_id: str | None) -> Session:
        """A session for whoever the issuer's access token is about, bound to the device (lower case) if one is named.

        Raises NotAuthenticated if the token does not hold, IssuerUnavailable if that cannot be known, LimitExceeded if
        it would make one account too many. Safe to repeat with the same device.
        """
        subject = ""
        try:
            token = await self.issuer.verify(issuer_token)
            subject = token.subject
            return await self._sign_in(token, refresh_token, device_id)
        except NotAuthenticated as error:
            refusal = error
        await self._note_refusal(refusal, subject)
        raise refusal

    async def refresh(self, caller: Caller, token: AppToken) -> Session:
        """A new token for the same sign-in and device, as long as a sign-in may last.

        Raises NotAuthenticated if the sign-in is too old, or the issuer ended it; then it is over for all its tokens.
        """
        if time.time() + 1 >= self._ends_at(token):
            await self.auditor.note_refusal(self._build_entry("token_refresh", "refused", caller, token))
            raise NotAuthenticated(TOO_OLD)
        login = await self.sign_ins.find_login(token.revocation_id)
        refresh_token = None if login is None else self._unseal(login.refresh_token, login.id)
        if login is None or refresh_token is None:
            entry = self._build_entry("token_refresh", "success", caller, token)
            await self.sign_ins.note_refresh(token.revocation_id, None, entry)
        else:
            with _see_through():
                await self._exchange(login, refresh_token, caller, token)
        user = User(caller.user_id, caller.email, caller.role, caller.name)
        return self._issue(user, token.user_id, self._login_of(token), token.subject)

    async def sign_out(self, caller: Caller, token: AppToken) -> None:
        """This sign-in and all its tokens are over. Safe to repeat."""
        ended = await self._end(caller, token, self._build_entry("sign_out", "success", caller, token))
        await self._revoke_at_issuer(ended.refresh_tokens)

    async def delete_account(self, caller: Caller, token: AppToken) -> None:
        """The user is gone for good, with its tokens and its keys, which its tombstone ends. Safe to repeat. Raises
        AccountInUse while money of the account is on its way.
        """
        entry = self._build_entry("account_deletion", "success", caller, token)
        with _see_through():
            deleted = await self.sign_ins.delete_account(caller.user_id, entry)
            user_ids = {caller.user_id, token.user_id, *deleted.user_ids}
            await self.sessions.bury([user_key(user_id) for user_id in sorted(user_ids)])
        await self._revoke_at_issuer(deleted.refresh_tokens)

    async def keep_purged(self) -> None:
        """A loop of the root nursery: what is over is dropped, once an hour."""
        while True:
            try:
                await self.sign_ins.purge()
            except StorageError as error:
                logger.warning("old sign-ins could not be dropped, and will be next time: %s", error)
            await trio.sleep(PURGE_SECONDS)

    async def _sign_in(self, token: AccessToken, refresh_token: str | None, device_id: str | None) -> Session:
        profile = await self.issuer.fetch_profile(token)
        check_verified(profile)
        await self._claim(token, device_id)
        login = self._build_login(token, refresh_token, device_id)
        signed_in = await self._find_or_make_user(token, profile, login)
        if not signed_in.is_returning:  # else deleting an account and coming back would be worth money
            await self._grant_credits(signed_in.user)
        return self._issue(signed_in.user, signed_in.user.id, login, profile.subject)

    async def _claim(self, token: AccessToken, device_id: str | None) -> None:
        """A token that somebody steals on its way signs in no other device. It is known by what is signed of it: its
        signature can be written in many ways that all hold.
        """
        signed = token.text.rpartition(".")[0]
        seconds = max(1.0, token.expires_at - time.time()) + CLOCK_SECONDS
        if not await self.states.claim_token(_digest(signed.encode()), device_id or "", seconds):
            raise SignInRefused("this sign-in was used by another device: sign in again")

    async def _find_or_make_user(self, token: AccessToken, profile: Profile, login: Login) -> SignedIn:
        """An account that is really made draws on its address's budget for that. A sign-in that fails gives back."""
        identity = Identity(self.settings.issuer, profile.subject, profile.email, profile.email_verified, profile.name)
        drawn = await self._draw_for_account(profile.subject)
        is_new = False
        try:
            signed_in = await self.sign_ins.sign_in(
                identity, login, _as_datetime(token.issued_at), lambda signed_in: self._build_entry_of(signed_in, login)
            )
            is_new = signed_in.is_new
        except AccountDeleted as error:
            raise SignInRefused("the account was deleted after this sign-in began: sign in again") from error
        finally:
            if not is_new:
                with trio.move_on_after(GIVE_BACK_SECONDS, shield=True):
                    accounts = (self.limits.budgets.accounts, "")
                    await self.limits.give_back(circumstances().address, accounts, drawn)
        return signed_in

    async def _draw_for_account(self, subject: str) -> Verdict | None:
        if await self.sign_ins.find(self.settings.issuer, subject) is not None:
            return None
        return await self.limits.take_for_address(circumstances().address, [(self.limits.budgets.accounts, "")])

    async def _grant_credits(self, user: User) -> None:
        """Free ones, once for each account, tried at every sign-in: what fails now is made good then."""
        try:
            terms = await self.terms.read()
            if terms.free_credits_usd:
                await self.bookings.grant_free(
                    user.id,
                    terms.free_credits_usd,
                    datetime.now(UTC) + timedelta(days=terms.free_credits_days),
                    idempotency_key=f"signup:{user.id}",
                    description="sign-up credits",
                )
        except StorageError as error:
            logger.error("sign-up credits were not granted: %s", error, extra={"user_id": str(user.id)})

    async def _exchange(self, login: Login, refresh_token: str, caller: Caller, token: AppToken) -> None:
        """Ask the issuer whether the sign-in still stands. A refresh token may count once, so the next one is kept
        whatever else is wrong with the answer.
        """
        issued = await self._ask_issuer(login, refresh_token)
        if issued is None:
            await self._end(caller, token, self._build_entry("token_refresh", "refused", caller, token))
            raise NotAuthenticated("The sign-in was ended where it was made: sign in again")
        problem = await self._find_problem(issued.access_token, token)
        entry = self._build_entry("token_refresh", "success" if problem is None else "failed", caller, token)
        # Sealed anew also if it stays the same: that marks it as one to ask with.
        sealed = seal_refresh_token(self._key, login.id, issued.refresh_token or refresh_token)
        await self.sign_ins.note_refresh(login.id, sealed, entry)
        if problem is not None:
            raise problem

    async def _ask_issuer(self, login: Login, refresh_token: str) -> IssuedTokens | None:
        """None if the issuer says no. Requests that come meanwhile are put off."""
        if not await self.states.claim_token(_digest(login.refresh_token or b""), str(uuid4()), ASKED_SECONDS):
            raise IssuerUnavailable("the issuer is being asked about this sign-in, or just failed to answer")
        try:
            return await self.issuer.refresh(refresh_token)
        except NotAuthenticated:
            return None

    async def _find_problem(self, issuer_token: str, token: AppToken) -> IssuerUnavailable | None:
        """A token that the issuer has just made and that does not hold is the issuer's fault, or our settings'."""
        try:
            fresh = await self.issuer.verify(issuer_token)
        except NotAuthenticated:
            return IssuerUnavailable("the issuer made a token that does not hold here")
        except IssuerUnavailable as error:
            return error
        return None if fresh.subject == token.subject else IssuerUnavailable("the issuer answered for somebody else")

    async def _end(self, caller: Caller, token: AppToken, entry: AuditEntry) -> Ended:
        """Revoked for longer than any token of this sign-in could be used."""
        grace_seconds = self.settings.refresh_grace_days * SECONDS_PER_DAY
        until = _as_datetime(max(token.expires_at, self._ends_at(token)) + grace_seconds)
        with _see_through():
            device_id = _read_device_id(token)
            ended = await self.sign_ins.end(caller.user_id, token.revocation_id, until, entry, device_id)
            await self.sessions.bury([session_key(token.user_id, token.revocation_id)])
        return ended

    async def _revoke_at_issuer(self, refresh_tokens: Iterable[bytes]) -> None:
        """As far as the time allows: what stays there is of use to nobody here."""
        with trio.move_on_after(REVOKE_SECONDS, shield=True):
            for sealed in refresh_tokens:
                text = self._unseal(sealed)
                if text is not None:
                    await self.issuer.revoke(text)

    def _issue(self, user: User, user_id: UUID, login: Login, subject: str | None) -> Session:
        """`user_id` is who the token names: a user of another region keeps the id that it has there."""
        now = int(time.time())
        days = min(self.token_days, (login.expires_at.timestamp() - now) / SECONDS_PER_DAY)
        token = issue_token(
            self.secrets[0],
            user_id=user_id,
            email=user.email,
            role=user.role,
            device_id=login.device_id,
            now=now,
            days=days,
            session_id=login.id,
            auth_time=login.auth_time.timestamp(),
            subject=subject,
        )
        return Session(user, token, int(read_token(self.secrets, token).expires_at) - now)

    def _build_login(self, token: AccessToken, refresh_token: str | None, device_id: str | None) -> Login:
        """It began when the issuer made its token, which may be some hours old."""
        auth_time = min(token.issued_at, time.time())
        expires_at = auth_time + self.settings.login_max_age_days * SECONDS_PER_DAY
        if expires_at <= time.time() + 1:
            raise SignInRefused(TOO_OLD)
        login_id = uuid4()
        sealed = None
        if refresh_token is not None and self._can_use_refresh_token_of(token):
            sealed = seal_refresh_token(self._key, login_id, refresh_token)
        return Login(login_id, device_id, sealed, _as_datetime(auth_time), _as_datetime(expires_at))

    def _login_of(self, token: AppToken) -> Login:
        """As a token tells it. One that was made without a sign-in passes its own id on, by which all that follow from
        it end together.
        """
        expires_at = _as_datetime(self._ends_at(token))
        return Login(token.revocation_id, token.device_id, None, _as_datetime(token.auth_time), expires_at)

    def _ends_at(self, token: AppToken) -> float:
        """When its sign-in is too old, in Unix seconds."""
        return token.auth_time + self.settings.login_max_age_days * SECONDS_PER_DAY

    def _can_use_refresh_token_of(self, token: AccessToken) -> bool:
        """An issuer takes a refresh token back from the client that it made it for, and from no other (RFC 6749, 6)."""
        return self._can_ask_issuer and token.client_id in {None, self.settings.server_client_id}

    @property
    def _can_ask_issuer(self) -> bool:
        return self.settings.refresh_token_key is not None and self.settings.server_client_id is not None

    @property
    def _key(self) -> bytes:
        return self.settings.refresh_token_key or b""

    def _unseal(self, sealed: bytes | None, login_id: UUID | None = None) -> str | None:
        """None if there is none that we could use: it does not keep anybody from anything."""
        if sealed is None or not self._can_ask_issuer:
            return None
        return unseal_refresh_token(self._key, sealed, login_id)

    def _build_entry(self, action: str, status: Status, caller: Caller, token: AppToken) -> AuditEntry:
        login = ("login", str(token.revocation_id))
        return self.auditor.build_entry(action, status, actor=caller.actor, subject_id=caller.user_id, entity=login)

    def _build_entry_of(self, signed_in: SignedIn, login: Login) -> AuditEntry:
        user_id = signed_in.user.id
        return self.auditor.build_entry(
            "sign_in",
            "success",
            actor=f"user:{user_id}",
            subject_id=user_id,
            entity=("login", str(login.id)),
            is_new=signed_in.is_new,
        )

    async def _note_refusal(self, error: NotAuthenticated, subject: str) -> None:
        """Who it was to the issuer is told as a hash, for a subject may hold an address."""
        identity = _digest(f"{self.settings.issuer}\n{subject}".encode()) if subject else ""
        entry = self.auditor.build_entry(
            "sign_in", "refused", actor="anonymous", entity=("identity", identity), reason=str(error)
        )
        await self.auditor.note_refusal(entry)


def check_verified(profile: Profile) -> None:
    if not profile.email_verified and not profile.subject.startswith(UNVERIFIED_SUBJECTS):
        raise SignInRefused("the e-mail address is not verified: verify it, then sign in again")


def _read_device_id(token: AppToken) -> UUID | None:
    """None also for an id of another form: no device has it."""
    try:
        return UUID(token.device_id or "")
    except ValueError:
        return None


@contextmanager
def _see_through() -> Iterator[None]:
    """What was begun comes to its end also if the client leaves; the parts have deadlines of their own."""
    with trio.move_on_after(SEE_THROUGH_SECONDS, shield=True) as scope:
        yield
    if scope.cancelled_caught:
        raise DatabaseUnavailable("it took too long; whether it took effect is unknown")


def _digest(sealed: bytes) -> str:
    return hashlib.sha256(sealed).hexdigest()


def _as_datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
