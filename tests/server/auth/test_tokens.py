"""App tokens: what is in them, which hold, and from which device they may come. No store, no clock but a given one."""

import base64
import hashlib
import json
import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from server.auth.tokens import AUDIENCE, ISSUER, AppToken, check_device, hash_binding, issue_token, read_token
from server.errors import NotAuthenticated

SECRET, NEXT_SECRET = "a" * 32, "b" * 32
USER, DEVICE = UUID(int=1), UUID("ABCDEF01-2345-6789-ABCD-EF0123456789")
DAY = 86_400


def issue(**changes: Any) -> str:
    options: dict[str, Any] = {
        "user_id": USER,
        "email": "ann@example.com",
        "role": "user",
        "device_id": DEVICE,
        "now": time.time(),
        "days": 1,
    }
    return issue_token(SECRET, **(options | changes))


def build_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"sub": str(USER), "jti": str(uuid4()), "iat": now, "exp": now + 60, "iss": ISSUER, "aud": AUDIENCE}
    return claims | changes


def sign(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


def decode_part(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def refuse(text: str, *secrets: str) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        read_token(secrets or [SECRET], text)
    return str(caught.value)


# What is in a token


def test_a_token_has_the_claims_that_the_clients_know() -> None:
    header, claims, _ = issue(now=1_700_000_000.9, days=2).split(".")
    assert decode_part(header) == {"alg": "HS256", "typ": "JWT"}
    found = decode_part(claims)
    UUID(found.pop("jti"), version=4)
    assert found == {
        "sub": str(USER),
        "iat": 1_700_000_000,
        "exp": 1_700_000_000 + 2 * DAY,
        "iss": "plantocode",
        "aud": "plantocode-api",
        "email": "ann@example.com",
        "role": "user",
        "auth0_sub": None,
        "device_id": str(DEVICE),
        "tbh": hashlib.sha256(str(DEVICE).encode()).hexdigest(),
        "scope": "read write rpc",
        "session_id": None,
        "ip_binding": None,
        "auth_time": 1_700_000_000,
    }


def test_every_token_has_an_id_of_its_own() -> None:
    assert read_token([SECRET], issue()).token_id != read_token([SECRET], issue()).token_id


def test_what_was_issued_is_read_back() -> None:
    token = read_token([SECRET], issue())
    assert (token.user_id, token.device_id, token.binding) == (USER, str(DEVICE), hash_binding(str(DEVICE)))
    assert token.scopes == {"read", "write", "rpc"}
    assert token.expires_at == pytest.approx(time.time() + DAY, abs=5)


def test_a_token_of_a_sign_in_names_it_and_when_and_as_whom_it_was() -> None:
    session = uuid4()
    token = read_token([SECRET], issue(session_id=session, auth_time=1_700_000_000.9, subject="auth0|ann"))
    assert (token.session_id, token.revocation_id) == (session, session)
    assert (token.auth_time, token.subject, token.email) == (1_700_000_000, "auth0|ann", "ann@example.com")


def test_a_token_without_a_sign_in_is_revoked_by_itself() -> None:
    token = read_token([SECRET], issue())
    assert (token.session_id, token.revocation_id) == (None, token.token_id)
    assert token.auth_time == pytest.approx(time.time(), abs=5)


def test_without_a_time_of_sign_in_the_time_of_making_counts() -> None:
    assert read_token([SECRET], sign(build_claims(iat=1_700_000_000))).auth_time == 1_700_000_000


def test_a_token_shows_no_address_of_mail_in_its_repr() -> None:
    assert "ann@example.com" not in repr(read_token([SECRET], issue()))


def test_without_a_device_nothing_is_bound() -> None:
    token = read_token([SECRET], issue(device_id=None))
    assert (token.device_id, token.binding) == (None, None)


def test_a_device_is_compared_in_lower_case() -> None:
    claims = build_claims(device_id=str(DEVICE).upper(), tbh=hash_binding(str(DEVICE)).upper())
    token = read_token([SECRET], sign(claims))
    assert (token.device_id, token.binding) == (str(DEVICE), hash_binding(str(DEVICE)))
    assert hash_binding("ABC") == hash_binding("abc")


# Which hold


def test_a_token_that_the_replaced_secret_signed_expires_as_any_other() -> None:
    text = sign(build_claims(exp=int(time.time()) - 1), NEXT_SECRET)
    assert refuse(text, SECRET, NEXT_SECRET) == "Token expired"


def test_a_second_secret_is_accepted_and_a_third_is_not() -> None:
    text = issue()
    assert read_token([NEXT_SECRET, SECRET], text).user_id == USER
    assert refuse(text, NEXT_SECRET) == "Invalid token"
    assert refuse(text, NEXT_SECRET, "c" * 32) == "Invalid token"


@pytest.mark.parametrize("secrets", [[SECRET], [NEXT_SECRET, SECRET]])
def test_an_expired_token_says_so_without_leeway(secrets: list[str]) -> None:
    assert refuse(sign(build_claims(exp=int(time.time()) - 1)), *secrets) == "Token expired"


def test_a_token_may_be_older_than_a_day() -> None:
    now = int(time.time())
    assert read_token([SECRET], sign(build_claims(iat=now - 30 * DAY, exp=now + 60))).user_id == USER


def test_a_token_that_is_over_counts_within_a_grace_and_no_longer() -> None:
    text = sign(build_claims(exp=int(time.time()) - 50))
    assert read_token([SECRET], text, grace_seconds=60).user_id == USER
    with pytest.raises(NotAuthenticated, match="Token expired"):
        read_token([SECRET], text, grace_seconds=40)


def test_a_token_whose_time_has_not_come_is_refused_until_it_has() -> None:
    now = int(time.time())
    assert refuse(sign(build_claims(nbf=now + 60))) == "Invalid token"
    assert read_token([SECRET], sign(build_claims(nbf=now - 1))).user_id == USER


def test_a_token_that_is_remembered_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = issue()
    assert read_token([SECRET], text).user_id == USER
    later = time.time() + DAY + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert refuse(text) == "Token expired"


@pytest.mark.parametrize("name", ["device_id", "tbh", "scope", "session_id", "auth_time", "auth0_sub", "ip_binding"])
def test_a_claim_that_is_null_is_as_good_as_absent(name: str) -> None:
    claims = build_claims()
    assert read_token([SECRET], sign(claims | {name: None})) == read_token([SECRET], sign(claims))


def test_a_clock_that_is_ahead_of_ours_is_forgiven() -> None:
    assert read_token([SECRET], sign(build_claims(iat=int(time.time()) + 300))).user_id == USER


@pytest.mark.parametrize("name", ["sub", "jti", "iat", "exp", "iss", "aud"])
def test_every_claim_that_is_needed_must_be_there(name: str) -> None:
    claims = build_claims()
    del claims[name]
    assert refuse(sign(claims)) == "Invalid token"


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "ann"},
        {"sub": 1},
        {"jti": "1"},
        {"exp": "soon"},
        {"exp": 1e400},
        {"iss": "https://plantocode.eu.auth0.com/"},
        {"aud": "https://plantocode.com"},
        {"aud": None},
        {"jti": None},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": 1e17},
        {"exp": None},
        {"iat": "now"},
        {"iat": -1},
        {"nbf": "now"},
        {"device_id": 1},
        {"device_id": [str(DEVICE)]},
        {"tbh": {"sha256": "x"}},
        {"scope": ["read", "write"]},
        {"session_id": "1"},
        {"session_id": 1},
        {"session_id": ""},
        {"session_id": [str(USER)]},
        {"auth_time": "1700000000"},
        {"auth_time": float("inf")},
        {"auth_time": -5},
        {"auth_time": 10**30},
        {"auth0_sub": 5},
        {"auth0_sub": {"a": "b"}},
        {"auth0_sub": "a\x00b"},
        {"auth0_sub": "\ud800"},
        {"email": ["a@b.c"]},
        {"email": "a\x00@b.c"},
        {"ip_binding": 2130706433},
        {"ip_binding": ["127.0.0.1"]},
    ],
    ids=str,
)
def test_a_claim_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    assert refuse(sign(build_claims(**changes))) == "Invalid token"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_is_refused(algorithm: str) -> None:
    assert refuse(sign(build_claims(), "a" * 64, algorithm), "a" * 64) == "Invalid token"


