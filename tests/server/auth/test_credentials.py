"""What a request brings to say who calls: which of it counts, and what is none."""

import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from server.auth.credentials import Credentials, hash_api_key, read_credentials
from server.errors import NotAuthenticated

KEY, OTHER_KEY = "0123456789abcdef" * 4, "f" * 64


def refuse(headers: Mapping[str, str]) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        read_credentials(Headers(headers))
    return str(caught.value)


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c  "])
def test_the_token_is_read_in_any_case(value: str) -> None:
    assert read_credentials(Headers({"authorization": value})) == Credentials("a.b.c", is_api_key=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": f"  {KEY} "},
        {"Authorization": f"ApiKey {KEY}"},
        {"Authorization": f"apikey   {KEY} "},
        {"Authorization": f"Bearer {KEY}"},
    ],
    ids=str,
)
def test_a_key_is_read_wherever_clients_put_it(headers: Mapping[str, str]) -> None:
    assert read_credentials(Headers(headers)) == Credentials(KEY, is_api_key=True)


def test_a_key_comes_before_a_token_and_its_own_header_first() -> None:
    token = {"Authorization": "Bearer a.b.c"}
    assert read_credentials(Headers({"X-API-Key": KEY, **token})).text == KEY
    assert read_credentials(Headers({"X-API-Key": KEY, "Authorization": f"ApiKey {OTHER_KEY}"})).text == KEY


def test_an_empty_key_leaves_the_token() -> None:
    assert read_credentials(Headers({"X-API-Key": " ", "Authorization": "Bearer a.b.c"})).text == "a.b.c"


def test_a_wrong_key_is_not_made_good_by_a_token() -> None:
    assert refuse({"X-API-Key": "wrong", "Authorization": "Bearer a.b.c"}).startswith("Invalid API key")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing credentials"),
        ({"Authorization": ""}, "Missing credentials"),
        ({"Authorization": "Bearer"}, "Unsupported credentials"),
        ({"Authorization": "Bearer "}, "Unsupported credentials"),
        ({"Authorization": "ApiKey"}, "Unsupported credentials"),
        ({"Authorization": "Basic YTpi"}, "Unsupported credentials"),
        ({"Authorization": "a.b.c"}, "Unsupported credentials"),
        ({"Authorization": KEY}, "Unsupported credentials"),
    ],
)
def test_without_credentials_nobody_is_there(headers: Mapping[str, str], message: str) -> None:
    assert refuse(headers).startswith(message)


@pytest.mark.parametrize("key", ["x", KEY[:-1], KEY + "0", "g" * 64, "０" * 64, "a.b.c", f"{KEY[:32]} {KEY[32:-1]}"])
def test_what_has_not_the_form_of_a_key_is_none(key: str) -> None:
    assert refuse({"X-API-Key": key}).startswith("Invalid API key")
    assert refuse({"Authorization": f"ApiKey {key}"}).startswith("Invalid API key")


def test_credentials_show_nothing_of_themselves() -> None:
    assert KEY not in repr(Credentials(KEY, is_api_key=True))
    assert "wrong" not in refuse({"X-API-Key": "wrong"})


def test_the_hash_of_a_key_is_keyed() -> None:
    expected = hmac.new(b"a" * 32, KEY.encode(), hashlib.sha256).hexdigest()
    assert hash_api_key("a" * 32, KEY) == expected
    assert hash_api_key("b" * 32, KEY) != expected
    assert len(expected) == 64


@given(value=st.text(), key=st.text())
def test_whatever_is_sent_is_read_or_refused(value: str, key: str) -> None:
    with suppress(NotAuthenticated):
        read_credentials({"Authorization": value, "X-API-Key": key})
