"""Signing in, as the shipped apps do it: the browser's way, the polling, and the exchange of tokens at its end."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tests.end_to_end.cloche import Stores
from tests.end_to_end.shipped_app import CHALLENGE, ISSUER_CODE, ShippedApp, find_state, open_shipped_app
from tests.fake_issuer import CLIENT_ID

JSON = {"Accept": "application/json"}


def read_claims(token: str) -> dict[str, Any]:
    """As the desktop reads them: base64url without padding."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def test_an_app_signs_in_through_the_browser(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        sent = await app.begin(connection="google-oauth2")
        state = find_state(sent)
        location = urlsplit(sent.headers["location"])
        assert f"{location.scheme}://{location.netloc}{location.path}" == f"{app.issuer.issuer}authorize"
        query = parse_qs(location.query)
        assert (query["code_challenge"], query["client_id"]) == ([CHALLENGE], [CLIENT_ID])
        assert query["connection"] == ["google-oauth2"]
        assert sent.headers["cache-control"] == "no-store"
        waiting = await app.poll()
        assert (waiting.status_code, waiting.content) == (204, b"")
        assert {"content-length", "content-type"}.isdisjoint(waiting.headers)

        page = await app.come_back(state)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "You can close this window" in page.text
        ready = await app.poll()
        assert ready.json() == {"status": "ready", "authorizationCode": ISSUER_CODE, "tauriCsrfToken": app.csrf}
        session = await app.sign_in()
        assert session["tokenType"] == "Bearer"
        assert session["user"] == {**session["user"], "email": "ann@example.com", "name": "Ann", "role": "user"}
        claims = read_claims(session["token"])
        assert session["expiresIn"] == claims["exp"] - claims["iat"] == 86_400
        assert (claims["sub"], claims["device_id"]) == (session["user"]["id"], app.device_id)
        who = await app.ask_who()
        assert who.json() == session["user"]


