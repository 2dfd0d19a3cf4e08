"""Pushes to FCM over real sockets: what becomes of each, however Google and the network behave."""

import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from proxy.transport import NetworkTransport, open_transport
from server.push.fcm import DEADLINES, MAX_REQUESTS, Fcm, open_fcm
from server.push.fcm_answers import CONFIGURATION_PAUSE_SECONDS
from server.push.google_access import build_access_tokens
from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from tests.fake_upstream import (
    FakeUpstream,
    Pause,
    RecordedRequest,
    Reset,
    Send,
    Step,
    WaitFor,
    WaitForClose,
    open_fake_upstream,
    response,
)
from tests.server.push.fcm_samples import (
    DEVICE_TOKEN,
    ScriptedGoogle,
    accepted,
    build_delivery,
    build_settings,
    fcm_error,
    grant,
)

HEAD_OF_A_YES = Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: 90\r\n\r\n")
UNAUTHENTICATED = response(401, b'{"error": {"code": 401, "status": "UNAUTHENTICATED"}}')
FOREIGN = response(403, fcm_error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"))
DENIED = response(403, b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}')


@dataclass(frozen=True, slots=True)
class Opened:
    fcm: Fcm
    google: ScriptedGoogle
    upstream: FakeUpstream
    transport: NetworkTransport

    async def send(self, count: int = 1) -> list[Outcome]:
        return [await self.fcm.send(build_delivery()) for _ in range(count)]


@asynccontextmanager
async def opened(google: ScriptedGoogle) -> AsyncIterator[Opened]:
    """As open_fcm does it, and with its transport to be looked at."""
    async with open_fake_upstream(google) as upstream, open_transport(DEADLINES) as transport:
        settings = build_settings(upstream.url)
        fcm = Fcm(settings, transport, build_access_tokens(settings, transport, lambda: 1_770_000_000))
        yield Opened(fcm, google, upstream, transport)


def by_turn(*scripts: list[Step]) -> Callable[[RecordedRequest], Iterable[Step]]:
    """One script a push, the last one for ever."""
    left = list(scripts)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


def tokens_of(google: ScriptedGoogle) -> list[str]:
    return [push.headers["authorization"] for push in google.pushes]


async def test_a_push_goes_to_the_project_with_an_access_token() -> None:
    async with opened(ScriptedGoogle()) as here:
        assert await here.send() == [Accepted()]
    [push] = here.google.pushes
    assert (push.method, push.path) == ("POST", "/v1/projects/cloche-test/messages:send")
    assert push.headers["authorization"] == "Bearer access-1"
    assert push.json["message"]["token"] == DEVICE_TOKEN


async def test_many_pushes_need_one_access_token_and_one_connection() -> None:
    async with opened(ScriptedGoogle()) as here:
        assert await here.send(20) == [Accepted()] * 20
    assert (len(here.google.assertions), len(here.upstream.connections)) == (1, 1)


async def test_an_access_token_that_is_refused_is_replaced_and_the_push_goes_out() -> None:
    async with opened(ScriptedGoogle(by_turn(UNAUTHENTICATED, accepted()))) as here:
        assert await here.send() == [Accepted()]
    assert tokens_of(here.google) == ["Bearer access-1", "Bearer access-2"]


async def test_many_pushes_whose_access_token_is_revoked_at_once_all_go_out_with_the_next() -> None:
    def answer(push: RecordedRequest) -> Iterable[Step]:
        return UNAUTHENTICATED if push.headers["authorization"] == "Bearer access-1" else accepted()

    async with opened(ScriptedGoogle(answer)) as here:
        assert await send_side_by_side(here.fcm, 40) == [Accepted()] * 40
    assert len(here.google.assertions) == 2


async def test_access_tokens_that_are_revoked_again_and_again_hold_up_nothing() -> None:
    scripts = [UNAUTHENTICATED, accepted()] * 3
    async with opened(ScriptedGoogle(by_turn(*scripts))) as here:
        assert await here.send(3) == [Accepted()] * 3
    assert len(here.google.assertions) == 4


async def test_a_second_no_is_the_operators_to_mend_and_no_third_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(ScriptedGoogle(by_turn(UNAUTHENTICATED))) as here:
        outcomes = await here.send(3)
    assert [outcome.after_seconds for outcome in outcomes if isinstance(outcome, Later)] == [300.0] * 3
    assert len(here.google.assertions) == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_service_account_that_google_does_not_accept_sends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    google = ScriptedGoogle(answer_grant=lambda _number: response(400, b'{"error": "invalid_grant"}'))
    async with opened(google) as here:
        [first, second] = await here.send(2)
    assert first == second
    assert isinstance(first, Later)
    assert first.after_seconds == CONFIGURATION_PAUSE_SECONDS
    assert (len(google.assertions), google.pushes) == (1, [])
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_token_endpoint_that_is_away_passes() -> None:
    async with opened(ScriptedGoogle(answer_grant=lambda _number: response(503, b""))) as here:
        assert await here.send() == [Later("the token endpoint answered with status 503")]


async def test_a_token_that_is_unregistered_is_gone() -> None:
    gone = response(404, fcm_error(404, "NOT_FOUND", "UNREGISTERED"))
    async with opened(ScriptedGoogle(by_turn(gone))) as here:
        assert await here.send() == [TokenGone("UNREGISTERED")]


async def test_a_token_of_another_project_is_gone_once_our_project_is_known_to_be_right() -> None:
    async with opened(ScriptedGoogle(by_turn(accepted(), FOREIGN))) as here:
        assert await here.send(2) == [Accepted(), TokenGone("SENDER_ID_MISMATCH")]


async def test_a_service_account_of_another_project_deletes_no_tokens(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(ScriptedGoogle(by_turn(FOREIGN))) as here:
        assert await here.send(2) == [Later("SENDER_ID_MISMATCH", CONFIGURATION_PAUSE_SECONDS)] * 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_what_google_refuses_is_told_once_until_it_takes_pushes_again(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(ScriptedGoogle(by_turn(DENIED, DENIED, accepted(), accepted(), DENIED))) as here:
        await here.send(5)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


async def test_a_connection_that_ends_without_an_answer_passes() -> None:
    async with opened(ScriptedGoogle(by_turn([Reset()]))) as here:
        [outcome] = await here.send()
    assert isinstance(outcome, Later)
    assert outcome.after_seconds is None


async def test_a_server_that_is_not_there_passes() -> None:
    async with open_transport(DEADLINES) as transport:
        settings = build_settings("http://127.0.0.1:1")
        fcm = Fcm(settings, transport, build_access_tokens(settings, transport, lambda: 1_770_000_000))
        assert isinstance(await fcm.send(build_delivery()), Later)
        assert transport.open_connections == 0


async def test_an_address_that_cannot_be_asked_refuses_the_push() -> None:
    async with open_fake_upstream(ScriptedGoogle()) as upstream, open_transport(DEADLINES) as transport:
        access = build_access_tokens(build_settings(upstream.url), transport, lambda: 1_770_000_000)
        fcm = Fcm(build_settings("ftp://127.0.0.1"), transport, access)
        assert isinstance(await fcm.send(build_delivery()), Refused)


async def test_silence_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.push.fcm.ATTEMPT_SECONDS", 0.1)
    async with opened(ScriptedGoogle(by_turn([WaitForClose()]))) as here:
        assert await here.send() == [Later("FCM did not answer in time")]
        assert here.transport.open_connections == here.transport.idle_connections


async def test_the_head_of_an_acknowledgement_is_not_lost_with_its_body() -> None:
    async with opened(ScriptedGoogle(by_turn([HEAD_OF_A_YES, Pause(0.05), Reset()]))) as here:
        assert await here.send() == [Accepted()]


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.push.fcm.BODY_SECONDS", 0.05)
    async with opened(ScriptedGoogle(by_turn([HEAD_OF_A_YES, WaitForClose()]))) as here:
        assert await here.send() == [Accepted()]
        assert here.transport.open_connections == here.transport.idle_connections


async def test_whoever_is_cancelled_after_the_head_still_knows_that_the_push_is_taken() -> None:
    outcomes: list[Outcome] = []
    rest = trio.Event()
    body = Send(b'{"name": "projects/cloche-test/messages/1"}'.ljust(90))

    async with opened(ScriptedGoogle(by_turn([HEAD_OF_A_YES, WaitFor(rest), body]))) as here:

        async def send() -> None:
            outcomes.append(await here.fcm.send(build_delivery()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(5):
                while not here.upstream.connections or here.upstream.connections[-1].sent_bytes < 200:
                    await trio.sleep(0.001)
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
            rest.set()
    assert outcomes == [Accepted()]


async def test_no_more_requests_run_at_once_than_are_allowed() -> None:
    until = trio.Event()
    async with opened(ScriptedGoogle(by_turn([WaitFor(until), *accepted()]))) as here, trio.open_nursery() as nursery:
        for _ in range(MAX_REQUESTS + 10):
            nursery.start_soon(here.fcm.send, build_delivery())
        with trio.fail_after(5):
            while len(here.google.pushes) < MAX_REQUESTS:
                await trio.sleep(0.001)
        await wait_all_tasks_blocked(0.01)
        assert len(here.google.pushes) == MAX_REQUESTS
        until.set()
    assert len(here.google.pushes) == MAX_REQUESTS + 10


async def test_a_storm_of_cancellations_leaves_nothing_open() -> None:
    google = ScriptedGoogle(
        lambda push: [Pause(len(push.body) % 7 / 1000), *accepted()],
        lambda number: [Pause(0.001), *grant(f"access-{number}", 0.02)],
    )
    async with opened(google) as here:
        for number in range(100):
            with trio.move_on_after(number % 23 / 2000):
                await send_side_by_side(here.fcm, 4)
        assert here.transport.open_connections == here.transport.idle_connections
        await trio.sleep(0.01)
        assert await here.send() == [Accepted()]


async def test_authorities_of_the_operators_own_are_believed(tmp_path: Path) -> None:
    authority, ca_file = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with open_fake_upstream(ScriptedGoogle(), tls=server) as upstream:
        async with open_fcm(build_settings(upstream.url), ca_file) as fcm:
            assert await fcm.send(build_delivery()) == Accepted()
        async with open_fcm(build_settings(upstream.url), None) as fcm:
            assert isinstance(await fcm.send(build_delivery()), Later)


async def test_nothing_of_a_push_and_no_key_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wordy = {"code": 403, "status": "PERMISSION_DENIED", "message": f"{DEVICE_TOKEN} access-1 Plan ready"}
    answer = by_turn(
        [Reset()], response(403, json.dumps({"error": wordy}).encode()), UNAUTHENTICATED, [Send(b"what?\r\n\r\n")]
    )
    async with opened(ScriptedGoogle(answer)) as here:
        outcomes = await here.send(5)
    told = repr(outcomes) + "".join(str(record.__dict__) for record in caplog.records)
    secrets = (DEVICE_TOKEN, "access-1", "access-2", "Plan ready", "kitchen", here.google.assertions[0], "PRIVATE")
    assert not [secret for secret in secrets if secret in told]


async def send_side_by_side(fcm: Fcm, count: int) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def send() -> None:
        outcomes.append(await fcm.send(build_delivery()))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(send)
    return outcomes
