"""Access tokens: one exchange for any number of pushes, and never a secret in what is told."""

import json
import logging
from collections.abc import Iterable
from urllib.parse import parse_qs

import jwt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.transport import Deadlines, open_transport
from server.push.google_access import (
    MARGIN_SECONDS,
    PAUSE_SECONDS,
    REFUSED_PAUSE_SECONDS,
    REPLACE_PAUSE_SECONDS,
    SCOPE,
    AccessError,
    AccessRefused,
    AccessTokens,
    AccessUnavailable,
    Granted,
    build_access_tokens,
    build_exchange,
    read_grant,
)
from tests.fake_upstream import Close, Step, WaitForClose, open_fake_upstream, response
from tests.push_stand_in.keys import find_account_key
from tests.server.push.fcm_samples import CLIENT_EMAIL, ScriptedGoogle, build_settings

NOW = 1_770_000_000.0
PATIENT = Deadlines(connect_seconds=5, response_seconds=5, idle_seconds=5, write_seconds=5)
LIFE_SECONDS = 3600.0


class ScriptedEndpoint:
    """Grants `access-1`, `access-2` … after `gate` is open, or fails with what stands in `failures`, one a question."""

    def __init__(self, *failures: AccessError, life_seconds: float = LIFE_SECONDS) -> None:
        self.failures = list(failures)
        self.asked = 0
        self.granted = 0
        self.gate = trio.Event()
        self.gate.set()
        self._life_seconds = life_seconds

    async def __call__(self) -> Granted:
        self.asked += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.granted += 1
        return Granted(f"access-{self.granted}", self._life_seconds)


def test_the_assertion_says_who_asks_for_what_and_of_whom() -> None:
    settings = build_settings("https://oauth2.googleapis.com")
    request = build_exchange(settings, find_account_key(), NOW)
    form = parse_qs(request.body.decode())
    assertion = form["assertion"][0]
    claims = jwt.decode(
        assertion,
        find_account_key().public_key(),
        algorithms=["RS256"],
        audience="https://oauth2.googleapis.com/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert request.url == "https://oauth2.googleapis.com/token"
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert (claims["iss"], claims["scope"]) == (CLIENT_EMAIL, SCOPE)
    assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + 3600)
    assert jwt.get_unverified_header(assertion)["kid"] == "key-1"


def test_a_grant_is_read() -> None:
    body = b'{"access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer"}'
    assert read_grant(200, body) == Granted("ya29.x", 3599)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"access_token": "ya29.x"}',
        b'{"access_token": "", "expires_in": 3599}',
        b'{"access_token": "ya29.x\\r\\nX: y", "expires_in": 3599}',
        b'{"access_token": "ya29.x", "expires_in": 0}',
        b'{"access_token": "ya29.x", "expires_in": -1}',
    ],
)
def test_a_grant_that_cannot_be_used_is_none(body: bytes) -> None:
    with pytest.raises(AccessUnavailable):
        read_grant(200, body)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_no_names_its_code_and_nothing_else(status: int) -> None:
    body = json.dumps({"error": "invalid_grant", "error_description": f"Not a valid email: {CLIENT_EMAIL}"}).encode()
    with pytest.raises(AccessRefused, match="invalid_grant") as caught:
        read_grant(status, body)
    assert CLIENT_EMAIL not in str(caught.value)


@pytest.mark.parametrize(("status", "body"), [(400, b"<html>"), (429, b"{}"), (500, b'{"error": "internal_failure"}')])
def test_other_answers_pass(status: int, body: bytes) -> None:
    with pytest.raises(AccessUnavailable):
        read_grant(status, body)


async def test_a_token_is_kept_until_five_minutes_before_its_end(mock_clock: MockClock) -> None:
    endpoint = ScriptedEndpoint()
    tokens = AccessTokens(endpoint)
    assert await tokens.read() == "access-1"
    mock_clock.jump(LIFE_SECONDS - MARGIN_SECONDS - 1)
    assert await tokens.read() == "access-1"
    mock_clock.jump(2)
    assert await tokens.read() == "access-2"


