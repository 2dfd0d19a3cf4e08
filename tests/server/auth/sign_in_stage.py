"""Somebody signs in on real stores, with an issuer that we play."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg

from server.auditor import Auditor
from server.auth.callers import Caller
from server.auth.openid import OpenIdProvider, open_openid_provider
from server.auth.refresh_tokens import unseal_refresh_token
from server.auth.sign_in import Session, SignIn
from server.auth.tokens import AppToken, read_token
from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from server.budgets import read_budgets
from server.limits import Limits
from server.outage import Outage
from server.settings import Settings
from storage.accounts import Accounts
from storage.audit import AuditLog
from storage.bookings import Bookings
from storage.configuration import Configuration
from storage.login_states import LoginStates
from storage.postgres import Database, open_database
from storage.rate_limits import RateLimits
from storage.redis import Redis, open_redis
from storage.sessions import Sessions
from storage.sign_ins import SignIns
from tests.fake_issuer import CLIENT_ID, FakeIssuer, open_fake_issuer

SECRET = "s" * 32
KEY = bytes(range(32))
DEVICE = str(UUID(int=7))


@dataclass(slots=True)
class Stage:
    """`owner_url` is for looking at what was done."""

    sign_in: SignIn
    issuer: FakeIssuer
    database: Database
    redis: Redis
    owner_url: str

    async def enter(self, refresh_token: str | None = None, **claims: Any) -> tuple[Caller, AppToken]:
        """Somebody who is signed in."""
        issuer_token = self.issuer.sign(jti=str(uuid4()), **claims)
        return self.as_caller(await self.sign_in.finalize(issuer_token, refresh_token, DEVICE))

    def as_caller(self, session: Session) -> tuple[Caller, AppToken]:
        token, user = read_token([SECRET], session.token), session.user
        return Caller(user.id, user.email, user.role, user.name, DEVICE, token.scopes, token), token

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url) as owner:
            return owner.execute(statement.encode(), parameters).fetchall()

    def stored_refresh_token(self) -> str | None:
        ((login_id, sealed),) = self.query("SELECT id, refresh_token FROM logins")
        return unseal_refresh_token(KEY, sealed, login_id)


def build_sign_in(database: Database, redis: Redis, provider: OpenIdProvider) -> SignIn:
    audit = AuditLog(database, "test", "a" * 32)
    return SignIn(
        settings=provider.settings,
        token_days=1,
        secrets=[SECRET],
        issuer=provider,
        states=LoginStates(redis),
        sign_ins=SignIns(database, audit),
        sessions=Sessions(redis, Accounts(database)),
        limits=Limits(RateLimits(redis), read_budgets(Settings({})), Outage()),
        terms=TermsReader(
            Configuration(database), Terms(free_credits_usd=provider.settings.signup_credits_usd)
        ),
        bookings=Bookings(database),
        auditor=Auditor(audit),
    )


@asynccontextmanager
async def open_stage(database_url: str, owner_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Stage]:
    keeps = {"server_client_id": CLIENT_ID, "refresh_token_key": KEY}
    async with (
        open_fake_issuer() as issuer,
        open_openid_provider(issuer.build_settings(**keeps, **settings)) as provider,
        open_database(database_url, size=4) as database,
        open_redis(redis_url) as redis,
    ):
        yield Stage(build_sign_in(database, redis, provider), issuer, database, redis, owner_url)
