"""The OpenID provider's client, against a fake Auth0 over real sockets."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio

from server.auth.access_tokens import Profile
from server.auth.openid import OpenIdProvider, open_openid_provider
from server.errors import IssuerUnavailable, NotAuthenticated
from tests.fake_issuer import EMAIL, PATHS, FakeIssuer, as_json, build_jwk, build_key, open_fake_issuer, read_form
from tests.fakes import Close, Pause, RecordedRequest, Reset, Send, Step, WaitForClose, response
from tests.server.auth.test_access_tokens import FORGERIES

SECONDS = 0.5
"""A deadline that a test can wait for; the real one is five."""
Question = Callable[[OpenIdProvider, FakeIssuer], Awaitable[object]]


async def catch(question: Awaitable[object]) -> Exception:
    """What it raises, bare: a nursery around it would wrap it."""
    try:
        await question
    except (IssuerUnavailable, NotAuthenticated) as error:
        return error
    raise AssertionError("it was answered")


async def test_a_good_token_is_verified_and_the_issuer_asked_once() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        tokens = [await provider.verify(issuer.sign(sub=f"auth0|{n}")) for n in range(3)]
        assert [token.subject for token in tokens] == ["auth0|0", "auth0|1", "auth0|2"]
        assert await provider.find_authorization_endpoint() == f"{issuer.upstream.url}/authorize"
        assert (issuer.count("discovery"), issuer.count("jwks"), issuer.count("userinfo")) == (1, 1, 0)


@pytest.mark.parametrize("document", ["as published", "with foreign keys"])
async def test_keys_of_other_kinds_do_no_harm(document: str) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.extra_keys = [{"kty": "EC", "crv": "P-256"}, {**build_jwk("key-1"), "use": "enc"}] * (document[0] == "w")
        await provider.verify(issuer.sign())


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.com"},
        {"iss": "https://evil.example.com/"},
        {"exp": int(time.time()) - 3600},
        {"nbf": int(time.time()) + 3600},
        {"azp": "another-app"},
    ],
)
async def test_a_token_that_does_not_hold_is_refused(claims: dict[str, Any]) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        assert isinstance(await catch(provider.verify(issuer.sign(**claims))), NotAuthenticated)


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_forgery_is_refused_and_the_issuer_not_even_asked(forge: Callable[[], str]) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        assert isinstance(await catch(provider.verify(forge())), NotAuthenticated)
        assert issuer.upstream.requests == []


async def test_a_storm_of_invented_keys_does_not_reach_the_issuer() -> None:
    """Signed by another's key, under a new name each time. That new keys are found: test_issuer_keys."""
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        await provider.verify(issuer.sign())
        key = build_key("attacker")
        for n in range(200):
            text = issuer.sign_with(key, f"invented-{n}")
            assert isinstance(await catch(provider.verify(text)), IssuerUnavailable)
        assert issuer.count("jwks") == 1
        await provider.verify(issuer.sign())


async def test_an_unknown_key_is_refused_once_the_issuer_was_asked() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        assert isinstance(await catch(provider.verify(issuer.sign(key_id="key-9"))), NotAuthenticated)
        assert isinstance(await catch(provider.verify(issuer.sign(key_id="key-9"))), NotAuthenticated)
        assert issuer.count("jwks") == 1


# Profiles


async def test_the_profile_of_the_token_costs_no_question() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        token = await provider.verify(issuer.sign(email="bob@example.com", email_verified=True))
        assert await provider.fetch_profile(token) == Profile("auth0|ann", "bob@example.com", True, None)
        assert issuer.count("userinfo") == 0


async def test_without_one_userinfo_is_asked_with_the_token() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        token = await provider.verify(issuer.sign())
        assert await provider.fetch_profile(token) == Profile("auth0|ann", EMAIL, True, "Ann")
        (request,) = issuer.find_requests("userinfo")
        assert request.headers["authorization"] == f"Bearer {token.text}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (as_json(401, {"error": "invalid_token"}), NotAuthenticated),
        (response(403, b"<html>"), IssuerUnavailable),
        (response(400, b""), IssuerUnavailable),
        (response(429, b""), IssuerUnavailable),
        (as_json(200, {"sub": "auth0|bob", "email": EMAIL, "email_verified": True}), IssuerUnavailable),
        (as_json(200, {"email": EMAIL, "email_verified": True}), IssuerUnavailable),
    ],
)
async def test_what_userinfo_refuses_is_told_apart(script: list[Step], expected: type[Exception]) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        token = await provider.verify(issuer.sign())
        issuer.answers["userinfo"] = script
        assert isinstance(await catch(provider.fetch_profile(token)), expected)