async def test_a_token_of_a_short_life_is_kept_for_half_of_it(mock_clock: MockClock) -> None:
    tokens = AccessTokens(ScriptedEndpoint(life_seconds=10))
    assert await tokens.read() == "access-1"
    mock_clock.jump(4.9)
    assert await tokens.read() == "access-1"
    mock_clock.jump(0.2)
    assert await tokens.read() == "access-2"


async def test_the_life_of_a_token_begins_when_it_is_asked_for(mock_clock: MockClock) -> None:
    endpoint = ScriptedEndpoint(life_seconds=10)
    endpoint.gate = trio.Event()
    tokens = AccessTokens(endpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tokens.read)
        await wait_all_tasks_blocked()
        mock_clock.jump(6)
        endpoint.gate.set()
    assert await tokens.read() == "access-2"


async def test_any_number_of_tasks_share_one_exchange() -> None:
    endpoint = ScriptedEndpoint()
    endpoint.gate = trio.Event()
    found = await read_side_by_side(AccessTokens(endpoint), endpoint, 50)
    assert (endpoint.asked, found) == (1, ["access-1"] * 50)


async def test_any_number_of_tasks_share_one_failure() -> None:
    endpoint = ScriptedEndpoint(AccessUnavailable("away"))
    endpoint.gate = trio.Event()
    found = await read_side_by_side(AccessTokens(endpoint), endpoint, 50)
    assert (endpoint.asked, found) == (1, ["AccessUnavailable: away"] * 50)


async def test_another_takes_over_if_the_one_that_exchanges_is_cancelled() -> None:
    endpoint = ScriptedEndpoint()
    endpoint.gate = trio.Event()
    tokens = AccessTokens(endpoint)
    found: list[str] = []

    async def read() -> None:
        found.append(await tokens.read())

    async with trio.open_nursery() as nursery:
        first = await nursery.start(start_cancellable, tokens)
        await wait_all_tasks_blocked()
        for _ in range(5):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        endpoint.gate.set()
    assert (endpoint.asked, endpoint.granted, found) == (2, 1, ["access-1"] * 5)


async def test_nobody_asks_again_at_once_after_a_failure(mock_clock: MockClock) -> None:
    endpoint = ScriptedEndpoint(AccessUnavailable("away"))
    tokens = AccessTokens(endpoint)
    for _ in range(3):
        with pytest.raises(AccessUnavailable, match="away"):
            await tokens.read()
    assert endpoint.asked == 1
    mock_clock.jump(PAUSE_SECONDS)
    assert await tokens.read() == "access-1"


async def test_a_no_is_not_asked_for_again_for_longer(mock_clock: MockClock) -> None:
    endpoint = ScriptedEndpoint(AccessRefused("no"))
    tokens = AccessTokens(endpoint)
    for _ in range(2):
        with pytest.raises(AccessRefused, match="no"):
            await tokens.read()
        mock_clock.jump(REFUSED_PAUSE_SECONDS / 2 - 1)
    assert endpoint.asked == 1
    mock_clock.jump(2)
    assert await tokens.read() == "access-1"


async def test_a_token_that_still_lives_goes_on_while_there_is_no_new_one(mock_clock: MockClock) -> None:
    endpoint = ScriptedEndpoint()
    tokens = AccessTokens(endpoint)
    assert await tokens.read() == "access-1"
    endpoint.failures = [AccessUnavailable("away"), AccessUnavailable("away")]
    mock_clock.jump(LIFE_SECONDS - MARGIN_SECONDS)
    assert await tokens.read() == "access-1"
    mock_clock.jump(MARGIN_SECONDS)
    with pytest.raises(AccessUnavailable):
        await tokens.read()


