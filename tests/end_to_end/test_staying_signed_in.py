"""Staying signed in, signing out, and leaving for good: what the apps call once they have a token."""

import time
from typing import Any
from uuid import UUID

from server.auth.refresh_tokens import unseal_refresh_token
from server.auth.tokens import SECONDS_PER_DAY, issue_token
from tests.end_to_end.cloche import SECRET, Stores
from tests.end_to_end.shipped_app import KEEPS_REFRESH_TOKENS, REFRESH_TOKEN_KEY, ShippedApp, open_shipped_app
from tests.end_to_end.test_sign_in import read_claims
from tests.fake_issuer import SUBJECT
from tests.fakes import response

DAY = SECONDS_PER_DAY


def age(app: ShippedApp, *, over_for_days: float = -0.5, signed_in_days_ago: float = 2) -> None:
    """The app's token becomes one of the same sign-in that was made earlier, and that ended, or will, so long ago."""
    claims = read_claims(app.token)
    now = time.time()
    app.token = issue_token(
        SECRET,
        user_id=UUID(claims["sub"]),
        email=claims["email"],
        role=claims["role"],
        device_id=claims["device_id"],
        now=now - (over_for_days + 1) * DAY,
        days=1,
        session_id=UUID(claims["session_id"]),
        auth_time=now - signed_in_days_ago * DAY,
        subject=claims["auth0_sub"],
    )


async def make_api_key(app: ShippedApp) -> str:
    made = await app.client.post("/api/auth/api-keys", json={"label": "a program"}, headers=app.headers)
    assert made.status_code == 201, made.text
    key: str = made.json()["key"]
    return key


def stored_refresh_token(app: ShippedApp) -> str | None:
    ((login_id, sealed),) = app.cloche.query("SELECT id, refresh_token FROM logins")
    return None if sealed is None else unseal_refresh_token(bytes.fromhex(REFRESH_TOKEN_KEY), sealed, login_id)


