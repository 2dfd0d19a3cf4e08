"""What the local issuer is asked: who may be answered at all, and what a browser is told when something is wrong."""

import base64
import hashlib
import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from server.auth.issuer_documents import read_endpoints
from server.auth.local_requests import (
    AuthorizationRefused,
    GrantRefused,
    Person,
    build_discovery,
    check_client,
    is_verified_by,
    read_authorization,
    read_fields,
    read_logout_location,
    read_person,
)
from server.errors import RequestInvalid
from tests.fake_issuer import build_settings

SERVER = "http://127.0.0.1:8080"
ISSUER = f"{SERVER}/local-issuer/"
CALLBACK = f"{SERVER}/auth/auth0/callback"
SETTINGS = build_settings(ISSUER, is_local=True, callback_urls=(CALLBACK,))
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""Both are the example of RFC 7636, appendix B."""

GOOD = {
    "response_type": "code",
    "client_id": "native-app",
    "redirect_uri": CALLBACK,
    "state": "a state & more",
    "scope": "openid profile email",
    "audience": SETTINGS.audience,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "connection": "google-oauth2",
}


def change(**changes: str | None) -> dict[str, str]:
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


def test_a_request_is_read() -> None:
    wanted = read_authorization(SETTINGS, change(scope="email openid calendar", nonce="n"))
    assert (wanted.client_id, wanted.redirect_uri, wanted.challenge) == ("native-app", CALLBACK, CHALLENGE)
    assert (wanted.scopes, wanted.state, wanted.nonce) == (("openid", "email"), "a state & more", "n")


def test_what_the_form_carries_is_the_same_request() -> None:
    wanted = read_authorization(SETTINGS, change(scope="openid offline_access"))
    assert read_authorization(SETTINGS, wanted.build_form(SETTINGS)) == wanted


def test_the_answer_goes_to_the_callback_with_the_state() -> None:
    parts = urlsplit(read_authorization(SETTINGS, GOOD).build_answer(code="a code"))
    assert parts._replace(query="").geturl() == CALLBACK
    assert dict(parse_qsl(parts.query)) == {"code": "a code", "state": "a state & more"}


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "another-app"},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example.com/"},
        {"redirect_uri": f"{CALLBACK}/"},
        {"redirect_uri": f"{CALLBACK}?next=x"},
        {"redirect_uri": CALLBACK.replace("http:", "HTTP:")},
        {"state": "s" * 2001},
        {"nonce": "n" * 2001},
        {"scope": "openid " * 300},
    ],
)
def test_nothing_is_sent_to_where_a_stranger_says(changes: dict[str, str | None]) -> None:
    with pytest.raises(RequestInvalid):
        read_authorization(SETTINGS, change(**changes))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"audience": "https://other.example.com"}, "invalid_request"),
        ({"audience": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
    ],
)
def test_what_else_is_wrong_the_app_is_told(changes: dict[str, str | None], error: str) -> None:
    with pytest.raises(AuthorizationRefused) as raised:
        read_authorization(SETTINGS, change(**changes))
    parts = urlsplit(raised.value.location)
    answer = dict(parse_qsl(parts.query))
    assert parts._replace(query="").geturl() == CALLBACK
    assert (answer["error"], answer["state"]) == (error, "a state & more")
    assert answer["error_description"] == str(raised.value)


def test_a_parameter_that_comes_twice_is_refused() -> None:
    assert read_fields({"a": ["1"], "b": [""]}) == {"a": "1", "b": ""}
    with pytest.raises(RequestInvalid, match="state"):
        read_fields({"state": ["1", "2"]})


@pytest.mark.parametrize(
    "email",
    [
        *("", "ann", "ann@", "@b.c", "a b@c.d", "a@b@c.d", "a\x00@b.c"),
        *("a@b", "a@b.", "a@.b", "a@b..c"),
        *(f"{'a' * 65}@b.c", f"a@{'b' * 250}.cd"),
    ],
)
def test_an_address_looks_like_one(email: str) -> None:
    with pytest.raises(RequestInvalid):
        read_person({"email": email})


@pytest.mark.parametrize("name", ["a" * 101, "a\x00b", "a\u202eb"])
def test_a_name_can_be_shown(name: str) -> None:
    with pytest.raises(RequestInvalid):
        read_person({"email": "ann@example.com", "name": name})


def test_a_person_is_the_same_whatever_the_case_and_the_blanks() -> None:
    ann = read_person({"email": " Ann@Example.com ", "name": " Ann  Example "})
    assert ann == Person("Ann@Example.com", "Ann Example")
    assert ann.subject == read_person({"email": "ann@example.com"}).subject
    assert ann.subject != read_person({"email": "bob@example.com"}).subject
    assert ann.subject.startswith("local|")
    assert "Ann" not in repr(ann)
    long = f"{'a' * 64}@{'b' * 178}.mail.co.uk"
    assert read_person({"email": long}).email == long


def test_an_app_is_known_by_its_name() -> None:
    assert check_client(SETTINGS, {"client_id": "native-app"}) == "native-app"
    for fields in ({}, {"client_id": "another"}):
        with pytest.raises(GrantRefused) as raised:
            check_client(SETTINGS, fields)
        assert raised.value.error == "invalid_client"


def test_the_verifier_proves_who_asked() -> None:
    assert is_verified_by(CHALLENGE, VERIFIER)


@pytest.mark.parametrize("verifier", ["", CHALLENGE, VERIFIER[:-1], VERIFIER + "x", VERIFIER.lower(), "é" * 43])
def test_nothing_else_does(verifier: str) -> None:
    assert not is_verified_by(CHALLENGE, verifier)


def test_a_verifier_that_could_be_guessed_is_none() -> None:
    digest = hashlib.sha256(b"short").digest()
    assert not is_verified_by(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), "short")


def test_a_link_to_sign_out_leads_nowhere_else() -> None:
    ours = f"{SERVER}/auth/auth0/logged-out"
    assert read_logout_location(SETTINGS, {"returnTo": ours, "client_id": "x"}) == ours
    assert read_logout_location(SETTINGS, {}) == ours
    for other in ("https://evil.example.com/", f"{ours}@evil.example.com", "//evil.example.com", ""):
        with pytest.raises(RequestInvalid):
            read_logout_location(SETTINGS, {"returnTo": other})


def test_what_it_publishes_is_what_our_client_reads() -> None:
    endpoints = read_endpoints(SETTINGS, json.dumps(build_discovery(ISSUER)).encode())
    assert endpoints.token == f"{ISSUER}oauth/token"