# Refresh tokens


async def test_a_refresh_brings_a_token_and_its_successor() -> None:
    async with open_fake_issuer() as issuer:
        settings = issuer.build_settings(server_client_id="server-app", server_client_secret="hush & hush")
        issuer.refresh_tokens["old"] = "auth0|ann"
        async with open_openid_provider(settings) as provider:
            issued = await provider.refresh("old")
            assert issuer.refresh_tokens == {issued.refresh_token: "auth0|ann"}
            assert (await provider.verify(issued.access_token)).client_id == "server-app"
        assert read_form(issuer.find_requests("token")[0]) == {
            "grant_type": "refresh_token",
            "refresh_token": "old",
            "client_id": "server-app",
            "client_secret": "hush & hush",
        }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (as_json(400, {"error": "invalid_grant"}), NotAuthenticated),
        (as_json(401, {"error": "access_denied"}), NotAuthenticated),
        (as_json(403, {"error": "invalid_grant"}), NotAuthenticated),
        (as_json(401, {"error": "unauthorized", "error_description": "user is blocked"}), NotAuthenticated),
        (response(403, b"<html>"), IssuerUnavailable),
        (as_json(403, {"error": "Forbidden", "statusCode": 403}), IssuerUnavailable),
        (as_json(401, {"error": None}), IssuerUnavailable),
        (as_json(503, {"error": "invalid_grant"}), IssuerUnavailable),
        (as_json(400, {"error": "invalid_request"}), IssuerUnavailable),
        (as_json(401, {"error": "invalid_client"}), IssuerUnavailable),
        (as_json(403, {"error": "unauthorized_client"}), IssuerUnavailable),
        (response(429, b'{"error": "invalid_grant"}'), IssuerUnavailable),
        (as_json(200, {"token_type": "Bearer"}), IssuerUnavailable),
        (response(302, b"", {"location": "/login"}), IssuerUnavailable),
    ],
)
async def test_a_refusal_is_told_from_trouble_and_from_our_own_fault(
    script: list[Step], expected: type[Exception]
) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.answers["token"] = script
        assert isinstance(await catch(provider.refresh("old")), expected)


async def test_a_refresh_token_is_revoked_by_the_client_that_has_it() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.refresh_tokens = {"old": "auth0|ann", "new": "auth0|ann"}
        await provider.revoke("old")
        assert list(issuer.refresh_tokens) == ["new"]
        form = {"token": "old", "token_type_hint": "refresh_token", "client_id": "native-app"}
        assert read_form(issuer.find_requests("revoke")[0]) == form


@pytest.mark.parametrize("script", [response(503, b""), [Reset()]])
async def test_what_could_not_be_revoked_is_told_in_the_log(
    script: list[Step], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.answers["revoke"] = script
        await provider.revoke("a-refresh-token")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a-refresh-token" not in caplog.text


async def test_without_a_published_endpoint_the_usual_one_revokes() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.discovery["revocation_endpoint"] = None
        await provider.revoke("old")
        assert issuer.count("revoke") == 1


# Outages

OUTAGES = [
    pytest.param([WaitForClose()], id="hangs"),
    pytest.param([Close()], id="closes"),
    pytest.param([Reset()], id="resets"),
    pytest.param(response(500, b"{}"), id="500"),
    pytest.param(response(200, b"<html>Welcome to the airport"), id="garbage"),
    pytest.param(response(200, b"[]"), id="another shape"),
    pytest.param(response(302, b"", {"location": "https://example.com/"}), id="redirect"),
    pytest.param(response(200, b" " * 2_000_000), id="huge"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), WaitForClose()], id="stops"),
]


