"""APNs's answers, all that its documentation has, and those of others in its place."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.push.apns_answers import (
    CONFIGURATION_PAUSE_SECONDS,
    TOKEN_UPDATES_PAUSE_SECONDS,
    ApnsAnswer,
    find_outcome,
    find_remedy,
    is_our_configuration,
    read_answer,
    read_reason,
)
from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from tests.server.push.apns_samples import NOW

GONE = [(400, "BadDeviceToken"), (400, "DeviceTokenNotForTopic"), (410, "ExpiredToken"), (410, "Unregistered")]
CONFIGURATION = [
    *((400, reason) for reason in ("BadTopic", "MissingTopic", "TopicDisallowed")),
    *((403, reason) for reason in ("BadCertificate", "BadCertificateEnvironment", "Forbidden", "InvalidProviderToken")),
    *((403, reason) for reason in ("MissingProviderToken", "UnrelatedKeyIdInToken", "BadEnvironmentKeyIdInToken")),
    (403, "BadEnvironmentKeyInToken"),
    (403, "SomethingNew"),
]
PASSING = [
    *((400, "IdleTimeout"), (403, "ExpiredProviderToken"), (429, "TooManyRequests"), (500, "InternalServerError")),
    *((503, "ServiceUnavailable"), (503, "Shutdown"), (502, ""), (429, "")),
]
REFUSED = [
    *((400, reason) for reason in ("BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority")),
    *((400, reason) for reason in ("PayloadEmpty", "DuplicateHeaders", "InvalidPushType", "MissingDeviceToken")),
    *((404, "BadPath"), (405, "MethodNotAllowed"), (413, "PayloadTooLarge"), (400, "SomethingNew")),
]


def judge(status: int, reason: str = "", **headers: str) -> Outcome:
    body = b'{"reason":"%s"}' % reason.encode() if reason else b""
    return find_outcome(read_answer(status, headers, body, NOW), "sandbox")


def test_a_push_is_accepted_where_it_was_sent() -> None:
    assert judge(200) == Accepted("sandbox")


@pytest.mark.parametrize(("status", "reason"), GONE)
def test_a_token_that_reaches_nobody_is_gone(status: int, reason: str) -> None:
    assert judge(status, reason) == TokenGone(reason)


def test_a_token_is_gone_since_apns_noticed() -> None:
    answer = read_answer(410, {}, b'{"reason":"Unregistered","timestamp":1793534400123}', NOW)
    since = datetime(2026, 11, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    assert find_outcome(answer, "production") == TokenGone("Unregistered", since)


@pytest.mark.parametrize("timestamp", ["null", '"yesterday"', "true", "1e300", "-1e300", "99999999999999999999", "[]"])
def test_a_timestamp_that_is_none_is_left_out(timestamp: str) -> None:
    body = b'{"reason":"Unregistered","timestamp":%s}' % timestamp.encode()
    outcome = find_outcome(read_answer(410, {}, body, NOW), "production")
    assert isinstance(outcome, TokenGone)
    assert outcome.since is None


def test_who_says_gone_without_a_word_is_not_apns_and_ends_no_token() -> None:
    assert judge(410) == Later("status 410", CONFIGURATION_PAUSE_SECONDS)
    assert is_our_configuration(ApnsAnswer(410))


@pytest.mark.parametrize(("status", "reason"), CONFIGURATION)
def test_while_our_configuration_is_wrong_pushes_wait_for_long(status: int, reason: str) -> None:
    assert judge(status, reason) == Later(reason, CONFIGURATION_PAUSE_SECONDS)
    assert is_our_configuration(ApnsAnswer(status, reason))


@pytest.mark.parametrize(("status", "reason"), PASSING)
def test_what_passes_is_tried_again(status: int, reason: str) -> None:
    assert judge(status, reason) == Later(reason or f"status {status}")
    assert not is_our_configuration(ApnsAnswer(status, reason))


@pytest.mark.parametrize(("status", "reason"), REFUSED)
def test_what_is_wrong_with_a_push_is_never_tried_again(status: int, reason: str) -> None:
    assert judge(status, reason) == Refused(reason)
    assert not is_our_configuration(ApnsAnswer(status, reason))


def test_too_many_provider_tokens_are_waited_for() -> None:
    assert judge(429, "TooManyProviderTokenUpdates") == Later(
        "TooManyProviderTokenUpdates", TOKEN_UPDATES_PAUSE_SECONDS
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_pause_that_apns_asks_for_is_kept(status: int) -> None:
    assert judge(status, "ServiceUnavailable", **{"retry-after": "17"}) == Later("ServiceUnavailable", 17)


@pytest.mark.parametrize("status", [0, 301, 400, 404, 407, 413, 600])
def test_an_answer_that_is_not_apnss_refuses_nothing(status: int) -> None:
    """Of what stands in between, or of another server: the push waits."""
    answer = read_answer(status, {}, b"<html>no</html>", NOW)
    outcome = find_outcome(answer, "production")
    assert isinstance(outcome, Later)
    assert outcome.reason == f"status {status}"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("BadDeviceToken", "other_environment"),
        ("ExpiredProviderToken", "new_token"),
        ("InvalidProviderToken", "new_token"),
        ("Unregistered", None),
        ("", None),
    ],
)
def test_what_may_help_at_once(reason: str, remedy: str | None) -> None:
    assert find_remedy(ApnsAnswer(400, reason)) == remedy


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"null", b'{"reason":7}', b'{"reason":"a b"}', b"\xff", b"[" * 9999]
)
def test_a_reason_is_a_word_or_nothing(body: bytes) -> None:
    """What somebody else writes there must not come into a log."""
    assert read_reason(body) == ""


@given(st.integers(0, 999), st.binary(), st.text())
def test_every_answer_has_an_outcome(status: int, body: bytes, retry_after: str) -> None:
    outcome = find_outcome(read_answer(status, {"retry-after": retry_after}, body, NOW), "production")
    assert isinstance(outcome, Accepted) == (200 <= status < 300)
