"""Push tokens as the shipped app brings them, and as the published pages say."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.server.registering import DEVICE, PATH, PHONE_ID, ask, register, register_phone, tell_error
from tests.server.served import Served, open_served, token_headers
from tests.storage.people import Query

TOKEN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
OWN = f"{PATH}/push-token"
BY_ID = f"{PATH}/{PHONE_ID}/push-token"
TOKENS = "SELECT user_id, device_id, platform, token, environment FROM push_tokens ORDER BY token"


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def put(served: Served, user: Any, body: object, method: str = "PUT", path: str = OWN) -> Any:
    headers = {"X-Device-ID": PHONE_ID, "X-Client-Type": "mobile"}
    return await ask(served, user, method, path, body, headers)


async def test_a_phone_brings_its_own_token(served: Served, query: Query) -> None:
    """As the shipped app does, as the published pages say, and as old apps did."""
    user = await served.make_user()
    for method, path, body in (
        ("PUT", OWN, {"platform": "ios", "token": TOKEN}),
        ("PUT", OWN, {"pushToken": TOKEN.upper(), "platform": None}),
        ("POST", OWN, {"platform": "iOS", "token": TOKEN, "more": 1}),
        ("POST", OWN, {"pushToken": TOKEN}),
        ("POST", f"{PATH}/push/register", {"deviceToken": TOKEN, "platform": "ios", "environment": "development"}),
    ):
        query("DELETE FROM devices")
        answer = await put(served, user, body, method, path)
        assert (answer.status, answer.json) == (200, {"success": True})
        environment = "sandbox" if "environment" in body else None
        assert query(TOKENS) == [(user.id, UUID(PHONE_ID), "ios", TOKEN, environment)]
        assert query("SELECT device_name, registered_at FROM devices") == [("Mobile Device", None)]


async def test_a_token_is_brought_for_a_device_by_its_id(served: Served, query: Query) -> None:
    user = await served.make_user()
    await register_phone(served, user)
    for method, member in (("POST", "pushToken"), ("PUT", "pushToken"), ("POST", "token")):
        query("DELETE FROM push_tokens")
        answer = await ask(served, user, method, BY_ID, {member: TOKEN})
        assert (answer.status, answer.json.keys()) == (200, {"status", "timestamp"})
        assert answer.json["status"] == "push_token_saved"
        assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z", answer.json["timestamp"])
        assert query(TOKENS) == [(user.id, UUID(PHONE_ID), "ios", TOKEN, None)]


async def test_a_phone_that_has_said_what_it_is_need_not_say_it_again(served: Served, query: Query) -> None:
    user = await served.make_user()
    await register_phone(served, user, platform="Android")
    for method, path in (("POST", BY_ID), ("PUT", OWN)):
        assert (await put(served, user, {"pushToken": "fcm:Token"}, method, path)).status == 200
        assert query(TOKENS) == [(user.id, UUID(PHONE_ID), "android", "fcm:Token", None)]


async def test_nobody_brings_a_token_for_a_device_of_somebody_else(served: Served, query: Query) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    await register_phone(served, ann)
    await put(served, ann, {"token": TOKEN})
    foreign = await ask(served, bob, "POST", BY_ID, {"pushToken": OTHER})
    unknown = await ask(served, bob, "POST", f"{PATH}/{uuid4()}/push-token", {"pushToken": OTHER})
    assert tell_error(foreign) == tell_error(unknown)
    assert (foreign.status, foreign.json["error_type"]) == (404, "not_found")
    assert query(TOKENS) == [(ann.id, UUID(PHONE_ID), "ios", TOKEN, None)]
    assert (await put(served, bob, {"token": OTHER})).status == 200  # the same id is another device of his own
    assert [(user_id, token) for user_id, _, _, token, _ in query(TOKENS)] == [(ann.id, TOKEN), (bob.id, OTHER)]


async def test_a_phone_that_changes_hands_takes_its_token_along(served: Served, query: Query) -> None:
    ann, bob = await served.make_user(), await served.make_user("bob@example.com")
    await put(served, ann, {"token": TOKEN})
    await put(served, bob, {"token": TOKEN})
    assert query(TOKENS) == [(bob.id, UUID(PHONE_ID), "ios", TOKEN, None)]


async def test_registering_again_leaves_the_token_and_unlinking_does_not(served: Served, query: Query) -> None:
    user = await served.make_user()
    await put(served, user, {"token": TOKEN})
    await register_phone(served, user)
    assert len(query(TOKENS)) == 1
    assert (await ask(served, user, "DELETE", f"{PATH}/{PHONE_ID}")).status == 204
    assert query(TOKENS) == []


async def test_nothing_is_pushed_any_more_to_a_phone_that_signs_out(served: Served, query: Query) -> None:
    user = await served.make_user()
    await ask(served, user, "PUT", OWN, {"token": OTHER}, {"X-Device-ID": DEVICE})
    headers = {**token_headers(user, device_id=PHONE_ID), "X-Device-ID": PHONE_ID}
    await served.ask("PUT", OWN, headers, f'{{"token": "{TOKEN}"}}'.encode())
    assert len(query(TOKENS)) == 2
    assert (await served.ask("POST", "/api/auth/logout", headers)).status == 200
    assert query(TOKENS) == [(user.id, UUID(DEVICE), "ios", OTHER, None)]


async def test_a_token_shows_nowhere(served: Served) -> None:
    user = await served.make_user()
    await register(served, user)
    headers = {"X-Device-ID": DEVICE}
    assert (await ask(served, user, "PUT", OWN, {"token": TOKEN}, headers)).status == 200
    listed = await ask(served, user, "GET", PATH)
    assert len(listed.json) == 1
    assert TOKEN.encode() not in listed.body


async def test_what_cannot_be_is_refused_in_the_words_that_clients_know(served: Served, query: Query) -> None:
    user = await served.make_user()
    for body, word in (
        ({"token": TOKEN, "platform": "macos"}, "invalid_platform"),
        ({"token": "my token"}, "invalid_push_token"),
        ({"token": None}, "invalid_push_token"),
        ({}, "invalid_push_token"),
        ({"token": TOKEN, "environment": "staging"}, "invalid_environment"),
    ):
        assert tell_error(await put(served, user, body)) == (400, "bad_request", f"Bad request: {word}")
    for none in (b"", b"{", b"[]", b'{"token": 1}'):
        assert tell_error(await put(served, user, none))[:2] == (400, "validation_error")
    assert query(TOKENS) == []


async def test_a_device_that_does_not_say_which_it_is_is_refused(served: Served) -> None:
    user = await served.make_user()
    for headers in ({}, {"X-Device-ID": "my phone"}):
        answer = await ask(served, user, "PUT", OWN, {"token": TOKEN}, headers)
        assert tell_error(answer)[:2] == (400, "bad_request")
