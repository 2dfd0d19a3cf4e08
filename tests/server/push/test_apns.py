"""Pushes to iOS against a stand-in that checks what Apple checks: environments, our own token, every kind of answer."""

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock

from server.push import apns as apns_module
from server.push.apns import Apns, build_peer, build_ssl_context, open_apns
from server.push.apns_answers import CONFIGURATION_PAUSE_SECONDS
from server.push.apns_connection import ConnectionTimes
from server.push.apns_token import RENEWAL_SECONDS
from server.push.outcomes import Accepted, Later, Refused, TokenGone
from server.push.settings import read_push_settings
from server.settings import Settings
from tests.push_stand_in.stand_in import PushStandIn, open_push_stand_in
from tests.push_stand_in.steps import Cut, GoAway, Say, Silence, refuse_apns
from tests.server.push.apns_samples import TOKEN, build_delivery


@pytest.fixture
async def stand_in() -> AsyncIterator[PushStandIn]:
    async with open_push_stand_in() as stand_in:
        yield stand_in


@pytest.fixture
async def apns(stand_in: PushStandIn) -> AsyncIterator[Apns]:
    async with open_sender(stand_in) as apns:
        yield apns


UNKNOWN = "0b" * 32
RARELY_LOOKING = ConnectionTimes(look=1e6)
"""For a clock that jumps."""


@asynccontextmanager
async def open_sender(stand_in: PushStandIn, times: ConnectionTimes | None = None) -> AsyncIterator[Apns]:
    """As the server runs it, with the settings as it reads them."""
    settings = Settings(dict(stand_in.settings))
    push = read_push_settings(settings, True)
    assert settings.problems == []
    assert push.apns is not None
    async with open_apns(push.apns, push.ca_file, times) as apns, trio.open_nursery() as nursery:
        for loop in apns.loops:
            nursery.start_soon(loop)
        yield apns
        nursery.cancel_scope.cancel()


async def test_a_push_is_accepted_by_a_service_that_checks_everything(stand_in: PushStandIn, apns: Apns) -> None:
    assert await apns.send(build_delivery()) == Accepted("production")
    assert await apns.send(build_delivery("job_progress", is_silent=True)) == Accepted("production")
    [visible, silent] = stand_in.apns.book.received
    assert (visible.collapse_id, visible.token) == ("job_completed:job-1", TOKEN)
    assert silent.headers["apns-push-type"] == "background"
    assert stand_in.apns.violations == []


async def test_many_pushes_share_one_connection_and_one_provider_token(stand_in: PushStandIn, apns: Apns) -> None:
    outcomes = []

    async def send(number: int) -> None:
        outcomes.append(await apns.send(build_delivery(token=f"{number:064x}")))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(send, number)
    assert outcomes == [Accepted("production")] * 200
    assert (len(stand_in.apns.connections), len(stand_in.apns.provider_tokens)) == (1, 1)
    assert stand_in.apns.violations == []


