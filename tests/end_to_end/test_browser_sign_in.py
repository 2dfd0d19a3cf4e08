"""The whole sign-in in a real browser, as the shipped apps go through it, with an OpenID provider nobody here wrote."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.auth.settings import LOCAL_AUDIENCE, LOCAL_CLIENT_ID, LOCAL_ISSUER_PATH
from tests.end_to_end.browser import Browser, find_missing_browser, open_browser
from tests.end_to_end.caller import SHIPPED, build_chat
from tests.end_to_end.certified_issuer import CLIENT_ID, find_missing_provider, open_certified_issuer
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.sign_in_attempt import (
    DEVELOPMENT,
    Attempt,
    Issuer,
    Maker,
    begin_on_desktop,
    begin_on_phone,
    check_session,
    discover,
)
from tests.fakes import open_fake_upstream, openai_stream

LOGIN = "ann@example.com"
REFRESHES_AT_THE_ISSUER = {
    "AUTH0_OFFLINE_ACCESS": "true",
    "AUTH0_SERVER_CLIENT_ID": CLIENT_ID,
    "REFRESH_TOKEN_ENCRYPTION_KEY": "5e" * 32,
}
NO_UPSTREAM = "http://127.0.0.1:9"
USERINFO, REFRESH, LOGOUT = "/api/auth/userinfo", "/api/auth0/refresh-app-token", "/api/auth/logout"


@dataclass(frozen=True, slots=True)
class Place:
    """A server, its issuer, and a browser and a client to try them with."""

    cloche: Cloche
    issuer: Issuer
    browser: Browser
    client: httpx2.AsyncClient

    def begin(self, maker: Maker = begin_on_desktop) -> Attempt:
        return maker(self.cloche.url, self.issuer)

    async def read_code(self, attempt: Attempt) -> str:
        """What the app polls for, once the browser has been sent back."""
        await self.browser.read_page("you can close this window")
        return attempt.read_code(await attempt.poll(self.client))

    async def sign_in(self, attempt: Attempt, login: str = LOGIN) -> str:
        """Through the certified provider's two pages; returns the code that the app gets."""
        await self.browser.open(attempt.sign_in_url())
        await self.browser.fill("[name=login]", login)
        await self.browser.fill("[name=password]", "anything")
        await self.browser.press("[type=submit]")
        await self.browser.read_page("authorize")
        await self.browser.press("[type=submit]")
        return await self.read_code(attempt)

    async def sign_in_locally(self, attempt: Attempt, email: str = LOGIN) -> str:
        """Through the page of our own stand-in."""
        await self.browser.open(attempt.sign_in_url())
        await self.browser.fill("[name=email]", email)
        await self.browser.fill("[name=name]", "Ann")
        await self.browser.press("[value=sign-in]")
        return await self.read_code(attempt)

    async def exchange(self, attempt: Attempt, code: str) -> dict[str, Any]:
        """The issuer's tokens."""
        answer = await attempt.exchange(self.client, code)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def finish(self, attempt: Attempt, code: str) -> dict[str, Any]:
        """From the code to a session of ours."""
        answer = await attempt.finalize(self.client, await self.exchange(attempt, code))
        assert answer.status_code == 200, answer.text
        check_session(answer.json())
        return dict(answer.json())


@asynccontextmanager
async def open_place(
    stores: Stores, folder: Path, upstream_url: str = NO_UPSTREAM, **settings: str
) -> AsyncIterator[Place]:
    if (reason := find_missing_browser() or find_missing_provider()) is not None:
        pytest.skip(reason)
    async with (
        open_certified_issuer("http://127.0.0.1/auth/auth0/callback") as issuer,
        open_cloche(stores, upstream_url, settings={**issuer.settings, **settings}) as cloche,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
        open_browser(folder) as browser,
    ):
        yield Place(cloche, issuer, browser, client)


