"""Signing in as a newcomer does, on a machine without settings: the local issuer, by HTTP and in a real browser."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from server.auth.settings import LOCAL_AUDIENCE, LOCAL_CLIENT_ID
from tests.end_to_end.browser import find_missing_browser, open_browser
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.sign_in_attempt import DEVELOPMENT, Attempt, Issuer, begin_on_desktop, check_session

ANN = {"email": "ann@example.com", "name": "Ann <b>"}
USERINFO = "/api/auth/userinfo"


@dataclass(frozen=True, slots=True)
class Place:
    """A server in development, and who comes to it: `client` follows no redirect and keeps no cookie."""

    cloche: Cloche
    client: httpx2.AsyncClient

    @property
    def issuer_url(self) -> str:
        return f"{self.cloche.url}/local-issuer"

    def begin(self) -> Attempt:
        token_url = f"{self.issuer_url}/oauth/token"
        return begin_on_desktop(self.cloche.url, Issuer(self.issuer_url, token_url, LOCAL_CLIENT_ID, LOCAL_AUDIENCE))

    async def open_page(self, attempt: Attempt) -> httpx2.Response:
        """The form, by way of our own start of a sign-in."""
        sent = await self.client.get(attempt.sign_in_url())
        assert sent.status_code == 302, sent.text
        return await self.client.get(sent.headers["location"])

    async def fill_in(self, page: httpx2.Response, **fields: str) -> httpx2.Response:
        """What a browser posts of it."""
        return await self.client.post(f"{self.issuer_url}/authorize", data={**read_hidden(page), **fields})

    async def sign_in(self, attempt: Attempt) -> str:
        """Returns the code, which the app has polled for."""
        answer = await self.fill_in(await self.open_page(attempt), **ANN)
        assert answer.status_code == 303, answer.text
        assert (await self.client.get(answer.headers["location"])).status_code == 200
        return attempt.read_code(await attempt.poll(self.client))

    async def exchange(self, attempt: Attempt) -> dict[str, Any]:
        answer = await attempt.exchange(self.client, await self.sign_in(attempt))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@asynccontextmanager
async def open_place(stores: Stores, *options: str) -> AsyncIterator[Place]:
    async with (
        open_cloche(stores, options=options, settings=DEVELOPMENT) as cloche,
        httpx2.AsyncClient(timeout=20, trust_env=False) as client,
    ):
        yield Place(cloche, client)


def read_hidden(page: httpx2.Response) -> dict[str, str]:
    assert page.status_code == 200, page.text
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    return {name: unescape(value) for name, value in found}


def read_answer(response: httpx2.Response) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(response.headers["location"]).query))


@pytest.mark.parametrize("options", [(), ("-w", "2")])
async def test_a_newcomer_signs_in_stays_signed_in_and_signs_out(stores: Stores, options: tuple[str, ...]) -> None:
    async with open_place(stores, *options) as place:
        attempt = place.begin()
        finished = await attempt.finalize(place.client, await place.exchange(attempt))
        assert finished.status_code == 200, finished.text
        check_session(finished.json())
        assert (finished.json()["user"]["email"], finished.json()["user"]["name"]) == (ANN["email"], ANN["name"])
        headers = attempt.sign(finished.json())
        assert (await place.client.get(f"{place.cloche.url}{USERINFO}", headers=headers)).status_code == 200
        renewed = await place.client.post(f"{place.cloche.url}/api/auth0/refresh-app-token", headers=headers)
        assert renewed.status_code == 200, renewed.text
        assert (await place.client.post(f"{place.cloche.url}/api/auth/logout", headers=headers)).status_code == 200
        assert (await place.client.get(f"{place.cloche.url}{USERINFO}", headers=headers)).status_code == 401


async def test_the_page_says_what_it_is_and_lets_nothing_in(stores: Stores) -> None:
    async with open_place(stores) as place:
        page = await place.open_page(place.begin())
        assert "For development only." in page.text
        assert page.text.count("<label for=") == 2
        assert "<script" not in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert f"form-action 'self' {place.cloche.url}/auth/auth0/callback" in policy
        assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-store", "DENY")
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in page.headers


async def test_what_was_wrong_in_the_form_is_told_in_it(stores: Stores) -> None:
    async with open_place(stores) as place:
        page = await place.open_page(place.begin())
        again = await place.fill_in(page, email='"><script>alert(1)</script>', name="Ann")
        assert again.status_code == 400
        assert 'role="alert"' in again.text
        assert "<script" not in again.text
        assert 'value="Ann"' in again.text


async def test_whoever_turns_back_tells_the_app(stores: Stores) -> None:
    async with open_place(stores) as place:
        attempt = place.begin()
        answer = await place.fill_in(await place.open_page(attempt), choice="cancel")
        assert read_answer(answer)["error"] == "access_denied"
        page = await place.client.get(answer.headers["location"])
        assert (page.status_code, "chose not to" in page.text) == (400, True)
        assert (await attempt.poll(place.client)).status_code == 400


async def test_a_form_that_somebody_changed_is_checked_again(stores: Stores) -> None:
    async with open_place(stores) as place:
        hidden = read_hidden(await place.open_page(place.begin()))
        url = f"{place.issuer_url}/authorize"

        async def post(**changes: str) -> httpx2.Response:
            return await place.client.post(url, data={**hidden, **ANN, **changes})

        elsewhere = await post(redirect_uri="https://evil.example.com/")
        assert (elsewhere.status_code, "location" in elsewhere.headers) == (400, False)
        assert "redirect_uri" in elsewhere.text
        assert (await post(client_id="another-app")).status_code == 400
        assert read_answer(await post(code_challenge_method="plain"))["error"] == "invalid_request"
        assert "code" in read_answer(await post())


async def test_a_form_of_another_site_signs_nobody_in(stores: Stores) -> None:
    async with open_place(stores) as place:
        form = {**read_hidden(await place.open_page(place.begin())), **ANN}
        for site, status in (("cross-site", 403), ("same-site", 403), ("none", 403), ("same-origin", 303)):
            headers = {"Sec-Fetch-Site": site}
            answer = await place.client.post(f"{place.issuer_url}/authorize", data=form, headers=headers)
            assert answer.status_code == status, site


async def test_a_request_of_nobody_is_shown_and_another_wrong_one_sent_back(stores: Stores) -> None:
    async with open_place(stores) as place:
        hidden = read_hidden(await place.open_page(place.begin()))
        url = f"{place.issuer_url}/authorize"
        shown = await place.client.get(url, params={**hidden, "client_id": "another-app"})
        assert (shown.status_code, "location" in shown.headers) == (400, False)
        twice = await place.client.get(f"{url}?state=a&state=b", params=None)
        assert twice.status_code == 400
        sent = await place.client.get(url, params={**hidden, "response_type": "token"})
        assert (sent.status_code, read_answer(sent)["error"]) == (303, "unsupported_response_type")


async def test_a_code_serves_once_and_only_with_its_verifier(stores: Stores) -> None:
    async with open_place(stores) as place:
        attempt = place.begin()
        code = await place.sign_in(attempt)
        good = await attempt.exchange(place.client, code)
        assert good.headers["cache-control"] == "no-store"
        again = await attempt.exchange(place.client, code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        finished = await attempt.finalize(place.client, good.json())
        assert finished.status_code == 401, "the code's second coming has ended what it gave"
        other = place.begin()
        wrong = await other.exchange(place.client, await place.sign_in(other), verifier="x" * 43)
        assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")


async def test_the_machine_endpoints_answer_as_the_protocol_says(stores: Stores) -> None:
    async with open_place(stores) as place:
        tokens, url, client = await place.exchange(place.begin()), place.issuer_url, place.client
        assert tokens["refresh_token"]
        unknown = await client.post(f"{url}/oauth/token", data={"grant_type": "refresh_token"})
        assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_client")
        garbage = await client.post(f"{url}/oauth/token", content=b"{", headers={"Content-Type": "application/json"})
        assert (garbage.status_code, garbage.json()["error"]) == (400, "invalid_request")
        form = {"client_id": LOCAL_CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        renewed = (await client.post(f"{url}/oauth/token", json=form)).json()
        headers = {"Authorization": f"Bearer {renewed['access_token']}"}
        assert (await client.get(f"{url}/userinfo", headers=headers)).json()["email"] == ANN["email"]
        form = {"client_id": LOCAL_CLIENT_ID, "token": renewed["refresh_token"]}
        assert (await client.post(f"{url}/oauth/revoke", data=form)).status_code == 200
        for refused in (headers, {"Authorization": "Basic YTpi"}, {}):
            answer = await client.get(f"{url}/userinfo", headers=refused)
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")


async def test_signing_out_leads_back_to_us_and_nowhere_else(stores: Stores) -> None:
    async with open_place(stores) as place:
        ours = f"{place.cloche.url}/auth/auth0/logged-out"
        query = {"client_id": LOCAL_CLIENT_ID, "returnTo": ours}
        sent = await place.client.get(f"{place.issuer_url}/v2/logout", params=query)
        assert (sent.status_code, sent.headers["location"]) == (303, ours)
        query["returnTo"] = "https://evil.example.com/"
        shown = await place.client.get(f"{place.issuer_url}/v2/logout", params=query)
        assert (shown.status_code, "location" in shown.headers) == (400, False)


async def test_a_real_issuer_leaves_no_local_one(stores: Stores) -> None:
    """Production cannot be without a real one: tests/server/auth/test_local_issuer.py."""
    paths = ["/.well-known/openid-configuration", "/.well-known/jwks.json", "/authorize", "/userinfo", "/v2/logout"]
    async with (
        open_cloche(stores) as cloche,
        httpx2.AsyncClient(base_url=f"{cloche.url}/local-issuer", trust_env=False) as client,
    ):
        assert {(await client.get(path)).status_code for path in paths} == {404}
        assert {(await client.post(path)).status_code for path in ("/oauth/token", "/authorize")} == {404}


@pytest.mark.skipif(find_missing_browser() is not None, reason=str(find_missing_browser()))
async def test_a_browser_goes_all_the_way(stores: Stores, tmp_path: Path) -> None:
    """The policy of the page lets the form go to us, and from there to the callback."""
    async with open_place(stores) as place, open_browser(tmp_path) as browser:
        attempt = place.begin()
        await browser.open(attempt.sign_in_url())
        await browser.read_page("for development only")
        await browser.save_picture("local-issuer")
        await browser.fill("#email", ANN["email"])
        await browser.fill("#name", ANN["name"])
        await browser.press("[value=sign-in]")
        await browser.read_page("you can close this window")
        code = attempt.read_code(await attempt.poll(place.client))
        assert (await attempt.exchange(place.client, code)).status_code == 200

        attempt = place.begin()
        await browser.open(attempt.sign_in_url())
        await browser.press("[value=cancel]")
        await browser.read_page("chose not to sign in")
        assert (await attempt.poll(place.client)).status_code == 400
