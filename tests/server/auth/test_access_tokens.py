"""Access tokens of the issuer: every claim that is wrong is refused, and all with the same words."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from server.auth.access_tokens import REFUSED, AccessToken, Profile, build_profile, read_key_id, verify_access_token
from server.errors import NotAuthenticated
from tests.fake_issuer import AUDIENCE, CLIENT_ID, FakeIssuer, build_key, build_pem, build_settings
from tests.fakes import FakeUpstream

ISSUER = FakeIssuer(FakeUpstream("https://example.eu.auth0.com"))
SETTINGS = build_settings(ISSUER.issuer)
NOW = int(time.time())


def verify(text: str, **settings: Any) -> AccessToken:
    key_id = read_key_id(text)
    return verify_access_token(build_settings(ISSUER.issuer, **settings), build_key(key_id).public_key(), text)


def encode(claims: dict[str, Any], key: Any, algorithm: str, **header: Any) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "key-1", **header})


def test_a_good_token_is_read() -> None:
    token = verify(ISSUER.sign(iat=NOW, exp=NOW + 86_400))
    assert (token.subject, token.client_id, token.profile) == ("auth0|ann", CLIENT_ID, None)
    assert (token.issued_at, token.expires_at) == (NOW, NOW + 86_400)


def test_a_token_shows_in_no_repr() -> None:
    token = verify(ISSUER.sign(email="ann@example.com", email_verified=True, name="Ann Example"))
    assert not any(secret in repr(token) for secret in (token.text, "ann@example.com", "Ann Example"))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": AUDIENCE},
        {"azp": None},
        {"azp": None, "client_id": CLIENT_ID},
        {"azp": "server-app"},
        {"sub": "google-oauth2|" + "1" * 241},
    ],
)
def test_what_may_differ_passes(claims: dict[str, Any]) -> None:
    verify(ISSUER.sign(**claims), server_client_id="server-app")


def test_a_clock_that_differs_by_half_a_minute_passes() -> None:
    now = int(time.time())  # not NOW: a run of all tests comes here minutes after it
    verify(ISSUER.sign(exp=now - 30))
    verify(ISSUER.sign(iat=now + 30, nbf=now + 30))


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"aud": "https://other.example.com"}, id="another audience"),
        pytest.param({"aud": [f"{AUDIENCE}/", "x"]}, id="audiences that only look like ours"),
        pytest.param({"aud": CLIENT_ID}, id="an id token"),
        pytest.param({"aud": [AUDIENCE, 1]}, id="an audience that is no string"),
        pytest.param({"aud": None}, id="no audience"),
        pytest.param({"iss": "https://evil.example.com/"}, id="another issuer"),
        pytest.param({"iss": "https://example.eu.auth0.com"}, id="the issuer without its slash"),
        pytest.param({"iss": None}, id="no issuer"),
        pytest.param({"exp": NOW - 90}, id="expired"),
        pytest.param({"exp": None}, id="no expiry"),
        pytest.param({"exp": "soon"}, id="an expiry that is no time"),
        pytest.param({"exp": [1]}, id="an expiry that is a list"),
        pytest.param({"exp": float("inf")}, id="an endless expiry"),
        pytest.param({"exp": 10**400}, id="an expiry that no clock shows"),
        pytest.param({"nbf": NOW + 3600}, id="not yet valid"),
        pytest.param({"iat": NOW + 3600}, id="issued in the future"),
        pytest.param({"iat": None}, id="no time of issue"),
        pytest.param({"iat": float("nan")}, id="a time of issue that is no number"),
        pytest.param({"azp": "another-app"}, id="another app"),
        pytest.param({"azp": None, "client_id": "another-app"}, id="another app by the RFC's name"),
        pytest.param({"client_id": "another-app"}, id="two apps"),
        pytest.param({"azp": [CLIENT_ID]}, id="an app that is a list"),
        pytest.param({"azp": ""}, id="an app without a name"),
        pytest.param({"sub": ""}, id="nobody"),
        pytest.param({"sub": None}, id="no subject"),
        pytest.param({"sub": 7}, id="a subject that is a number"),
        pytest.param({"sub": "a" * 256}, id="a subject without end"),
        pytest.param({"sub": "auth0|ann\n"}, id="a subject with a control character"),
        pytest.param({"sub": "auth0|\ud800"}, id="a subject that no text can hold"),
    ],
)
def test_a_wrong_claim_is_refused_without_a_word_about_it(claims: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated) as raised:
        verify(ISSUER.sign(**claims))
    assert str(raised.value) == REFUSED


def test_another_key_of_the_same_name_is_refused() -> None:
    text = encode(ISSUER.build_claims(), build_key("key-2"), "RS256")
    with pytest.raises(NotAuthenticated):
        verify(text)


def test_a_changed_claim_is_refused() -> None:
    good, other = ISSUER.sign().split("."), ISSUER.sign(sub="auth0|bob").split(".")
    with pytest.raises(NotAuthenticated):
        verify(".".join([good[0], other[1], good[2]]))


def forge_with_none() -> str:
    return encode(ISSUER.build_claims(), None, "none")


def forge_with_public_key_as_secret() -> str:
    """PyJWT will not sign so; whoever attacks has a library that does."""
    claims, secret = ISSUER.build_claims(), build_pem("key-1")
    unsafe = jwt.PyJWS()
    hmac = unsafe.get_algorithm_by_name("HS256")
    hmac.prepare_key = lambda key: key  # type: ignore[method-assign] # what it refuses is what we want
    return unsafe.encode(jwt.PyJWT()._encode_payload(claims), secret, "HS256", {"kid": "key-1"})


def forge_with_other_rsa() -> str:
    return encode(ISSUER.build_claims(), build_key("key-1"), "RS384")


def forge_with_pss() -> str:
    return encode(ISSUER.build_claims(), build_key("key-1"), "PS256")


FORGERIES = [forge_with_none, forge_with_public_key_as_secret, forge_with_other_rsa, forge_with_pss]


@pytest.mark.parametrize("forge", FORGERIES)
def test_another_algorithm_is_refused_before_a_key_is_looked_for(forge: Any) -> None:
    with pytest.raises(NotAuthenticated):
        read_key_id(forge())


@pytest.mark.parametrize("forge", FORGERIES)
def test_another_algorithm_is_refused_by_the_signature_too(forge: Any) -> None:
    with pytest.raises(NotAuthenticated):
        verify_access_token(SETTINGS, build_key("key-1").public_key(), forge())


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.b", "a.b.c", "....", "é.é.é", "\ud800.a.b", "a" * 20_000, "e30.e30.e30", "W10.e30.", "bnVsbA.e30."],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(NotAuthenticated):
        read_key_id(text)


@pytest.mark.parametrize("key_id", [None, "k" * 201])
def test_a_token_names_its_key(key_id: str | None) -> None:
    headers = {} if key_id is None else {"kid": key_id}
    with pytest.raises(NotAuthenticated):
        read_key_id(jwt.encode({}, build_key("key-1"), algorithm="RS256", headers=headers))


def test_a_token_may_carry_the_profile() -> None:
    token = verify(ISSUER.sign(email="ann@example.com", email_verified=False, name="Ann"))
    assert token.profile == Profile("auth0|ann", "ann@example.com", False, "Ann")


@pytest.mark.parametrize(
    "claims",
    [{"email": "ann@example.com"}, {"email_verified": True}, {"email": "ann@example.com", "email_verified": "true"}],
)
def test_half_a_profile_is_none(claims: dict[str, Any]) -> None:
    assert verify(ISSUER.sign(**claims)).profile is None


@pytest.mark.parametrize("word", ["true", 1, None, "yes", [True]])
def test_only_true_means_that_an_address_is_verified(word: object) -> None:
    assert not build_profile("a", {"email": "a@b.c", "email_verified": word}).email_verified


@pytest.mark.parametrize("email", ["", "ann", "a b@c.d", "a\n@b", 7, None, f"{'a' * 320}@b.c", "a\u202e@b.c"])
def test_what_can_be_no_address_is_none(email: object) -> None:
    assert build_profile("a", {"email": email, "email_verified": True}).email is None


@pytest.mark.parametrize(("name", "shown"), [(" Ann\n", "Ann"), ("\x00", None), (7, None), ("a" * 300, "a" * 200)])
def test_a_name_is_what_can_be_shown(name: object, shown: str | None) -> None:
    assert build_profile("a", {"name": name}).name == shown


def test_the_public_key_that_confuses_is_the_one_that_is_published() -> None:
    """Else the forgery above would prove nothing."""
    key = serialization.load_pem_public_key(build_pem("key-1"))
    assert key == build_key("key-1").public_key()