@asynccontextmanager
async def open_local_place(stores: Stores, folder: Path) -> AsyncIterator[Place]:
    """A server that signs people in by itself, as ./scripts/run starts it."""
    if (reason := find_missing_browser()) is not None:
        pytest.skip(reason)
    async with (
        open_cloche(stores, settings=DEVELOPMENT) as cloche,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
        open_browser(folder) as browser,
    ):
        issuer = await discover(f"{cloche.url}{LOCAL_ISSUER_PATH}/", LOCAL_CLIENT_ID, LOCAL_AUDIENCE)
        yield Place(cloche, issuer, browser, client)


@pytest.mark.parametrize("maker", [begin_on_desktop, begin_on_phone])
async def test_a_user_signs_in_by_browser_calls_stays_signed_in_and_signs_out(
    stores: Stores, tmp_path: Path, maker: Maker
) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hello"], usage=(8, 1))) as upstream,
        open_place(stores, tmp_path, upstream.url) as place,
    ):
        attempt = place.begin(maker)
        assert (await attempt.poll(place.client)).status_code == 204
        code = await place.sign_in(attempt)
        assert attempt.read_code(await attempt.poll(place.client)) == code  # the first answer may have been lost
        await call_and_leave(place, attempt, await place.finish(attempt, code))
        place.cloche.check_accounts()


async def call_and_leave(place: Place, attempt: Attempt, session: dict[str, Any]) -> None:
    url, client, old = place.cloche.url, place.client, attempt.sign(session)
    assert (await client.get(f"{url}{USERINFO}", headers=old)).json() == session["user"]
    assert (session["user"]["email"], session["user"]["name"]) == (LOGIN, "ann")
    assert (await client.post(f"{url}{SHIPPED}", headers=old, json=build_chat())).status_code == 200
    renewed = await client.post(f"{url}{REFRESH}", headers=old)
    assert renewed.status_code == 200, renewed.text
    check_session(renewed.json())
    new = attempt.sign(renewed.json())
    assert (await client.get(f"{url}{USERINFO}", headers=new)).status_code == 200
    assert (await client.post(f"{url}{LOGOUT}", headers=new)).status_code == 200
    for ended in (old, new):
        assert (await client.get(f"{url}{USERINFO}", headers=ended)).status_code == 401
        assert (await client.post(f"{url}{SHIPPED}", headers=ended, json=build_chat())).status_code == 401


async def test_a_user_who_turns_back_at_the_issuer_is_told_and_so_is_the_app(stores: Stores, tmp_path: Path) -> None:
    async with open_place(stores, tmp_path) as place:
        attempt = place.begin()
        await place.browser.open(attempt.sign_in_url())
        await place.browser.press("a[href*=abort]")
        assert "End-User aborted interaction" in await place.browser.read_page("you are not signed in")
        polled = await attempt.poll(place.client)
        assert polled.status_code == 400
        assert "End-User aborted interaction" in polled.json()["message"]


async def test_a_callback_that_comes_twice_is_refused_and_takes_nothing_away(stores: Stores, tmp_path: Path) -> None:
    async with open_place(stores, tmp_path) as place:
        attempt = place.begin()
        code = await place.sign_in(attempt)
        await place.browser.open(await place.browser.read_url())
        assert "this sign-in is over" in (await place.browser.read_page("sign-in did not work")).lower()
        assert attempt.read_code(await attempt.poll(place.client)) == code
        await place.finish(attempt, code)


