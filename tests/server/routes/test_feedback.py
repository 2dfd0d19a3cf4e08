"""The token for the feedback site: whom it names, how long it counts, and who gets one."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from server.auth.callers import Caller
from server.routes.feedback import TOKEN_SECONDS, build_token
from storage.accounts import User
from storage.identities import build_placeholders
from tests.server.served import Answer, Served, open_served, token_headers

PATH = "/api/featurebase/sso-token"
SECRET = "feedback-secret-" * 3


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_served(stores, tmp_path, FEATUREBASE_SSO_SECRET=SECRET) as served:
        yield served


def read_claims(token: str) -> Any:
    return jwt.decode(token, SECRET, algorithms=["HS256"])


def build_caller(role: str, name: str | None, email: str = "ann@example.com") -> Caller:
    return Caller(uuid4(), email, role, name, None, frozenset({"read"}))


async def ask(served: Served, user: User) -> Answer:
    return await served.ask("GET", PATH, token_headers(user))


async def test_whoever_is_signed_in_gets_a_token_that_nobody_stores(served: Served) -> None:
    user = await served.make_user()
    answer = await ask(served, user)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert set(answer.json) == {"token"}
    claims = read_claims(answer.json["token"])
    assert UUID(claims["userId"]) == user.id
    assert 0 < claims["exp"] - time.time() <= TOKEN_SECONDS
    assert {**claims, "userId": 0, "exp": 0} == {
        **{"userId": 0, "exp": 0},
        **{"email": "ann@example.com", "name": None, "role": "user"},
    }


async def test_an_api_key_gets_none(served: Served) -> None:
    user = await served.make_user()
    body = b'{"label": "laptop", "scopes": ["read", "write"]}'
    key = (await served.ask("POST", "/api/auth/api-keys", token_headers(user), body)).json
    answer = await served.ask("GET", PATH, {"X-API-Key": key["key"]})
    assert (answer.status, answer.json["error_type"]) == (403, "forbidden")


async def test_without_a_secret_there_is_no_feedback(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        answer = await ask(served, await served.make_user())
    assert (answer.status, answer.json["error_type"]) == (404, "not_found")
    assert "not set up" in answer.json["message"]


async def test_the_secret_shows_in_no_repr(served: Served) -> None:
    assert served.services.config.feedback_secret == SECRET
    assert "feedback-secret" not in repr(served.services.config)


def test_a_name_and_a_role_are_told_and_no_role_is_no_claim() -> None:
    now = time.time()
    named = read_claims(build_token(SECRET, build_caller("admin", "Ann"), now))
    assert (named["name"], named["role"], named["exp"]) == ("Ann", "admin", int(now) + 300)
    assert "role" not in read_claims(build_token(SECRET, build_caller("", None), now))


def test_what_stands_for_an_address_is_told_as_none() -> None:
    for placeholder in build_placeholders("https://issuer.example.com/", "github|12345"):
        who = build_caller("user", "Ann", placeholder)
        claims = read_claims(build_token(SECRET, who, time.time()))
        assert set(claims) == {"userId", "name", "role", "exp"}
        assert claims["userId"] == str(who.user_id)
