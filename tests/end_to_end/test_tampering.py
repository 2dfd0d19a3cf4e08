"""What somebody might try: tokens that were made up, changed, stolen, replayed or outlived, sent over the wire.

The issuer's tokens come to finalize-login, ours to every route; userinfo stands for those. Codes are exchanged at the
issuer: that one which comes twice serves nobody is shown with real ones, in test_browser_sign_in.py.
"""

import base64
import hmac
import json
import time
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import redis

from server.auth.tokens import issue_token
from tests.end_to_end.cloche import SECRET, Stores
from tests.end_to_end.shipped_app import ISSUER_CODE, ShippedApp, open_shipped_app
from tests.end_to_end.test_sign_in import read_claims
from tests.fake_issuer import FakeIssuer, build_key, build_pem
from tests.fakes import response

HOUR = 3600


def encode(part: object) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def sign_by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None, digest: str = "sha256") -> str:
    """What PyJWT refuses to make: no signature, a public key as the secret, a secret too short for its algorithm."""
    signed = f"{encode(header)}.{encode(claims)}"
    if secret is None:
        return f"{signed}."
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), digest))}"


def forge_issuer_tokens(issuer: FakeIssuer) -> dict[str, str]:
    now, claims = int(time.time()), issuer.build_claims()
    good = issuer.sign().split(".")
    richer = {**claims, "sub": "auth0|admin"}
    known = {"kid": "key-1", "typ": "JWT"}
    return {
        "wrong audience": issuer.sign(aud="https://elsewhere.example.com"),
        "no audience": issuer.sign(aud=None),
        "wrong issuer": issuer.sign(iss="https://elsewhere.example.com/"),
        "the issuer without its slash": issuer.sign(iss=issuer.issuer.rstrip("/")),
        "another client of the issuer": issuer.sign(azp="another-app"),
        "expired": issuer.sign(iat=now - HOUR, exp=now - 61),
        "without an end": issuer.sign(exp=None),
        "not valid yet": issuer.sign(nbf=now + 120),
        "made in the future": issuer.sign(iat=now + 120),
        "nobody's": issuer.sign(sub=""),
        "no algorithm": sign_by_hand({**known, "alg": "none"}, claims, None),
        "no algorithm, in capitals": sign_by_hand({**known, "alg": "NONE"}, claims, None),
        "HS256 with the public key": sign_by_hand({**known, "alg": "HS256"}, claims, build_pem("key-1")),
        "RS256 in words, HS256 in deed": sign_by_hand({**known, "alg": "RS256"}, claims, build_pem("key-1")),
        "HS256 with our own secret": sign_by_hand({**known, "alg": "HS256"}, claims, SECRET.encode()),
        "RS384": jwt.encode(claims, build_key("key-1"), algorithm="RS384", headers={"kid": "key-1"}),
        "another key under a known name": jwt.encode(claims, build_key("x"), "RS256", headers={"kid": "key-1"}),
        "no key named": jwt.encode(claims, build_key("key-1"), algorithm="RS256"),
        "other claims": f"{good[0]}.{encode(richer)}.{good[2]}",
        "no signature": f"{good[0]}.{good[1]}.",
        "rubbish": "rubbish",
        "rubbish in three parts": "a.b.c",
        "one of our own": build_app_token(),
    }


def build_app_token(**changes: Any) -> str:
    return issue_token(
        SECRET,
        **{
            "user_id": uuid4(),
            "email": "ann@example.com",
            "role": "admin",
            "device_id": None,
            "now": time.time(),
            "days": 1,
            **changes,
        },
    )


def forge_app_tokens(app: ShippedApp) -> dict[str, str]:
    now, claims = int(time.time()), read_claims(app.token)
    head, _, signature = app.token.split(".")

    def sign(secret: str = SECRET, **changes: Any) -> str:
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
        return jwt.encode(kept, secret, algorithm="HS256")

    return {
        "wrong audience": sign(aud="elsewhere"),
        "no audience": sign(aud=...),
        "wrong issuer": sign(iss="elsewhere"),
        "expired": sign(exp=now - 1),
        "without an end": sign(exp=...),
        "not valid yet": sign(nbf=now + HOUR),
        "no algorithm": sign_by_hand({"alg": "none", "typ": "JWT"}, claims, None),
        "HS512": sign_by_hand({"alg": "HS512", "typ": "JWT"}, claims, SECRET.encode(), "sha512"),
        "RS256": jwt.encode(claims, build_key("key-1"), algorithm="RS256"),
        "another secret": sign(secret="another-secret-0123456789abcdef-0123"),
        "an empty secret": sign_by_hand({"alg": "HS256", "typ": "JWT"}, claims, b""),
        "another user": f"{head}.{encode({**claims, 'sub': str(uuid4())})}.{signature}",
        "no user": sign(sub="x"),
        "a token of the issuer": app.sign(),
        "another device": sign(device_id=str(uuid4())),
        "another device's binding": sign(tbh="0" * 64),
        "another address": sign(ip_binding="203.0.113.7"),
        "cut short": app.token[:-2],
    }