def test_a_token_without_a_signature_is_refused() -> None:
    unsigned = jwt.encode(build_claims(), "", algorithm="none")
    assert refuse(unsigned) == "Invalid token"
    header, claims, _ = issue().split(".")
    assert refuse(f"{header}.{claims}.") == "Invalid token"
    assert refuse(f"{unsigned.split('.')[0]}.{claims}.{issue().split('.')[2]}") == "Invalid token"


def test_a_changed_claim_breaks_the_signature() -> None:
    header, claims, signature = issue().split(".")
    admin = base64.urlsafe_b64encode(json.dumps(decode_part(claims) | {"role": "admin"}).encode()).decode().rstrip("=")
    assert refuse(f"{header}.{admin}.{signature}") == "Invalid token"


@given(text=st.text(st.characters(max_codepoint=255)) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
@example(text=base64.urlsafe_b64encode(b"[" * 60_000).decode() + ".e30.x")
@example(text="a.b\x00.c")
def test_whatever_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    assert refuse(text) == "Invalid token"


# From which device


def build_token(device: str | None = str(DEVICE), *, is_bound: bool = True) -> AppToken:
    binding = hash_binding(device) if device and is_bound else None
    return AppToken(USER, uuid4(), 0, device, binding, frozenset())


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Device-ID": str(DEVICE), "X-Token-Binding": str(DEVICE)},
        {"x-device-id": str(DEVICE).upper(), "x-token-binding": str(DEVICE).upper()},
        {"X-Device-ID": str(DEVICE)},
        {"X-Device-ID": str(DEVICE), "X-Token-Binding": ""},
    ],
    ids=["as the clients send it", "in upper case", "without a binding", "with an empty binding"],
)
def test_the_tokens_own_device_may_use_it(headers: dict[str, str]) -> None:
    check_device(build_token(), Headers(headers))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing X-Device-ID header for device-bound token"),
        ({"X-Token-Binding": str(DEVICE)}, "Missing X-Device-ID header for device-bound token"),
        ({"X-Device-ID": str(USER)}, "Device ID mismatch"),
        ({"X-Device-ID": ""}, "Device ID mismatch"),
        ({"X-Device-ID": str(DEVICE), "X-Token-Binding": str(USER)}, "Token binding validation failed"),
    ],
)
def test_another_device_is_refused_in_the_words_that_the_desktop_searches(
    headers: dict[str, str], message: str
) -> None:
    with pytest.raises(NotAuthenticated, match=message):
        check_device(build_token(), Headers(headers))


def test_a_binding_without_a_device_needs_a_proof() -> None:
    token = AppToken(USER, uuid4(), 0, None, hash_binding(str(DEVICE)), frozenset())
    with pytest.raises(NotAuthenticated, match="Token binding validation failed"):
        check_device(token, Headers())
    check_device(token, Headers({"X-Token-Binding": str(DEVICE)}))


def test_a_token_without_a_device_may_come_from_anywhere() -> None:
    check_device(build_token(None), Headers())
    check_device(build_token(None), Headers({"X-Device-ID": str(DEVICE)}))


def test_a_device_that_is_not_bound_is_checked_all_the_same() -> None:
    check_device(build_token(is_bound=False), Headers({"X-Device-ID": str(DEVICE)}))
    with pytest.raises(NotAuthenticated, match="Device ID mismatch"):
        check_device(build_token(is_bound=False), Headers({"X-Device-ID": str(USER)}))
