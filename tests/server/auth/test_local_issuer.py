"""The local issuer, with a real Redis: what is used once counts once, and what has ended stays so."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
import redis
import trio

from proxy.provider import load_providers
from server.auth.access_tokens import verify_access_token
from server.auth.issuer_documents import read_keys
from server.auth.local_issuer import CODE_SECONDS, GRANT_SECONDS, LocalIssuer
from server.auth.local_requests import GrantRefused, Person, read_authorization
from server.config import ConfigInvalid, read_config
from server.errors import NotAuthenticated
from storage.redis import open_redis
from tests.end_to_end.cloche import SECRET, SIGN_IN
from tests.server.auth.test_local_requests import CALLBACK, ISSUER, SETTINGS, VERIFIER, change

ANN = Person("ann@example.com", "Ann")


@pytest.fixture
async def issuer(redis_url: str) -> AsyncIterator[LocalIssuer]:
    async with open_redis(redis_url) as client:
        yield LocalIssuer(SETTINGS, client)


async def issue_code(issuer: LocalIssuer, **changes: str | None) -> str:
    return await issuer.issue_code(read_authorization(SETTINGS, change(**changes)), ANN)


def code_form(code: str, /, **changes: str) -> dict[str, str]:
    form = {
        "grant_type": "authorization_code",
        "client_id": "native-app",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    return form | changes


def refresh_form(token: object, **changes: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "client_id": "native-app", "refresh_token": str(token), **changes}


async def sign_in(issuer: LocalIssuer, scope: str = "openid profile email offline_access") -> dict[str, Any]:
    return await issuer.issue_tokens(code_form(await issue_code(issuer, scope=scope, nonce="once")))


async def refused(issuer: LocalIssuer, form: dict[str, str]) -> str:
    with pytest.raises(GrantRefused) as raised:
        await issuer.issue_tokens(form)
    return raised.value.error


def as_token(tokens: dict[str, Any], name: str = "access_token") -> str:
    return str(tokens[name])


async def test_a_code_is_exchanged_for_tokens_that_we_ourselves_accept(issuer: LocalIssuer) -> None:
    tokens = await sign_in(issuer, "openid profile email")
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 86_400)
    assert "refresh_token" not in tokens
    keys = read_keys(json.dumps(await issuer.list_keys()).encode())
    key = keys[jwt.get_unverified_header(as_token(tokens))["kid"]]
    token = verify_access_token(SETTINGS, key, as_token(tokens))
    assert (token.subject, token.client_id, token.profile) == (ANN.subject, "native-app", None)
    assert token.expires_at - token.issued_at == 86_400


async def test_the_id_token_is_for_the_app(issuer: LocalIssuer) -> None:
    claims = jwt.decode(as_token(await sign_in(issuer), "id_token"), options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (ISSUER, "native-app", "once")
    assert (claims["email"], claims["name"]) == ("ann@example.com", "Ann")


async def test_userinfo_tells_what_the_scopes_allow(issuer: LocalIssuer) -> None:
    everything = {"sub": ANN.subject, "email": "ann@example.com", "email_verified": True, "name": "Ann"}
    assert await issuer.find_user(as_token(await sign_in(issuer))) == everything
    assert await issuer.find_user(as_token(await sign_in(issuer, "openid"))) == {"sub": ANN.subject}


async def test_userinfo_refuses_what_is_no_access_token(issuer: LocalIssuer) -> None:
    tokens = await sign_in(issuer)
    head, body, _ = as_token(tokens).split(".")
    for text in ("", "a.b.c", as_token(tokens, "id_token"), f"{head}.{body}.AAAA"):
        with pytest.raises(NotAuthenticated):
            await issuer.find_user(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "unknown"},
        {"redirect_uri": f"{CALLBACK}/"},
        {"redirect_uri": ""},
        {"code_verifier": VERIFIER[::-1]},
        {"code_verifier": ""},
    ],
)
async def test_a_code_needs_all_that_belongs_to_it(issuer: LocalIssuer, changes: dict[str, str]) -> None:
    assert await refused(issuer, code_form(await issue_code(issuer), **changes)) == "invalid_grant"


async def test_a_code_that_was_tried_in_vain_is_used_up(issuer: LocalIssuer) -> None:
    code = await issue_code(issuer)
    await refused(issuer, code_form(code, code_verifier=VERIFIER[::-1]))
    assert await refused(issuer, code_form(code)) == "invalid_grant"


async def test_a_code_that_comes_twice_is_refused_and_ends_what_it_gave(issuer: LocalIssuer) -> None:
    code = await issue_code(issuer, scope="openid offline_access")
    tokens = await issuer.issue_tokens(code_form(code))
    assert await refused(issuer, code_form(code)) == "invalid_grant"
    with pytest.raises(NotAuthenticated):
        await issuer.find_user(as_token(tokens))
    assert await refused(issuer, refresh_form(tokens["refresh_token"])) == "invalid_grant"


async def test_of_many_who_bring_a_code_at_once_one_at_most_has_tokens(issuer: LocalIssuer) -> None:
    form, granted = code_form(await issue_code(issuer)), []

    async def exchange() -> None:
        try:
            granted.append(await issuer.issue_tokens(form))
        except GrantRefused:
            return

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(exchange)
    assert len(granted) <= 1
    for tokens in granted:
        with pytest.raises(NotAuthenticated):
            await issuer.find_user(as_token(tokens))


async def test_what_ended_before_it_began_gives_nothing(issuer: LocalIssuer) -> None:
    """The second who brings a code may be faster than the first."""
    code = await issue_code(issuer)
    await issuer._end(hashlib.sha256(code.encode()).hexdigest())
    assert await refused(issuer, code_form(code)) == "invalid_grant"


async def test_a_code_lives_for_a_minute(issuer: LocalIssuer, redis_url: str) -> None:
    await issue_code(issuer)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys("local-issuer:code:*")
        assert CODE_SECONDS - 5 < client.ttl(key) <= CODE_SECONDS


async def test_redis_holds_no_code_and_no_token(issuer: LocalIssuer, redis_url: str) -> None:
    code = await issue_code(issuer)
    tokens = await sign_in(issuer)
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("*")
        everything = b" ".join(key + (client.get(key) or b"") for key in keys)
        lives = [client.ttl(key) for key in keys if key != b"local-issuer:key"]
    assert code.encode() not in everything
    assert as_token(tokens, "refresh_token").partition(".")[2].encode() not in everything
    assert all(0 < seconds <= GRANT_SECONDS for seconds in lives)


async def test_a_refresh_token_is_rotated(issuer: LocalIssuer) -> None:
    first = await sign_in(issuer)
    second = await issuer.issue_tokens(refresh_form(first["refresh_token"]))
    third = await issuer.issue_tokens(refresh_form(second["refresh_token"]))
    assert len({tokens["refresh_token"] for tokens in (first, second, third)}) == 3
    assert (await issuer.find_user(as_token(third)))["email"] == "ann@example.com"


async def test_a_refresh_token_that_comes_twice_ends_the_whole_grant(issuer: LocalIssuer) -> None:
    first = await sign_in(issuer)
    second = await issuer.issue_tokens(refresh_form(first["refresh_token"]))
    assert await refused(issuer, refresh_form(first["refresh_token"])) == "invalid_grant"
    assert await refused(issuer, refresh_form(second["refresh_token"])) == "invalid_grant"
    with pytest.raises(NotAuthenticated):
        await issuer.find_user(as_token(second))


async def test_a_made_up_refresh_token_ends_nothing(issuer: LocalIssuer) -> None:
    tokens = await sign_in(issuer)
    grant_id = str(tokens["refresh_token"]).partition(".")[0]
    for made_up in ("", "x", f"{grant_id}.x", grant_id):
        assert await refused(issuer, refresh_form(made_up)) == "invalid_grant"
    assert await issuer.issue_tokens(refresh_form(tokens["refresh_token"]))


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_client"),
        (refresh_form("x", client_id="another-app"), "invalid_client"),
        ({"client_id": "native-app"}, "unsupported_grant_type"),
        ({"client_id": "native-app", "grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_what_it_does_not_do_it_says(issuer: LocalIssuer, form: dict[str, str], error: str) -> None:
    assert await refused(issuer, form) == error


async def test_a_revoked_refresh_token_ends_its_grant(issuer: LocalIssuer) -> None:
    tokens = await sign_in(issuer)
    for _ in range(2):
        await issuer.revoke({"token": as_token(tokens, "refresh_token"), "client_id": "native-app"})
    assert await refused(issuer, refresh_form(tokens["refresh_token"])) == "invalid_grant"
    with pytest.raises(NotAuthenticated):
        await issuer.find_user(as_token(tokens))


async def test_what_one_app_got_serves_no_other(redis_url: str) -> None:
    settings = replace(SETTINGS, client_ids=frozenset({"native-app", "other-app"}))
    async with open_redis(redis_url) as client:
        issuer = LocalIssuer(settings, client)
        assert await refused(issuer, code_form(await issue_code(issuer), client_id="other-app")) == "invalid_grant"
        token = (await sign_in(issuer))["refresh_token"]
        assert await refused(issuer, refresh_form(token, client_id="other-app")) == "invalid_grant"
        await issuer.revoke({"token": str(token), "client_id": "other-app"})
        assert (await issuer.issue_tokens(refresh_form(token)))["refresh_token"]


async def test_only_who_has_the_token_can_revoke_it(issuer: LocalIssuer) -> None:
    tokens = await sign_in(issuer)
    grant_id = as_token(tokens, "refresh_token").partition(".")[0]
    await issuer.revoke({"token": f"{grant_id}.x", "client_id": "native-app"})
    await issuer.revoke({"client_id": "native-app"})
    with pytest.raises(GrantRefused):
        await issuer.revoke({"token": as_token(tokens, "refresh_token"), "client_id": "another-app"})
    assert await issuer.find_user(as_token(tokens))


async def test_all_workers_have_one_key(issuer: LocalIssuer, redis_url: str) -> None:
    found: list[dict[str, object]] = []

    async def read(reader: LocalIssuer) -> None:
        found.append(await reader.list_keys())

    async with open_redis(redis_url) as client, trio.open_nursery() as nursery:
        for reader in (issuer, LocalIssuer(SETTINGS, client)) * 3:
            nursery.start_soon(read, reader)
    assert all(keys == found[0] for keys in found)
    assert {"d", "p", "q"} & set(found[0]["keys"][0]) == set()  # type: ignore[index] # JSON


async def test_a_redis_that_forgot_the_key_gets_another(issuer: LocalIssuer, redis_url: str) -> None:
    before = await issuer.list_keys()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert await issuer.list_keys() != before


def read_environment(**settings: str) -> Any:
    stores = {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x", "JWT_SECRET": SECRET}
    return read_config({**stores, **SIGN_IN, **settings}, load_providers())


def test_development_without_an_issuer_has_the_local_one() -> None:
    config = read_environment(ENVIRONMENT="development", AUTH0_ISSUER_URL="")
    assert config.sign_in.is_local
    assert config.sign_in.issuer == f"{config.server_url}/local-issuer/"


def test_production_does_not_start_without_a_real_one() -> None:
    with pytest.raises(ConfigInvalid, match="AUTH0_DOMAIN"):
        read_environment(AUTH0_ISSUER_URL="")


def test_neither_has_it_beside_a_real_one() -> None:
    assert not read_environment().sign_in.is_local
    assert not read_environment(ENVIRONMENT="development").sign_in.is_local