async def test_a_refused_token_is_replaced_once_for_all_that_carried_it() -> None:
    endpoint = ScriptedEndpoint()
    tokens = AccessTokens(endpoint)
    refused = await tokens.read()
    found: list[str] = []

    async def replace() -> None:
        found.append(await tokens.replace(refused))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(replace)
    assert (endpoint.asked, found) == (2, ["access-2"] * 20)


async def test_a_token_that_was_just_given_is_not_replaced_again(mock_clock: MockClock) -> None:
    tokens = AccessTokens(ScriptedEndpoint())
    second = await tokens.replace(await tokens.read())
    with pytest.raises(AccessRefused):
        await tokens.replace(second)
    assert await tokens.read() == second
    mock_clock.jump(REPLACE_PAUSE_SECONDS)
    assert await tokens.replace(second) == "access-3"


async def test_a_token_that_was_taken_since_is_replaced_at_once() -> None:
    tokens = AccessTokens(ScriptedEndpoint())
    first = await tokens.read()
    second = await tokens.replace(first)
    tokens.confirm(first)
    with pytest.raises(AccessRefused):
        await tokens.replace(second)
    tokens.confirm(second)
    assert await tokens.replace(second) == "access-3"


async def test_an_exchange_over_the_network_brings_a_token() -> None:
    google = ScriptedGoogle()
    async with open_fake_upstream(google) as upstream, open_transport(PATIENT) as transport:
        tokens = build_access_tokens(build_settings(upstream.url), transport, lambda: NOW)
        assert await tokens.read() == "access-1"
        assert transport.open_connections == transport.idle_connections
    assert jwt.decode(google.assertions[0], options={"verify_signature": False})["iat"] == NOW


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([Close()], AccessUnavailable),
        (response(503, b"<html>"), AccessUnavailable),
        (response(400, b'{"error": "invalid_client"}'), AccessRefused),
    ],
)
async def test_what_goes_wrong_with_the_exchange_is_typed(script: Iterable[Step], kind: type[AccessError]) -> None:
    async with open_fake_upstream(script) as upstream, open_transport(PATIENT) as transport:
        tokens = build_access_tokens(build_settings(upstream.url), transport, lambda: NOW)
        with pytest.raises(kind):
            await tokens.read()


async def test_an_endpoint_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.push.google_access.EXCHANGE_SECONDS", 0.05)
    async with open_fake_upstream([WaitForClose()]) as upstream, open_transport(PATIENT) as transport:
        tokens = build_access_tokens(build_settings(upstream.url), transport, lambda: NOW)
        with pytest.raises(AccessUnavailable, match="in time"):
            await tokens.read()
        assert transport.open_connections == 0


async def test_an_address_that_cannot_be_asked_is_the_operators_to_mend() -> None:
    async with open_transport(PATIENT) as transport:
        tokens = build_access_tokens(build_settings("ftp://127.0.0.1"), transport, lambda: NOW)
        with pytest.raises(AccessRefused):
            await tokens.read()


async def test_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    google = ScriptedGoogle(answer_grant=lambda _number: response(400, b'{"error": "invalid_grant"}'))
    async with open_fake_upstream(google) as upstream, open_transport(PATIENT) as transport:
        settings = build_settings(upstream.url)
        with pytest.raises(AccessRefused) as caught:
            await build_access_tokens(settings, transport, lambda: NOW).read()
    told = f"{caught.value!r} {caught.value.__cause__!r} {settings!r} {Granted('ya29.secret', 1)!r} {caplog.text}"
    assert not [secret for secret in (google.assertions[0], "BEGIN PRIVATE KEY", "ya29.secret") if secret in told]


async def read_side_by_side(tokens: AccessTokens, endpoint: ScriptedEndpoint, count: int) -> list[str]:
    """What each got, once all are waiting and the endpoint answers."""
    found: list[str] = []

    async def read() -> None:
        try:
            found.append(await tokens.read())
        except AccessError as error:
            found.append(f"{type(error).__name__}: {error}")

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        endpoint.gate.set()
    return found


async def start_cancellable(
    tokens: AccessTokens, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await tokens.read()
