"""The issuer's documents: what is foreign in them is left out, what is wrong is the issuer's fault."""

import json
from typing import Any

import pytest

from server.auth.issuer_documents import discovery_url, read_endpoints, read_keys
from server.errors import IssuerUnavailable
from tests.fake_issuer import build_jwk, build_key, build_settings

ISSUER = "https://example.eu.auth0.com/"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}authorize",
    "token_endpoint": f"{ISSUER}oauth/token",
    "jwks_uri": f"{ISSUER}.well-known/jwks.json",
    "userinfo_endpoint": f"{ISSUER}userinfo",
    "revocation_endpoint": f"{ISSUER}revoke-it",
    "device_authorization_endpoint": None,
}


def as_bytes(**changes: Any) -> bytes:
    document = {**DOCUMENT, **changes}
    return json.dumps({name: value for name, value in document.items() if value != "-"}).encode()


def test_the_discovery_document_is_below_the_issuer() -> None:
    assert discovery_url(ISSUER) == f"{ISSUER}.well-known/openid-configuration"
    assert discovery_url("https://a.b/c") == "https://a.b/c/.well-known/openid-configuration"


def test_the_endpoints_are_read() -> None:
    found = read_endpoints(build_settings(ISSUER), as_bytes())
    assert found.authorization == f"{ISSUER}authorize"
    assert found.revocation == f"{ISSUER}revoke-it"


@pytest.mark.parametrize("published", ["-", None])
def test_without_a_revocation_endpoint_there_is_the_usual_one(published: str | None) -> None:
    found = read_endpoints(build_settings(ISSUER), as_bytes(revocation_endpoint=published))
    assert found.revocation == f"{ISSUER}oauth/revoke"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ISSUER.rstrip("/")},
        {"issuer": "https://evil.example.com/"},
        {"issuer": "-"},
        {"token_endpoint": "-"},
        {"token_endpoint": 7},
        {"token_endpoint": "http://example.eu.auth0.com/oauth/token"},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"userinfo_endpoint": "file:///etc/passwd"},
        {"userinfo_endpoint": "https://user@example.com/userinfo"},
        {"userinfo_endpoint": "https://[example.com/userinfo"},
        {"userinfo_endpoint": "https://example.com:99999/userinfo"},
        {"authorization_endpoint": "https:///authorize"},
        {"authorization_endpoint": "https://example.com/authorize#part"},
        {"authorization_endpoint": "https://example.com/author ize"},
        {"revocation_endpoint": "javascript:alert(1)"},
    ],
)
def test_a_wrong_document_is_the_issuers_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(IssuerUnavailable):
        read_endpoints(build_settings(ISSUER), as_bytes(**changes))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"issuer": ' + b"[" * 5000])
def test_what_is_no_document_is_the_issuers_fault(body: bytes) -> None:
    with pytest.raises(IssuerUnavailable):
        read_endpoints(build_settings(ISSUER), body)
    with pytest.raises(IssuerUnavailable):
        read_keys(body)


@pytest.mark.parametrize(
    ("issuer", "is_local", "is_fine"),
    [
        ("http://127.0.0.1:9000/", False, True),
        ("http://192.168.0.2:8080/local-issuer/", True, True),
        ("http://192.168.0.2:9000/", False, False),
        ("https://127.0.0.1:9000/", False, False),
    ],
)
def test_endpoints_are_plain_on_this_machine_alone(issuer: str, is_local: bool, is_fine: bool) -> None:
    names = [name for name in DOCUMENT if name.endswith(("endpoint", "uri")) and DOCUMENT[name]]
    body = as_bytes(issuer=issuer, **dict.fromkeys(names, "http://127.0.0.1:9000/x"))
    settings = build_settings(issuer, is_local=is_local)
    if is_fine:
        assert read_endpoints(settings, body).token == "http://127.0.0.1:9000/x"
    else:
        with pytest.raises(IssuerUnavailable):
            read_endpoints(settings, body)


FOREIGN = [
    {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA", "use": "sig"},
    {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "AA"},
    {**build_jwk("enc"), "use": "enc"},
    {**build_jwk("ps"), "alg": "PS256"},
    {name: value for name, value in build_jwk("nameless").items() if name != "kid"},
    {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
    {"kty": "RSA", "kid": "even", "n": "AAAA", "e": "AA"},
    {"kty": "RSA", "kid": "no numbers", "x5c": ["AAAA"]},
    build_jwk("short", 1024),
    "a string",
    None,
]


def test_foreign_and_broken_keys_are_skipped() -> None:
    ours = [build_jwk("key-1"), {**build_jwk("key-2"), "alg": "RS256", "x5t": "AA", "x5c": ["AA"]}]
    found = read_keys(json.dumps({"keys": [*FOREIGN, *ours]}).encode())
    assert found == {"key-1": build_key("key-1").public_key(), "key-2": build_key("key-2").public_key()}


@pytest.mark.parametrize("keys", [[], FOREIGN])
def test_no_key_that_we_can_use_is_the_issuers_fault(keys: list[Any]) -> None:
    with pytest.raises(IssuerUnavailable):
        read_keys(json.dumps({"keys": keys}).encode())
