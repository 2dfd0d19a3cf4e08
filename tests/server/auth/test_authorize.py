"""The parameters of a sign-in: what an app may ask for, where the browser is sent, what the issuer may say."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from server.auth.authorize import (
    MAX_CODE,
    MAX_REASON,
    build_location,
    is_uuid,
    read_callback,
    read_login_request,
    read_polling_id,
    read_state,
)
from server.errors import RequestInvalid
from tests.fake_issuer import AUDIENCE, CLIENT_ID, build_settings

CALLBACK = "http://127.0.0.1:8080/auth/auth0/callback"
ENDPOINT = "https://tenant.example.com/authorize"
SETTINGS = build_settings("https://tenant.example.com/")
ASKED = {
    "pid": "0b0b7c3a-5c1d-4b5e-9b0f-0123456789ab",
    "csrf_tauri": "0123456789abcdefghijkl",
    "challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "challenge_method": "S256",
    "client_id": CLIENT_ID,
    "audience": AUDIENCE,
    "scope": "openid profile email",
    "redirect_uri": CALLBACK,
}


def build_query(**changes: str | None) -> MultiDict[str, str]:
    return MultiDict({name: text for name, text in {**ASKED, **changes}.items() if text is not None})


def locate(settings: Any = SETTINGS, endpoint: str = ENDPOINT, **changes: str | None) -> dict[str, str]:
    """The parameters that the browser is sent with."""
    location = build_location(endpoint, read_login_request(build_query(**changes), settings), "our-state", settings)
    pairs = parse_qsl(urlsplit(location).query, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_the_browser_is_sent_with_what_the_app_asked_and_our_state() -> None:
    assert locate() == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": CALLBACK,
        "scope": "openid profile email",
        "audience": AUDIENCE,
        "state": "our-state",
        "code_challenge": ASKED["challenge"],
        "code_challenge_method": "S256",
    }


def test_a_connection_is_passed_on_where_there_is_one() -> None:
    assert locate(connection="google-oauth2")["connection"] == "google-oauth2"


def test_what_nobody_knows_is_not_passed_on() -> None:
    assert locate(prompt="none", state="theirs", code_challenge="theirs") == locate()


def test_a_refresh_token_is_asked_for_where_the_deployment_wants_one() -> None:
    settings = build_settings("https://tenant.example.com/", asks_for_refresh_token=True)
    assert locate(settings)["scope"] == "openid profile email offline_access"
    assert locate(settings, scope="openid offline_access")["scope"] == "openid offline_access"


def test_an_endpoint_may_have_a_query_of_its_own() -> None:
    assert locate(endpoint=f"{ENDPOINT}?tenant=ours") == {"tenant": "ours", **locate()}


def test_a_space_is_written_so_that_every_server_reads_it() -> None:
    login = read_login_request(build_query(), SETTINGS)
    assert "scope=openid%20profile%20email" in build_location(ENDPOINT, login, "state", SETTINGS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pid", "1"),
        ("pid", "0b0b7c3a5c1d4b5e9b0f0123456789ab"),
        ("pid", "{0b0b7c3a-5c1d-4b5e-9b0f-0123456789ab}"),
        ("pid", ASKED["pid"] + "\n"),
        ("csrf_tauri", "short"),
        ("csrf_tauri", "x" * 129),
        ("csrf_tauri", "with a space in it"),
        ("csrf_tauri", "löwe" * 6),
        ("challenge", "x" * 42),
        ("challenge", "x" * 44),
        ("challenge", "x" * 42 + "="),
        ("challenge_method", "plain"),
        ("challenge_method", "s256"),
        ("client_id", "another-app"),
        ("audience", "https://elsewhere.example.com"),
        ("scope", "profile email"),
        ("scope", "openid admin"),
        ("scope", ""),
        ("redirect_uri", CALLBACK + "/"),
        ("redirect_uri", "https://elsewhere.example.com/auth/auth0/callback"),
        ("connection", ""),
        ("connection", "google&prompt=none"),
        ("connection", "-x"),
        ("connection", "x" * 129),
    ],
)
def test_what_an_app_may_not_ask_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(RequestInvalid, match=rf"^{name}: "):
        read_login_request(build_query(**{name: text}), SETTINGS)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_everything_is_required(name: str) -> None:
    with pytest.raises(RequestInvalid, match=rf"^{name}: is missing"):
        read_login_request(build_query(**{name: None}), SETTINGS)


@pytest.mark.parametrize("name", [*sorted(ASKED), "connection"])
def test_nothing_may_come_twice(name: str) -> None:
    query = build_query(connection="google-oauth2")
    query.add(name, query[name])
    with pytest.raises(RequestInvalid, match=rf"^{name}: stands there more than once"):
        read_login_request(query, SETTINGS)


def test_a_polling_id_is_kept_as_it_was_written() -> None:
    assert read_polling_id(build_query(pid=ASKED["pid"].upper())) == ASKED["pid"].upper()


def test_a_refusal_does_not_repeat_what_it_refuses() -> None:
    with pytest.raises(RequestInvalid) as refused:
        read_login_request(build_query(csrf_tauri="a secret"), SETTINGS)
    assert "a secret" not in str(refused.value)


@given(st.text(max_size=50))
def test_a_uuid_is_one_however_long_we_look(text: str) -> None:
    assert is_uuid(text) is False


def test_a_request_does_not_show_its_csrf_value() -> None:
    assert ASKED["csrf_tauri"] not in repr(read_login_request(build_query(), SETTINGS))


def test_the_issuer_brings_a_code() -> None:
    callback = read_callback(MultiDict({"code": "a-code-of-the-issuer", "state": "s", "iss": "x"}))
    assert (callback.code, callback.error) == ("a-code-of-the-issuer", None)
    assert "a-code-of-the-issuer" not in repr(callback)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"code": ""},
        {"code": "x" * (MAX_CODE + 1)},
        {"code": "line\nbreak"},
        {"code": ["one", "two"]},
    ],
)
def test_a_callback_without_a_fit_code_is_an_error(query: Any) -> None:
    callback = read_callback(MultiDict(query))
    assert callback.code is None
    assert callback.error


def test_an_error_is_told_in_the_issuers_words() -> None:
    query = MultiDict({"error": "access_denied", "error_description": "You did not allow it."})
    assert read_callback(query).error == "You did not allow it."
    assert read_callback(MultiDict({"error": "access_denied"})).error == "access_denied"


@pytest.mark.parametrize(
    ("query", "is_denial"),
    [
        ({"error": "access_denied"}, True),
        ({"error": "access_denied", "code": "a-code-of-the-issuer"}, True),
        ({"error": "server_error", "error_description": "access_denied"}, False),
        ({"code": "a-code-of-the-issuer"}, False),
        ({}, False),
    ],
)
def test_a_no_is_no_failure(query: dict[str, str], is_denial: bool) -> None:
    assert read_callback(MultiDict(query)).is_denial is is_denial


def test_an_error_counts_more_than_a_code() -> None:
    assert read_callback(MultiDict({"error": "access_denied", "code": "a-code-of-the-issuer"})).code is None


@given(st.text(max_size=3000))
def test_a_reason_is_one_short_line_whatever_was_said(text: str) -> None:
    reason = read_callback(MultiDict({"error": "e", "error_description": text})).error
    assert reason
    assert reason.isprintable()
    assert len(reason) <= MAX_REASON


def test_a_state_is_taken_only_if_it_could_be_ours() -> None:
    assert read_state(MultiDict({"state": "x" * 43})) == "x" * 43
    assert read_state(MultiDict({"state": "x" * 129})) is None
    assert read_state(MultiDict({"state": ["one", "two"]})) is None
    assert read_state(MultiDict()) is None