async def test_a_code_serves_nobody_but_the_app_that_asked_for_it_and_serves_it_once(
    stores: Stores, tmp_path: Path
) -> None:
    async with open_place(stores, tmp_path) as place:
        stolen = place.begin()
        code = await place.sign_in(stolen)
        thief = await stolen.exchange(place.client, code, verifier=place.begin().verifier)
        assert (thief.status_code, thief.json()["error"]) == (400, "invalid_grant")
        own = place.begin()
        await place.browser.open(own.sign_in_url())  # the issuer remembers who it is, and asks for consent alone
        await place.browser.press("[type=submit]")
        code = await place.read_code(own)
        await place.exchange(own, code)
        again = await own.exchange(place.client, code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


async def test_an_address_that_nobody_verified_signs_nobody_in(stores: Stores, tmp_path: Path) -> None:
    async with open_place(stores, tmp_path) as place:
        attempt = place.begin()
        tokens = await place.exchange(attempt, await place.sign_in(attempt, "unverified@example.com"))
        assert (await attempt.finalize(place.client, tokens)).status_code == 401
        assert place.cloche.query("SELECT count(*) FROM users") == [(0,)]


async def test_a_refresh_asks_the_issuer_and_what_the_issuer_ends_is_over(stores: Stores, tmp_path: Path) -> None:
    async with open_place(stores, tmp_path, **REFRESHES_AT_THE_ISSUER) as place:
        attempt = place.begin()
        tokens = await place.exchange(attempt, await place.sign_in(attempt))
        headers = attempt.sign((await attempt.finalize(place.client, tokens)).json())
        assert (await place.client.post(f"{place.cloche.url}{REFRESH}", headers=headers)).status_code == 200
        # The provider gives a new refresh token for each, and ends everything when it sees an old one again.
        assert await refresh_at_issuer(place, tokens) == 400
        assert (await place.client.post(f"{place.cloche.url}{REFRESH}", headers=headers)).status_code == 401


async def test_a_sign_out_takes_the_issuers_refresh_token_back(stores: Stores, tmp_path: Path) -> None:
    async with open_place(stores, tmp_path, **REFRESHES_AT_THE_ISSUER) as place:
        attempt = place.begin()
        tokens = await place.exchange(attempt, await place.sign_in(attempt))
        headers = attempt.sign((await attempt.finalize(place.client, tokens)).json())
        assert (await place.client.post(f"{place.cloche.url}{LOGOUT}", headers=headers)).status_code == 200
        assert await refresh_at_issuer(place, tokens) == 400


async def refresh_at_issuer(place: Place, tokens: dict[str, Any]) -> int:
    form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": tokens["refresh_token"]}
    return (await place.client.post(place.issuer.token_url, data=form)).status_code


# The issuer of a developer's machine


@pytest.mark.parametrize("maker", [begin_on_desktop, begin_on_phone])
async def test_a_newcomer_signs_in_with_no_settings_at_all(stores: Stores, tmp_path: Path, maker: Maker) -> None:
    async with open_local_place(stores, tmp_path) as place:
        attempt = place.begin(maker)
        session = await place.finish(attempt, await place.sign_in_locally(attempt))
        url, headers = place.cloche.url, attempt.sign(session)
        assert (session["user"]["email"], session["user"]["name"]) == (LOGIN, "Ann")
        assert (await place.client.get(f"{url}{USERINFO}", headers=headers)).json() == session["user"]
        assert (await place.client.post(f"{url}{REFRESH}", headers=headers)).status_code == 200
        assert (await place.client.post(f"{url}{LOGOUT}", headers=headers)).status_code == 200
        assert (await place.client.get(f"{url}{USERINFO}", headers=headers)).status_code == 401


async def test_the_stand_in_takes_no_for_an_answer_too(stores: Stores, tmp_path: Path) -> None:
    async with open_local_place(stores, tmp_path) as place:
        attempt = place.begin()
        await place.browser.open(attempt.sign_in_url())
        await place.browser.press("[value=cancel]")
        assert "you chose not to sign in" in (await place.browser.read_page("you are not signed in")).lower()
        assert (await attempt.poll(place.client)).status_code == 400


async def test_the_stand_in_checks_the_verifier_and_takes_a_code_once(stores: Stores, tmp_path: Path) -> None:
    async with open_local_place(stores, tmp_path) as place:
        attempt = place.begin()
        code = await place.sign_in_locally(attempt)
        thief = await attempt.exchange(place.client, code, verifier=place.begin().verifier)
        assert (thief.status_code, thief.json()["error"]) == (400, "invalid_grant")
        other = place.begin()
        code = await place.sign_in_locally(other)
        await place.exchange(other, code)
        again = await other.exchange(place.client, code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