async def test_a_token_that_is_at_home_elsewhere_is_found_there(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.homes[TOKEN] = "sandbox"
    assert await apns.send(build_delivery()) == Accepted("sandbox")
    assert [push.environment for push in stand_in.apns.book.received] == ["production", "sandbox"]


async def test_where_a_token_is_known_to_be_at_home_is_asked_first(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.homes[TOKEN] = "sandbox"
    assert await apns.send(build_delivery(environment="sandbox")) == Accepted("sandbox")
    assert [push.environment for push in stand_in.apns.book.received] == ["sandbox"]


async def test_a_token_that_neither_environment_knows_is_gone(stand_in: PushStandIn, apns: Apns) -> None:
    assert await apns.send(build_delivery()) == Accepted("production")
    stand_in.apns.homes[UNKNOWN] = "nowhere"
    assert await apns.send(build_delivery(token=UNKNOWN)) == TokenGone("BadDeviceToken")
    assert len(stand_in.apns.book.received) == 3


async def test_a_token_for_another_app_is_gone(stand_in: PushStandIn, apns: Apns) -> None:
    assert await apns.send(build_delivery()) == Accepted("production")
    stand_in.apns.script.play(UNKNOWN, refuse_apns(400, "DeviceTokenNotForTopic"))
    assert await apns.send(build_delivery(token=UNKNOWN)) == TokenGone("DeviceTokenNotForTopic")


@pytest.mark.parametrize("reason", ["DeviceTokenNotForTopic", "BadDeviceToken"])
async def test_before_anything_was_accepted_it_may_be_our_app_or_environment_that_is_wrong_and_no_token_goes(
    stand_in: PushStandIn, apns: Apns, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    stand_in.apns.script.otherwise = lambda _: refuse_apns(400, reason)
    for _ in range(3):
        assert await apns.send(build_delivery()) == Later(reason, CONFIGURATION_PAUSE_SECONDS)
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.__dict__["reason"] == reason


async def test_a_push_that_was_accepted_elsewhere_does_not_show_that_this_environment_is_the_right_one(
    stand_in: PushStandIn, apns: Apns
) -> None:
    stand_in.apns.homes |= {TOKEN: "sandbox", UNKNOWN: "nowhere"}
    assert await apns.send(build_delivery()) == Accepted("sandbox")
    unknown = build_delivery(token=UNKNOWN)
    assert await apns.send(unknown) == Later("BadDeviceToken", CONFIGURATION_PAUSE_SECONDS)
    assert await apns.send(replace(unknown, environment="sandbox")) == TokenGone("BadDeviceToken")


async def test_a_token_is_not_gone_while_the_other_environment_says_nothing(
    stand_in: PushStandIn, apns: Apns
) -> None:
    stand_in.apns.script.play(TOKEN, refuse_apns(400, "BadDeviceToken"), Say(503))
    assert await apns.send(build_delivery()) == Later("status 503")


async def test_a_key_for_one_environment_alone_ends_the_search(stand_in: PushStandIn, apns: Apns) -> None:
    assert await apns.send(build_delivery()) == Accepted("production")
    stand_in.apns.script.play(
        TOKEN, refuse_apns(400, "BadDeviceToken"), refuse_apns(403, "BadEnvironmentKeyIdInToken")
    )
    assert await apns.send(build_delivery()) == TokenGone("BadDeviceToken")


async def test_somebody_in_between_ends_no_search(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.script.play(TOKEN, refuse_apns(400, "BadDeviceToken"), Say(403, b"<html>blocked</html>"))
    assert await apns.send(build_delivery()) == Later("status 403", CONFIGURATION_PAUSE_SECONDS)


async def test_a_token_that_was_given_up_is_gone_since_then(stand_in: PushStandIn, apns: Apns) -> None:
    since = datetime(2026, 10, 1, tzinfo=UTC)
    stand_in.apns.gone[TOKEN] = since
    assert await apns.send(build_delivery()) == TokenGone("Unregistered", since)


@pytest.mark.parametrize("reason", ["ExpiredProviderToken", "InvalidProviderToken"])
async def test_a_refused_provider_token_is_replaced_once_and_the_push_goes_out(
    stand_in: PushStandIn, autojump_clock: MockClock, reason: str
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with open_sender(stand_in, RARELY_LOOKING) as apns:
        assert await apns.send(build_delivery()) == Accepted("production")
        await trio.sleep(RENEWAL_SECONDS)
        stand_in.apns.script.play(TOKEN, refuse_apns(403, reason))
        assert await apns.send(build_delivery()) == Accepted("production")
        assert len(stand_in.apns.provider_tokens) == 2


async def test_a_provider_token_that_was_just_made_is_not_made_again(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.script.play(TOKEN, *[refuse_apns(403, "ExpiredProviderToken")] * 2)
    assert await apns.send(build_delivery()) == Later("ExpiredProviderToken")
    assert await apns.send(build_delivery()) == Later("ExpiredProviderToken")
    assert await apns.send(build_delivery()) == Accepted("production")
    assert len(stand_in.apns.provider_tokens) == 1


async def test_too_many_provider_tokens_make_no_more_of_them(
    stand_in: PushStandIn, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with open_sender(stand_in, RARELY_LOOKING) as apns:
        stand_in.apns.script.play(TOKEN, refuse_apns(429, "TooManyProviderTokenUpdates"))
        assert isinstance(await apns.send(build_delivery()), Later)
        await trio.sleep(10 * RENEWAL_SECONDS)
        stand_in.apns.script.play(TOKEN, refuse_apns(403, "ExpiredProviderToken"))
        assert await apns.send(build_delivery()) == Later("ExpiredProviderToken")
        assert len(stand_in.apns.provider_tokens) == 1


async def test_what_is_wrong_with_our_configuration_is_told_once_until_it_is_mended(
    stand_in: PushStandIn, apns: Apns, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in (2, 1):
        stand_in.apns.script.play(TOKEN, *[refuse_apns(400, "TopicDisallowed")] * steps)
        for _ in range(steps):
            assert await apns.send(build_delivery()) == Later("TopicDisallowed", CONFIGURATION_PAUSE_SECONDS)
        assert await apns.send(build_delivery()) == Accepted("production")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert errors[0].__dict__["reason"] == "TopicDisallowed"


async def test_a_push_that_apns_does_not_take_is_refused_by_its_word(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.script.play(TOKEN, refuse_apns(413, "PayloadTooLarge"))
    assert await apns.send(build_delivery()) == Refused("PayloadTooLarge")


async def test_the_pause_that_apns_asks_for_is_handed_on(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.script.play(TOKEN, Say(503, b'{"reason":"Shutdown"}', {"retry-after": "7"}))
    assert await apns.send(build_delivery()) == Later("Shutdown", 7)


async def test_a_connection_that_is_cut_puts_the_push_off(stand_in: PushStandIn, apns: Apns) -> None:
    assert await apns.send(build_delivery()) == Accepted("production")
    stand_in.apns.script.play(TOKEN, Cut())
    assert isinstance(await apns.send(build_delivery()), Later)
    assert await apns.send(build_delivery()) == Accepted("production")


async def test_a_push_before_which_apns_said_farewell_is_sent_on_the_next_connection(
    stand_in: PushStandIn, apns: Apns
) -> None:
    stand_in.apns.script.play(TOKEN, GoAway("Shutdown"))
    assert await apns.send(build_delivery()) == Accepted("production")
    assert len(stand_in.apns.connections) == 2


async def test_a_push_without_an_answer_is_put_off(
    stand_in: PushStandIn, apns: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apns_module, "SEND_SECONDS", 0.05)
    stand_in.apns.script.play(TOKEN, Silence())
    assert await apns.send(build_delivery()) == Later("APNs did not answer in time")


async def test_while_apns_cannot_be_reached_pushes_are_put_off_at_once(stand_in: PushStandIn, apns: Apns) -> None:
    stand_in.apns.is_away = True
    with trio.fail_after(5):
        for _ in range(3):
            outcome = await apns.send(build_delivery())
            assert isinstance(outcome, Later)
            assert outcome.after_seconds is not None


async def test_nothing_of_a_push_comes_into_the_log(
    stand_in: PushStandIn, apns: Apns, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.WARNING, "hpack"):  # as server/logs.py has it
        stand_in.apns.script.play(TOKEN, refuse_apns(403, "InvalidProviderToken"), Cut())
        for _ in range(3):
            await apns.send(build_delivery())
    shown = " ".join(str(record.__dict__) for record in caplog.records)
    assert "InvalidProviderToken" in shown
    for secret in (TOKEN, "Your plan is ready", *stand_in.apns.provider_tokens):
        assert secret not in shown


def test_addresses_are_read_as_tls_and_http_need_them() -> None:
    context = build_ssl_context(None)
    apple = build_peer("https://api.push.apple.com", context)
    assert (apple.host, apple.port, apple.authority) == ("api.push.apple.com", 443, "api.push.apple.com")
    other = build_peer("https://[::1]:2197", context)
    assert (other.host, other.port, other.authority) == ("::1", 2197, "[::1]:2197")


def test_certificates_are_checked_whoever_is_believed_besides(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    context = build_ssl_context(path)
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == len(build_ssl_context(None).get_ca_certs()) + 1