async def test_a_fresh_token_is_the_same_persons_and_devices(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        first = await app.sign_in()
        app.cloche.query("UPDATE users SET role = 'admin' RETURNING 1")
        age(app)
        answer = await app.refresh()
        assert answer.status_code == 200, answer.text
        second = answer.json()
        assert set(second) == set(first)
        assert second["user"] == {**first["user"], "role": "admin"}
        assert (second["tokenType"], second["expiresIn"]) == ("Bearer", DAY)
        old, new = read_claims(app.token), read_claims(second["token"])
        kept = ("sub", "device_id", "session_id", "auth_time", "auth0_sub", "tbh")
        assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
        assert (new["role"], new["jti"] != old["jti"]) == ("admin", True)
        assert (await app.ask_who()).status_code == 200


async def test_a_token_that_is_over_is_renewed_for_its_own_device_alone(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        age(app, over_for_days=6.9, signed_in_days_ago=8)
        assert (await app.ask_who()).status_code == 401
        for name in ("X-Device-ID", "X-Token-Binding"):
            headers = {key: text for key, text in app.headers.items() if key != name}
            refused = await app.client.post("/api/auth0/refresh-app-token", headers=headers)
            assert refused.status_code == 401, name
        answer = await app.refresh()
        assert answer.status_code == 200, answer.text
        age(app, over_for_days=7.1, signed_in_days_ago=9)
        assert (await app.refresh()).status_code == 401


async def test_a_sign_in_lasts_no_longer_than_it_may(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        age(app, signed_in_days_ago=29.5)
        answer = await app.refresh()
        assert abs(answer.json()["expiresIn"] - DAY / 2) < 60
        age(app, signed_in_days_ago=30.1)
        refused = await app.refresh()
        assert (refused.status_code, "sign in again" in refused.json()["message"]) == (401, True)


async def test_a_token_that_no_sign_in_made_passes_its_own_id_on(stores: Stores) -> None:
    """Older servers made such; what follows from one ends with it."""
    async with open_shipped_app(stores) as app:
        customer = await app.cloche.make_customer()
        headers = dict(customer.headers)
        answer = await app.client.post("/api/auth0/refresh-app-token", headers=headers)
        fresh = {**headers, "Authorization": f"Bearer {answer.json()['token']}"}
        assert (await app.client.get("/api/auth/userinfo", headers=fresh)).status_code == 200
        await app.client.post("/api/auth/logout", headers=fresh)
        for each in (fresh, headers):
            assert (await app.client.get("/api/auth/userinfo", headers=each)).status_code == 401


async def test_an_api_key_cannot_do_what_a_person_does(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        key = {"X-API-Key": await make_api_key(app)}
        assert (await app.client.get("/api/auth/userinfo", headers=key)).status_code == 200
        refused = await app.client.post("/api/auth0/refresh-app-token", headers=key)
        assert (refused.status_code, refused.json()["error_type"]) == (403, "forbidden")
        assert (await app.client.delete("/api/auth/account", headers=key)).status_code == 403
        out = await app.client.post("/api/auth/logout", headers=key)
        assert (out.status_code, out.content) == (200, b"")
        assert (await app.ask_who()).status_code == 200


async def test_a_refresh_token_is_kept_sealed_and_asked_with_at_every_refresh(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        app.issuer.refresh_tokens["first"] = SUBJECT
        await app.sign_in(auth0_refresh_token="first")
        assert stored_refresh_token(app) == "first"
        for _ in range(2):
            answer = await app.refresh()
            assert answer.status_code == 200, answer.text
            assert [stored_refresh_token(app)] == list(app.issuer.refresh_tokens)
        assert "first" not in app.issuer.refresh_tokens
        assert app.issuer.count("token") == 2


async def test_a_refresh_token_of_another_client_is_not_kept(stores: Stores) -> None:
    """The issuer would refuse it from us, and we would take that for its end."""
    settings = {**KEEPS_REFRESH_TOKENS, "AUTH0_SERVER_CLIENT_ID": "the-servers-own"}
    async with open_shipped_app(stores, **settings) as app:
        app.issuer.refresh_tokens["first"] = SUBJECT
        await app.sign_in(auth0_refresh_token="first")
        assert stored_refresh_token(app) is None
        assert (await app.refresh()).status_code == 200
        assert app.issuer.count("token") == 0


async def test_a_sign_in_that_the_issuer_ended_is_over_with_all_its_tokens(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        await app.sign_in(auth0_refresh_token="unknown to the issuer")
        assert (await app.ask_who()).status_code == 200
        refused = await app.refresh()
        assert (refused.status_code, refused.json()["error_type"]) == (401, "authentication_error")
        assert (await app.ask_who()).status_code == 401
        assert app.cloche.query("SELECT status FROM audit_log WHERE action = 'token_refresh'") == [("refused",)]


async def test_a_refresh_while_the_issuer_is_away_is_put_off_and_ends_nothing(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        app.issuer.refresh_tokens["first"] = SUBJECT
        await app.sign_in(auth0_refresh_token="first")
        app.issuer.answers["token"] = response(500, b"")
        for _ in range(2):
            put_off = await app.refresh()
            assert (put_off.status_code, put_off.json()["error_type"]) == (503, "external_service_error")
            assert "retry-after" in put_off.headers
        assert app.issuer.count("token") == 1
        assert (await app.ask_who()).status_code == 200
        assert stored_refresh_token(app) == "first"


async def test_an_issuer_that_answers_for_somebody_else_gives_nobody_a_token(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        app.issuer.refresh_tokens["first"] = "auth0|bob"
        await app.sign_in(auth0_refresh_token="first")
        assert (await app.refresh()).status_code == 503


async def test_signing_out_ends_every_token_of_the_sign_in_and_no_other(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in()
        other = app.on_another_device()
        await other.sign_in()
        sibling = ShippedApp(app.client, app.issuer, app.cloche, app.device_id)
        sibling.token = (await app.refresh()).json()["token"]
        for one in (app, sibling, other):
            assert (await one.ask_who()).status_code == 200
        out = await app.sign_out()
        assert (out.status_code, set(out.json())) == (200, {"message"})
        for one in (app, sibling):
            assert (await one.ask_who()).status_code == 401
            assert (await one.refresh()).status_code == 401
        assert (await other.ask_who()).status_code == 200


async def test_the_last_device_that_signs_out_revokes_what_the_issuer_gave(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        app.issuer.refresh_tokens |= {"first": SUBJECT, "second": SUBJECT}
        other = app.on_another_device()
        await app.sign_in(auth0_refresh_token="first")
        await other.sign_in(auth0_refresh_token="second")
        await app.sign_out()
        assert app.issuer.count("revoke") == 0
        await other.sign_out()
        assert "second" not in app.issuer.refresh_tokens
        assert app.cloche.query("SELECT 1 FROM logins") == []


async def test_signing_out_works_while_the_issuer_is_away(stores: Stores) -> None:
    async with open_shipped_app(stores, **KEEPS_REFRESH_TOKENS) as app:
        await app.sign_in(auth0_refresh_token="first")
        app.issuer.answers["revoke"] = response(500, b"")
        assert (await app.sign_out()).status_code == 200
        assert (await app.ask_who()).status_code == 401


async def test_a_deleted_account_is_gone_for_every_device_and_program(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        made_before = app.sign()
        session = await app.sign_in()
        other = app.on_another_device()
        await other.sign_in()
        key = {"X-API-Key": await make_api_key(app)}
        for one in (app, other):
            assert (await one.ask_who()).status_code == 200
        assert (await app.client.get("/api/auth/userinfo", headers=key)).status_code == 200
        gone = await app.delete_account()
        assert (gone.status_code, gone.json()) == (200, {"status": "deleted"})
        for one in (app, other):
            assert (await one.ask_who()).status_code == 401
            assert (await one.refresh()).status_code == 401
        assert (await app.client.get("/api/auth/userinfo", headers=key)).status_code == 401
        refused = await app.on_another_device().finalize(made_before)
        assert (refused.status_code, refused.json()["error_type"]) == (401, "unauthorized")
        assert app.cloche.query("SELECT 1 FROM users WHERE email = 'ann@example.com'") == []

        later = int(time.time()) + 2  # the issuer's clock may be ahead of ours, by as much as we forgive
        again = await app.sign_in(app.sign(iat=later))
        assert again["user"]["id"] != session["user"]["id"]


async def test_the_audit_log_tells_it_all_and_nobodys_address_or_token(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.finalize("rubbish")
        session = await app.sign_in()
        app.token = (await app.refresh()).json()["token"]
        await app.sign_out()
        await app.sign_in()
        await app.delete_account()
        rows: list[Any] = app.cloche.query("SELECT action, status, actor FROM audit_log ORDER BY sequence")
        who = f"user:{session['user']['id']}"
        assert [row for row in rows if row[0] != "credentials"] == [
            ("sign_in", "refused", "anonymous"),
            ("sign_in", "success", who),
            ("token_refresh", "success", who),
            ("sign_out", "success", who),
            ("sign_in", "success", who),
            ("account_deletion", "success", who),
        ]
        whole = str(app.cloche.query("SELECT * FROM audit_log"))
        assert "example.com" not in whole
        assert SUBJECT not in whole
        assert "eyJ" not in whole
