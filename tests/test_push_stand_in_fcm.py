"""The stand-in for FCM keeps its word: access tokens, messages, and every way to misbehave."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.push_stand_in import Cut, Fcm, Held, Say, refuse_fcm
from tests.push_stand_in.fcm import GRANT_TYPE, SCOPE, SEND_PATH, TOKEN_PATH, open_fcm
from tests.push_stand_in.keys import CLIENT_EMAIL, PRIVATE_KEY_ID, build_client_tls, find_account_key

TOKEN = "a-token-of-an-app"


@pytest.fixture
async def fcm() -> AsyncIterator[Fcm]:
    async with open_fcm() as fcm:
        yield fcm


@pytest.fixture
async def client(fcm: Fcm) -> AsyncIterator[httpx2.AsyncClient]:
    tls = build_client_tls("http/1.1")
    async with httpx2.AsyncClient(base_url=fcm.url, verify=tls, trust_env=False) as client:
        yield client


def build_assertion(fcm: Fcm, key_id: str = PRIVATE_KEY_ID, key: Any = None, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": CLIENT_EMAIL, "scope": SCOPE, "aud": f"{fcm.url}{TOKEN_PATH}", "iat": now, "exp": now + 3600}
    return jwt.encode({**claims, **changes}, key or find_account_key(), algorithm="RS256", headers={"kid": key_id})


async def ask_token(client: httpx2.AsyncClient, assertion: str) -> httpx2.Response:
    return await client.post(TOKEN_PATH, data={"grant_type": GRANT_TYPE, "assertion": assertion})


async def send(fcm: Fcm, client: httpx2.AsyncClient, message: Any = None, access_token: str = "") -> httpx2.Response:
    if not access_token:
        access_token = (await ask_token(client, build_assertion(fcm))).json()["access_token"]
    body = {"message": {"token": TOKEN} if message is None else message}
    return await client.post(SEND_PATH, json=body, headers={"Authorization": f"Bearer {access_token}"})


async def test_a_good_assertion_buys_a_token_that_sends_until_it_expires(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    bought = (await ask_token(client, build_assertion(fcm))).json()
    assert (bought["expires_in"], bought["token_type"]) == (3600, "Bearer")
    assert (await send(fcm, client, access_token=bought["access_token"])).status_code == 200
    fcm.read_time = lambda: time.time() + 3601
    late = await send(fcm, client, access_token=bought["access_token"])
    assert (late.status_code, late.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


async def test_a_revoked_token_is_no_good(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    token = (await ask_token(client, build_assertion(fcm))).json()["access_token"]
    fcm.revoke_access_tokens()
    assert (await send(fcm, client, access_token=token)).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody@example.com"},
        {"aud": "https://example.com/token"},
        {"scope": "https://www.googleapis.com/auth/drive"},
        {"exp": 4_000_000_000},
        {"exp": 1},
        {"key_id": "another"},
        {"key": rsa.generate_private_key(65537, 2048)},
    ],
)
async def test_a_bad_assertion_buys_nothing(fcm: Fcm, client: httpx2.AsyncClient, changes: dict[str, Any]) -> None:
    answer = await ask_token(client, build_assertion(fcm, **changes))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert fcm.assertions == []


async def test_a_message_is_acknowledged_with_its_name_and_booked(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    message = {
        "token": TOKEN,
        "data": {"type": "job_completed"},
        "notification": {"title": "Done", "body": "It is done"},
        "android": {"collapse_key": "k", "priority": "HIGH", "ttl": "86400s", "notification": {"tag": "job:1"}},
    }
    answer = await send(fcm, client, message)
    assert answer.status_code == 200
    assert answer.json()["name"].startswith("projects/example-project/messages/0:")
    (seen,) = fcm.book.acknowledged
    assert (seen.token, seen.collapse_id, seen.payload) == (TOKEN, "job:1", message)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"token": ""},
        {"token": TOKEN, "colour": "red"},
        {"token": TOKEN, "data": {"count": 1}},
        {"token": TOKEN, "data": {"from": "us"}},
        {"token": TOKEN, "data": {"google.x": "us"}},
        {"token": TOKEN, "data": {"x": "x" * 4096}},
        {"token": TOKEN, "notification": {"subtitle": "x"}},
        {"token": TOKEN, "android": {"ttl": "1d"}},
        {"token": TOKEN, "android": {"ttl": "2419201s"}},
        {"token": TOKEN, "android": {"priority": "high"}},
        {"token": TOKEN, "android": {"notification": {"subtitle": "x"}}},
    ],
)
async def test_a_message_that_breaks_a_rule_is_an_invalid_argument(
    fcm: Fcm, client: httpx2.AsyncClient, message: dict[str, Any]
) -> None:
    answer = await send(fcm, client, message)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["errorCode"] == "INVALID_ARGUMENT"
    assert len(fcm.book.refused) == 1


async def test_a_token_of_an_app_that_is_gone_is_unregistered(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    fcm.unregistered.add(TOKEN)
    answer = await send(fcm, client)
    assert (answer.status_code, answer.json()["error"]["details"][0]["errorCode"]) == (404, "UNREGISTERED")


async def test_scripts_answer_hold_and_cut(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    busy = refuse_fcm(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after="3")
    fcm.script.play(TOKEN, busy, Held(0.001, Say(502, b"<html>")), Cut())
    answer = await send(fcm, client)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert (await send(fcm, client)).status_code == 502
    with pytest.raises(httpx2.TransportError):
        await send(fcm, client)
    assert (await send(fcm, client)).status_code == 200
    assert [seen.number for seen in fcm.book.cut] == [3]
    assert [seen.number for seen in fcm.book.acknowledged] == [4]


async def test_who_leaves_before_the_answer_was_not_acknowledged(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    fcm.script.play(TOKEN, Held(trio.Event()))
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, fcm, client)
            await fcm.book.wait_received(1)
            nursery.cancel_scope.cancel()
    await fcm.book.wait_until(lambda book: len(book.cut) == 1)
    assert not scope.cancelled_caught
    assert fcm.book.acknowledged == []


async def test_the_token_endpoint_answers_as_told(fcm: Fcm, client: httpx2.AsyncClient) -> None:
    fcm.token_answers.append(Say(503))
    assert (await ask_token(client, build_assertion(fcm))).status_code == 503
    assert (await ask_token(client, build_assertion(fcm))).status_code == 200