async def ask_profile(provider: OpenIdProvider, issuer: FakeIssuer) -> object:
    return await provider.fetch_profile(await provider.verify(issuer.sign()))


async def ask_refresh(provider: OpenIdProvider, issuer: FakeIssuer) -> object:
    return await provider.refresh("old")


async def ask_verification(provider: OpenIdProvider, issuer: FakeIssuer) -> object:
    return await provider.verify(issuer.sign())


@pytest.mark.parametrize("script", OUTAGES)
@pytest.mark.parametrize(
    ("endpoint", "ask"),
    [
        ("discovery", ask_verification),
        ("jwks", ask_verification),
        ("userinfo", ask_profile),
        ("token", ask_refresh),
    ],
)
async def test_an_outage_is_the_issuers_and_is_told_within_the_deadline(
    endpoint: str, ask: Question, script: Iterable[Step]
) -> None:
    async with open_fake_issuer() as issuer:
        issuer.answers[endpoint] = script
        async with open_openid_provider(issuer.build_settings(), total_seconds=SECONDS) as provider:
            with trio.fail_after(SECONDS + 2):
                assert isinstance(await catch(ask(provider, issuer)), IssuerUnavailable)


async def test_two_documents_that_come_slowly_have_one_deadline() -> None:
    async with open_fake_issuer() as issuer:
        discovered = list(issuer.respond(RecordedRequest("GET", PATHS["discovery"], {}, b"")))
        issuer.answers["discovery"] = [Pause(0.7 * SECONDS), *discovered]
        issuer.answers["jwks"] = [WaitForClose()]
        async with open_openid_provider(issuer.build_settings(), total_seconds=SECONDS) as provider:
            started = trio.current_time()
            await catch(provider.find_authorization_endpoint())
            assert trio.current_time() - started < 1.5 * SECONDS
        assert issuer.count("jwks") == 1


@pytest.mark.parametrize("script", OUTAGES)
@pytest.mark.parametrize("endpoint", ["discovery", "revoke"])
async def test_revoking_never_raises(endpoint: str, script: Iterable[Step]) -> None:
    async with open_fake_issuer() as issuer:
        issuer.answers[endpoint] = script
        async with open_openid_provider(issuer.build_settings(), total_seconds=SECONDS) as provider:
            with trio.fail_after(SECONDS + 2):
                await provider.revoke("old")


async def test_nobody_listens() -> None:
    async with open_fake_issuer() as issuer:
        settings, token = issuer.build_settings(), issuer.sign()
    async with open_openid_provider(settings) as provider:
        for ask in (ask_verification, ask_refresh, ask_profile):
            assert isinstance(await catch(ask(provider, issuer)), IssuerUnavailable)
        assert isinstance(await catch(provider.verify(token)), IssuerUnavailable)


async def test_what_is_known_outlives_the_issuer() -> None:
    async with open_fake_issuer() as issuer:
        settings, token = issuer.build_settings(), issuer.sign()
        async with open_openid_provider(settings) as provider:
            await provider.verify(token)
            issuer.answers |= {"discovery": response(500, b""), "jwks": response(500, b"")}
            await provider.verify(token)
            await provider.find_authorization_endpoint()


async def test_keys_are_fetched_before_anybody_comes() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider.keep_keys_fresh)
            await wait_until(lambda: issuer.count("jwks") == 1)
            await provider.verify(issuer.sign())
            nursery.cancel_scope.cancel()
        assert issuer.count("jwks") == 1


async def test_our_own_stand_in_is_asked_when_it_is_needed() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings(is_local=True)) as provider:
        with trio.fail_after(5):
            await provider.keep_keys_fresh()
        assert issuer.upstream.requests == []
        await provider.verify(issuer.sign())


async def test_secrets_show_in_no_repr_and_in_no_message() -> None:
    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        issuer.refresh_tokens["a-refresh-token"] = "auth0|ann"
        issued = await provider.refresh("a-refresh-token")
        assert issued.access_token not in repr(issued)
        assert str(issued.refresh_token) not in repr(issued)
        error = await catch(provider.refresh("a-refresh-token"))
        assert "a-refresh-token" not in f"{error!r} {error.__cause__!r}"


async def wait_until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not is_true():
            await trio.sleep(0.005)