async def test_a_forged_token_of_the_issuer_signs_nobody_in_and_learns_nothing(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        answers = {name: await app.finalize(token) for name, token in forge_issuer_tokens(app.issuer).items()}
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 401)
        assert len({answer.text for answer in answers.values()}) == 1
        assert app.issuer.count("userinfo") == 0
        assert app.cloche.query("SELECT 1 FROM logins") == []
        await app.sign_in()


async def test_a_forged_token_of_ours_opens_nothing(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        forged = forge_app_tokens(app)
        answers = {}
        for name, token in forged.items():
            answers[name] = await app.ask_who(Authorization=f"Bearer {token}")
            refresh = {**app.headers, "Authorization": f"Bearer {token}"}
            if name != "expired":
                answer = await app.client.post("/api/auth0/refresh-app-token", headers=refresh)
                answers[f"{name}, to be renewed"] = answer
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 401)
        assert {answer.json()["error_type"] for answer in answers.values()} == {"authentication_error"}
        assert (await app.ask_who()).status_code == 200


async def test_a_token_works_on_no_other_device(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        other = str(uuid4())
        for headers, said in [
            ({"X-Device-ID": other, "X-Token-Binding": other}, "Device ID mismatch"),
            ({"X-Token-Binding": other}, "Token binding validation failed"),
        ]:
            refused = await app.ask_who(**headers)
            assert (refused.status_code, said in refused.json()["message"]) == (401, True)
        bare = await app.client.get("/api/auth/userinfo", headers={"Authorization": f"Bearer {app.token}"})
        assert (bare.status_code, "Missing X-Device-ID header" in bare.json()["message"]) == (401, True)
        assert (await app.ask_who(**{"X-Device-ID": app.device_id.upper()})).status_code == 200


async def test_a_storm_of_invented_keys_costs_the_issuer_next_to_nothing(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        asked = app.issuer.count("jwks")
        answers = [await app.finalize(app.sign(key_id=f"invented-{n % 3}")) for n in range(100)]
        assert {answer.status_code for answer in answers} <= {401, 503}
        assert app.issuer.count("jwks") - asked <= 1
        await app.on_another_device().sign_in()


async def test_a_state_that_comes_again_changes_nothing(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        state = await app.begin_and_find_state()
        await app.come_back(state)
        assert (await app.come_back(state, code="a-code-of-the-thief")).status_code == 401
        assert (await app.come_back(state, error="access_denied")).status_code == 401
        assert "thief" not in (await app.poll()).text


async def test_a_token_that_was_revoked_stays_so_when_redis_forgets(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        first, app.token = app.token, (await app.refresh()).json()["token"]
        await app.sign_out()
        forget(stores)
        for token in (first, app.token):
            app.token = token
            refused = await app.ask_who()
            assert (refused.status_code, refused.json()["error_type"]) == (401, "authentication_error")
            assert (await app.refresh()).status_code == 401


async def test_nobody_comes_back_by_a_token_from_before_the_deletion(stores: Stores) -> None:
    """Neither by one of this region or of another, nor by the issuer's."""
    async with open_shipped_app(stores) as app:
        before, made_before = int(time.time()) - 10, app.sign()
        session = await app.sign_in(app.sign(iat=before))
        elsewhere = {"device_id": app.device_id, "subject": "auth0|ann", "auth_time": before}
        abroad = build_app_token(**elsewhere, session_id=uuid4())
        alias = {**app.headers, "Authorization": f"Bearer {abroad}"}
        known = await app.client.get("/api/auth/userinfo", headers=alias)
        assert (known.status_code, known.json()["id"]) == (200, session["user"]["id"])
        await app.delete_account()
        later = build_app_token(**elsewhere, session_id=uuid4())
        for token in (app.token, abroad, later):
            forget(stores)
            for _ in range(2):
                headers = {**app.headers, "Authorization": f"Bearer {token}"}
                assert (await app.client.get("/api/auth/userinfo", headers=headers)).status_code == 401
        assert (await app.finalize(made_before)).status_code == 401
        assert app.cloche.query("SELECT 1 FROM users") == []


async def test_a_user_whom_another_region_still_has_comes_back_by_signing_in_anew_there(stores: Stores) -> None:
    """The phone signs in at one region always, and is deleted at another: there, its id is the one it had."""
    async with open_shipped_app(stores) as app:
        abroad = {"device_id": app.device_id, "subject": "auth0|ann", "user_id": uuid4()}
        before = build_app_token(**abroad, auth_time=time.time() - 10, session_id=uuid4())
        after = build_app_token(**abroad, auth_time=time.time() + 10, session_id=uuid4())
        app.token = before
        assert (await app.ask_who()).status_code == 200
        assert (await app.delete_account()).status_code == 200
        forget(stores)  # or two minutes later
        for app.token, status in ((after, 200), (before, 401), (after, 200), (before, 401)):
            assert (await app.ask_who()).status_code == status


async def test_a_token_of_the_issuer_written_in_another_way_is_the_same_token(stores: Stores) -> None:
    """Base64 has a padding that may be left out, and the same signature holds: still it signs in one device."""
    async with open_shipped_app(stores) as app:
        text = app.sign()
        await app.sign_in(text)
        refused = await app.on_another_device().finalize(f"{text}==")
        assert (refused.status_code, refused.json()["error_type"]) == (401, "unauthorized")


async def test_an_address_that_nobody_verified_signs_nobody_in(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        for subject, said in (("auth0|eve", False), ("auth0|mia", "true"), ("auth0|max", None)):
            app.issuer.people[subject] = {"sub": subject, "email": "eve@example.com", "email_verified": said}
            refused = await app.finalize(app.sign(sub=subject))
            assert (refused.status_code, refused.json()["error_type"]) == (401, "unauthorized")
        assert app.cloche.query("SELECT 1 FROM identities") == []


async def test_accounts_are_joined_by_a_verified_address_alone(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        ann = await app.sign_in()
        people = app.issuer.people
        people["google-oauth2|ann"] = {"sub": "google-oauth2|ann", "email": "Ann@Example.com", "email_verified": True}
        people["github|eve"] = {"sub": "github|eve", "email": "ann@example.com", "email_verified": False}
        joined = await app.on_another_device().sign_in(app.sign(sub="google-oauth2|ann"))
        alone = await app.on_another_device().sign_in(app.sign(sub="github|eve"))
        assert joined["user"]["id"] == ann["user"]["id"]
        assert alone["user"]["id"] != ann["user"]["id"]
        assert alone["user"]["email"] != "ann@example.com"


async def test_userinfo_about_somebody_else_signs_nobody_in(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        app.issuer.people["auth0|eve"] = {"sub": "auth0|ann", "email": "ann@example.com", "email_verified": True}
        assert (await app.finalize(app.sign(sub="auth0|eve"))).status_code in {401, 503}
        assert app.cloche.query("SELECT 1 FROM users") == []


async def test_an_issuer_in_trouble_is_never_the_callers_fault(stores: Stores) -> None:
    """Clients sign out on a 401."""
    async with open_shipped_app(stores) as app:
        for name, trouble in {
            "an error": response(500, b""),
            "too many": response(429, b"", {"Retry-After": "1"}),
            "a page": response(200, b"<html>maintenance</html>"),
            "a redirect": response(302, b"", {"Location": "http://127.0.0.1:9/"}),
        }.items():
            app.issuer.answers["userinfo"] = trouble
            answer = await app.finalize()
            told: tuple[int, str] = (answer.status_code, answer.json()["error_type"])
            assert told == (503, "external_service_error"), name
            assert "retry-after" in answer.headers
        app.issuer.answers["userinfo"] = response(401, b"")
        assert (await app.finalize()).status_code == 401


async def test_the_log_of_a_sign_in_has_no_secret_and_no_address(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        issuer_token = app.sign()
        await app.come_back(await app.begin_and_find_state())
        await app.poll()
        await app.sign_in(issuer_token, auth0_refresh_token="refresh-token-of-ann")
        first, app.token = app.token, (await app.refresh()).json()["token"]
        await app.sign_out()
        await app.finalize(issuer_token[:-1])
        await app.cloche.wait_logged("/api/auth/logout")
        log = app.cloche.log.read_text()
        secrets = [issuer_token, first, app.token, app.csrf, app.pid, app.device_id, ISSUER_CODE]
        assert not [secret for secret in [*secrets, "refresh-token-of-ann", "example.com"] if secret in log]


async def test_what_was_refused_is_told_with_no_secret_in_it(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        forged = list(forge_issuer_tokens(app.issuer).values())
        answers: list[httpx2.Response] = [await app.finalize(token) for token in forged]
        whole = "".join(answer.text for answer in answers) + str(app.cloche.query("SELECT * FROM audit_log"))
        assert not [token for token in forged if token[:40] in whole and len(token) > 40]


def forget(stores: Stores) -> None:
    """All that Redis knows, tombstones too."""
    with redis.Redis.from_url(stores.redis_url) as client:
        client.flushall()