async def test_a_lost_answer_loses_no_login(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.come_back(await app.begin_and_find_state())
        assert [(await app.poll()).status_code for _ in range(3)] == [200, 200, 200]


async def test_the_phone_polls_with_capitals_and_comes_from_the_device_it_wrote_in_capitals(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        app.pid = app.pid.upper()
        await app.come_back(await app.begin_and_find_state())
        lower = await app.client.get("/auth0/poll-status", params={"pid": app.pid.lower()})
        assert (lower.status_code, (await app.poll()).status_code) == (204, 200)
        issuer_token = app.sign()
        await app.sign_in(issuer_token)
        session = await app.sign_in(issuer_token, device_id=app.device_id.upper())
        assert read_claims(session["token"])["device_id"] == app.device_id
        assert (await app.ask_who()).status_code == 200


async def test_a_website_of_the_deployment_shows_the_last_page(stores: Stores) -> None:
    async with open_shipped_app(stores, WEBSITE_BASE_URL="https://www.example.com/") as app:
        back = await app.come_back(await app.begin_and_find_state())
        assert (back.status_code, back.headers["location"]) == (302, "https://www.example.com/auth/callback")
        out = await app.client.get("/auth/auth0/logged-out")
        assert (out.status_code, out.content) == (302, b"")
        assert out.headers["location"] == "https://www.example.com/auth/auth0/logged-out"


async def test_without_a_website_we_say_that_somebody_is_signed_out(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        page = await app.client.get("/auth/auth0/logged-out")
        assert (page.status_code, "signed out" in page.text) == (200, True)


async def test_what_an_app_may_not_ask_is_told_on_a_page(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        for changes in ({"challenge_method": "plain"}, {"redirect_uri": "https://thief.example.com/"}):
            page = await app.begin(**changes)
            assert page.status_code == 400
            assert next(iter(changes)) in page.text
            assert "start again from the app" in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "Validation error" not in page.text
        answer = await app.client.get("/auth/auth0/initiate-login", headers=JSON)
        assert (answer.status_code, answer.json()["error_type"]) == (400, "validation_error")
        assert answer.json()["errorType"] == "validation_error"


async def test_an_error_of_the_issuer_is_shown_in_the_browser_and_ends_the_polling(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        state = await app.begin_and_find_state()
        page = await app.come_back(state, error="server_error", error_description="<b>You</b> said no")
        assert page.status_code == 400
        assert "Sign-in did not work" in page.text
        assert "Bad request" not in page.text
        assert "&lt;b&gt;You&lt;/b&gt; said no" in page.text
        assert "<b>" not in page.text
        polled = await app.poll()
        assert polled.status_code == 400
        assert polled.json()["message"] == "Bad request: <b>You</b> said no"
        assert polled.json()["error_type"] == polled.json()["errorType"] == "bad_request"
        assert (await app.come_back(state)).status_code == 401


async def test_whoever_turned_back_is_not_told_of_a_failure(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        page = await app.come_back(await app.begin_and_find_state(), error="access_denied")
        assert (page.status_code, "You are not signed in" in page.text) == (400, True)
        assert "did not work" not in page.text


async def test_a_callback_without_a_code_ends_the_polling_too(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        page = await app.come_back(await app.begin_and_find_state(), session_state="x")
        assert (page.status_code, (await app.poll()).status_code) == (400, 400)


async def test_a_state_counts_once_and_only_if_we_made_it(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        state = await app.begin_and_find_state()
        await app.come_back(state)
        for stale in (state, "invented", "x" * 3000):
            page = await app.come_back(stale, code="another-code-of-somebody")
            assert (page.status_code, page.text.count("again")) == (401, 1)
        params = {"state": state, "code": "another-code"}
        told = await app.client.get("/auth/auth0/callback", params=params, headers=JSON)
        assert (told.status_code, told.json()["error_type"]) == (401, "unauthorized")
        assert (await app.poll()).json()["authorizationCode"] == ISSUER_CODE


async def test_a_poll_names_its_login(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        for query in ("", "?pid=1", f"?pid={app.pid}&pid={app.pid}"):
            answer = await app.client.get(f"/auth0/poll-status{query}")
            assert (answer.status_code, answer.json()["error_type"]) == (400, "validation_error"), query


async def test_apps_behind_one_address_do_not_poll_each_other_out(stores: Stores) -> None:
    async with open_shipped_app(stores, RATE_LIMIT_POLLS="3", RATE_LIMIT_POLLS_PER_ADDRESS="7") as app:
        other = app.on_another_device()
        for one in (app, other):
            assert [(await one.poll()).status_code for _ in range(3)] == [204] * 3
        refused = await app.poll()
        assert (refused.status_code, refused.headers["ratelimit-limit"]) == (429, "3")
        third = app.on_another_device()
        assert [(await third.poll()).status_code for _ in range(2)] == [204, 429]


async def test_what_finalize_login_needs_is_told_by_name(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        for body, named in [
            (b"", "auth0_id_token"),
            (b"{}", "auth0_id_token"),
            (b'{"auth0_id_token": null}', "auth0_id_token"),
            (b'{"auth0_id_token": 7}', "auth0_id_token"),
            (b'{"auth0_id_token": "x", "device_id": "mine"}', "device_id"),
            (b'{"auth0_id_token": "x", "device_id": 1}', "device_id"),
            (b'{"auth0_id_token": "' + b"x" * 20_000 + b'"}', "auth0_id_token"),
            (b"not json", "body"),
            (b'{"more": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "body"),
            (b"[]", "body"),
        ]:
            answer = await app.client.post("/auth0/finalize-login", content=body)
            assert (answer.status_code, answer.json()["error_type"]) == (400, "validation_error"), body[:50]
            assert named in answer.json()["message"]


async def test_the_body_may_be_written_in_other_ways(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        for member, device in (
            ("auth0_access_token", "device_id"),
            ("auth0AccessToken", "deviceId"),
            ("auth0IdToken", "deviceId"),
        ):
            body = {member: app.sign(), device: str(uuid4()), "more": 1}
            answer = await app.client.post("/auth0/finalize-login", json=body)
            assert answer.status_code == 200, answer.text
            assert read_claims(answer.json()["token"])["device_id"] == body[device]


async def test_a_token_without_a_device_is_bound_to_none(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.sign_in(device_id=None)
        who = await app.client.get("/api/auth/userinfo", headers={"Authorization": f"Bearer {app.token}"})
        assert who.status_code == 200


async def test_a_person_without_an_address_gets_a_stand_in_for_it(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        app.issuer.people["github|7"] = {"sub": "github|7"}
        session = await app.sign_in(app.sign(sub="github|7"))
        assert session["user"]["email"].startswith("user-")
        assert session["user"]["name"] is None


async def test_new_accounts_are_counted_by_address_and_known_people_are_not(stores: Stores) -> None:
    async with open_shipped_app(stores, ACCOUNT_CREATION_RATE_LIMIT_MAX_REQUESTS="1") as app:
        for _ in range(3):
            await app.on_another_device().sign_in()
        app.issuer.people["auth0|bob"] = {"sub": "auth0|bob", "email": "bob@example.com", "email_verified": True}
        refused = await app.finalize(app.sign(sub="auth0|bob"))
        assert (refused.status_code, refused.json()["error_type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) > 60
        assert app.cloche.query("SELECT count(*) FROM users WHERE email = 'bob@example.com'") == [(0,)]


async def test_joining_an_account_that_is_there_makes_none(stores: Stores) -> None:
    async with open_shipped_app(stores, ACCOUNT_CREATION_RATE_LIMIT_MAX_REQUESTS="2") as app:
        for number in range(4):
            subject = f"auth0|same-{number}"
            await app.on_another_device().sign_in(app.sign(sub=subject))
        assert app.cloche.query("SELECT count(*) FROM users WHERE email = 'ann@example.com'") == [(1,)]


async def test_credits_are_given_once_to_each_account(stores: Stores) -> None:
    async with open_shipped_app(stores, SIGNUP_CREDITS_USD="1.50") as app:
        session = await app.sign_in()
        await app.on_another_device().sign_in()
        query = "SELECT kind, amount_usd::float8 FROM credit_ledger WHERE user_id = %s"
        assert app.cloche.query(query, session["user"]["id"]) == [("signup_bonus", 1.5)]


async def test_without_the_issuer_a_sign_in_is_put_off_and_not_refused(stores: Stores) -> None:
    async with open_shipped_app(stores, AUTH0_ISSUER_URL="http://127.0.0.1:9/") as app:
        page = await app.begin()
        assert (page.status_code, "text/html" in page.headers["content-type"]) == (503, True)
        assert "retry-after" in page.headers
        answer = await app.finalize()
        assert (answer.status_code, answer.json()["error_type"]) == (503, "external_service_error")
        assert "retry-after" in answer.headers


async def test_a_sign_in_over_the_limit_is_told_on_a_page_too(stores: Stores) -> None:
    async with open_shipped_app(stores, RATE_LIMIT_SIGN_INS="1") as app:
        await app.begin()
        page = await app.begin()
        assert (page.status_code, "text/html" in page.headers["content-type"]) == (429, True)
        assert "retry-after" in page.headers


async def test_a_token_of_the_issuer_signs_in_one_device(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        token = app.sign()
        await app.sign_in(token)
        await app.sign_in(token)
        thief: ShippedApp = app.on_another_device()
        refused = await thief.finalize(token)
        assert (refused.status_code, refused.json()["error_type"]) == (401, "unauthorized")
        assert (await thief.finalize(token, device_id=None)).status_code == 401
        (row,) = app.cloche.query("SELECT details FROM audit_log WHERE action = 'sign_in' AND status = 'refused'")
        assert "another device" in row[0]["reason"]
