"""How people sign in: what production insists on, what a developer gets without asking, and no secret in a repr."""

from decimal import Decimal

import pytest

from server.auth.settings import LOCAL_AUDIENCE, LOCAL_CLIENT_ID, SignInSettings, read_sign_in_settings
from server.settings import Settings

SERVER_URL = "https://api.example.com"
AUTH0 = {
    "AUTH0_DOMAIN": "example.eu.auth0.com",
    "AUTH0_API_AUDIENCE": "https://example.com",
    "AUTH0_NATIVE_CLIENT_ID": "desktop, mobile",
}


def read(environment: dict[str, str], *, is_production: bool = True) -> SignInSettings:
    settings = Settings(environment)
    found = read_sign_in_settings(settings, SERVER_URL, is_production)
    assert settings.problems == []
    return found


def refuse(environment: dict[str, str], *, is_production: bool = True) -> list[str]:
    settings = Settings(environment)
    read_sign_in_settings(settings, SERVER_URL, is_production)
    return settings.problems


@pytest.mark.parametrize("is_production", [True, False])
def test_auth0_is_named_by_its_domain(is_production: bool) -> None:
    settings = read(AUTH0, is_production=is_production)
    assert (settings.issuer, settings.is_local) == ("https://example.eu.auth0.com/", False)
    assert (settings.audience, settings.client_ids) == ("https://example.com", frozenset({"desktop", "mobile"}))
    assert settings.callback_urls == ("https://api.example.com/auth/auth0/callback",)
    assert (settings.website_url, settings.asks_for_refresh_token) == (None, False)
    assert (settings.server_client_id, settings.server_client_secret, settings.refresh_token_key) == (None, None, None)
    assert (settings.login_max_age_days, settings.refresh_grace_days) == (30, 7)
    assert settings.signup_credits_usd == Decimal(2)


@pytest.mark.parametrize("domain", ["example.eu.auth0.com", "https://example.eu.auth0.com/", "example.eu.auth0.com/"])
def test_a_domain_may_be_a_url(domain: str) -> None:
    assert read(AUTH0 | {"AUTH0_DOMAIN": domain}).issuer == "https://example.eu.auth0.com/"


@pytest.mark.parametrize("issuer", ["https://login.example.com", "https://login.example.com/", "http://127.0.0.1:9/x"])
def test_another_issuer_is_taken_to_the_letter(issuer: str) -> None:
    assert read(AUTH0 | {"AUTH0_ISSUER_URL": issuer}).issuer == issuer


def test_everything_else_is_read() -> None:
    settings = read(
        AUTH0
        | {
            "SERVER_AUTH0_CALLBACK_URL": "https://a.example/cb, https://b.example/cb",
            "WEBSITE_BASE_URL": "https://www.example.com/",
            "AUTH0_OFFLINE_ACCESS": "on",
            "AUTH0_SERVER_CLIENT_ID": "server",
            "AUTH0_SERVER_CLIENT_SECRET": "s3cret",
            "REFRESH_TOKEN_ENCRYPTION_KEY": "0f" * 32,
            "LOGIN_MAX_AGE_DAYS": "90",
            "REFRESH_GRACE_DAYS": "0.5",
            "SIGNUP_CREDITS_USD": "0",
        }
    )
    assert settings.callback_urls == ("https://a.example/cb", "https://b.example/cb")
    assert (settings.website_url, settings.asks_for_refresh_token) == ("https://www.example.com", True)
    assert (settings.server_client_id, settings.server_client_secret) == ("server", "s3cret")
    assert settings.refresh_token_key == b"\x0f" * 32
    assert (settings.login_max_age_days, settings.refresh_grace_days) == (90, 0.5)
    assert settings.signup_credits_usd == 0


def test_no_secret_shows_in_a_repr() -> None:
    shown = repr(read(AUTH0 | {"AUTH0_SERVER_CLIENT_SECRET": "s3cret", "REFRESH_TOKEN_ENCRYPTION_KEY": "78" * 32}))
    assert "s3cret" not in shown
    assert "x" * 32 not in shown


# Production


def test_production_has_no_issuer_of_its_own() -> None:
    names = [problem.split()[0] for problem in refuse({})]
    assert names == ["AUTH0_DOMAIN", "AUTH0_API_AUDIENCE", "AUTH0_NATIVE_CLIENT_ID"]


def test_production_asks_an_issuer_over_https_only() -> None:
    insecure = AUTH0 | {"AUTH0_ISSUER_URL": "http://login.example.com"}
    assert refuse(insecure) == ["AUTH0_ISSUER_URL is wrong: an issuer is asked over https only"]
    assert refuse(insecure, is_production=False) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AUTH0_ISSUER_URL", "login.example.com"),
        ("AUTH0_DOMAIN", "no host"),
        ("AUTH0_NATIVE_CLIENT_ID", " , "),
        ("SERVER_AUTH0_CALLBACK_URL", "/auth/auth0/callback"),
        ("WEBSITE_BASE_URL", "www.example.com"),
        ("AUTH0_OFFLINE_ACCESS", "perhaps"),
        ("REFRESH_TOKEN_ENCRYPTION_KEY", "0f" * 31),
        ("REFRESH_TOKEN_ENCRYPTION_KEY", "hunter2" * 10),
        ("LOGIN_MAX_AGE_DAYS", "91"),
        ("LOGIN_MAX_AGE_DAYS", "0"),
        ("REFRESH_GRACE_DAYS", "-1"),
        ("SIGNUP_CREDITS_USD", "two"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(name: str, text: str) -> None:
    (problem,) = refuse(AUTH0 | {name: text})
    assert problem.startswith(f"{name} is wrong: ")
    assert "hunter2" not in problem


# Development


def test_a_developer_who_sets_nothing_gets_the_local_issuer() -> None:
    settings = read({}, is_production=False)
    assert settings.is_local
    assert settings.issuer == "https://api.example.com/local-issuer/"
    assert (settings.audience, settings.client_ids) == (LOCAL_AUDIENCE, frozenset({LOCAL_CLIENT_ID}))
    assert (settings.server_client_id, settings.asks_for_refresh_token) == (LOCAL_CLIENT_ID, True)


def test_a_developer_who_names_an_issuer_names_all_of_it() -> None:
    names = [problem.split()[0] for problem in refuse({"AUTH0_DOMAIN": "example.eu.auth0.com"}, is_production=False)]
    assert names == ["AUTH0_API_AUDIENCE", "AUTH0_NATIVE_CLIENT_ID"]
