"""What becomes of a push, for every answer of Google's documentation and for those of others in between."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.push.fcm_answers import (
    CONFIGURATION_PAUSE_SECONDS,
    QUOTA_PAUSE_SECONDS,
    find_outcome,
    is_our_configuration,
    read_answer,
)
from server.push.outcomes import Accepted, Later, Outcome, Refused, TokenGone
from tests.server.push.fcm_samples import BAD_REQUEST, FCM_ERROR, MESSAGE_NAME, error_body, fcm_error

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
JSON = {"content-type": "application/json; charset=UTF-8"}
PAGE = b"<!DOCTYPE html><title>Error</title>"
NO_TOKEN = "The registration token is not a valid FCM registration token"


def judge(status: int, body: bytes | None, headers: dict[str, str] | None = None) -> Outcome:
    return find_outcome(read_answer(status, JSON | (headers or {}), body, NOW))


def field_violation(field: str) -> bytes:
    violation = {"@type": BAD_REQUEST, "fieldViolations": [{"field": field, "description": "Invalid"}]}
    return error_body(400, "INVALID_ARGUMENT", violation, {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"})


def test_a_message_that_has_a_name_is_accepted() -> None:
    assert judge(200, json.dumps({"name": MESSAGE_NAME}).encode()) == Accepted()


def test_the_head_of_an_acknowledgement_counts_if_its_body_broke_off() -> None:
    assert judge(200, None) == Accepted()
    assert judge(200, None, {"content-type": "text/html"}) == Later("status 200")


@pytest.mark.parametrize("body", [PAGE, b"", b"{}", b"[]", b'{"name": 1}', b'{"name": "captive portal"}'])
def test_a_200_of_somebody_else_acknowledges_nothing(body: bytes) -> None:
    assert judge(200, body) == Later("status 200")


@pytest.mark.parametrize(
    ("status", "rpc_code", "fcm_code", "outcome"),
    [
        (404, "NOT_FOUND", "UNREGISTERED", TokenGone("UNREGISTERED")),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", TokenGone("SENDER_ID_MISMATCH")),
        (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", Refused("INVALID_ARGUMENT")),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", Later("QUOTA_EXCEEDED", QUOTA_PAUSE_SECONDS)),
        (503, "UNAVAILABLE", "UNAVAILABLE", Later("UNAVAILABLE")),
        (500, "INTERNAL", "INTERNAL", Later("INTERNAL")),
        (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", Later("THIRD_PARTY_AUTH_ERROR", 300.0)),
        (500, "INTERNAL", "UNSPECIFIED_ERROR", Later("UNSPECIFIED_ERROR")),
        (400, "INVALID_ARGUMENT", "UNSPECIFIED_ERROR", Refused("UNSPECIFIED_ERROR")),
    ],
)
def test_every_code_of_fcm_has_its_outcome(status: int, rpc_code: str, fcm_code: str, outcome: Outcome) -> None:
    assert judge(status, fcm_error(status, rpc_code, fcm_code)) == outcome


@pytest.mark.parametrize(
    "body",
    [
        error_body(400, "INVALID_ARGUMENT", {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}, message=NO_TOKEN),
        field_violation("message.token"),
    ],
)
def test_an_invalid_argument_that_is_the_token_takes_the_token(body: bytes) -> None:
    assert judge(400, body) == TokenGone("INVALID_ARGUMENT")


@pytest.mark.parametrize("field", ["message.data[0].value", "message.token_count", "message", "message.android.ttl"])
def test_an_invalid_argument_that_is_not_the_token_leaves_it(field: str) -> None:
    assert judge(400, field_violation(field)) == Refused("INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, error_body(401, "UNAUTHENTICATED")),
        (403, error_body(403, "PERMISSION_DENIED")),
        (404, error_body(404, "NOT_FOUND")),
        (404, PAGE),
        (403, PAGE),
        (302, PAGE),
        (400, error_body(400, "FAILED_PRECONDITION")),
    ],
)
def test_what_the_operator_has_to_mend_waits_long_and_takes_no_token(status: int, body: bytes) -> None:
    answer = read_answer(status, JSON, body, NOW)
    assert is_our_configuration(answer)
    outcome = find_outcome(answer)
    assert isinstance(outcome, Later)
    assert outcome.after_seconds == CONFIGURATION_PAUSE_SECONDS


@pytest.mark.parametrize("status", [400, 408, 413, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body",
    [PAGE, b"", b"\xff", pytest.param(b"[" * 5000, id="deep"), b'{"error": "no"}', b'{"error": {"details": 7}}', None],
)
def test_pages_of_those_in_between_pass(status: int, body: bytes | None) -> None:
    assert judge(status, body) == Later(f"status {status}")


def test_what_the_operator_mends_is_no_fault_of_a_token_or_a_quota() -> None:
    for status, rpc_code, fcm_code in [
        (404, "NOT_FOUND", "UNREGISTERED"),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
    ]:
        assert not is_our_configuration(read_answer(status, JSON, fcm_error(status, rpc_code, fcm_code), NOW))


@pytest.mark.parametrize(("status", "fcm_code"), [(429, "QUOTA_EXCEEDED"), (503, "UNAVAILABLE"), (500, "INTERNAL")])
def test_google_says_how_long_to_wait(status: int, fcm_code: str) -> None:
    body = fcm_error(status, "SCRIPTED", fcm_code)
    assert judge(status, body, {"retry-after": "90"}) == Later(fcm_code, 90.0)
    assert judge(status, body, {"retry-after": "Tue, 03 Feb 2026 04:07:06 GMT"}) == Later(fcm_code, 120.0)


def test_the_longer_of_two_pauses_counts() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "42.5s"}
    body = error_body(503, "UNAVAILABLE", delay)
    assert judge(503, body) == Later("UNAVAILABLE", 42.5)
    assert judge(503, body, {"retry-after": "7"}) == Later("UNAVAILABLE", 42.5)
    assert judge(503, body, {"retry-after": "70"}) == Later("UNAVAILABLE", 70.0)


@pytest.mark.parametrize(("delay", "seconds"), [("99999s", 3600.0), ("-5s", None), ("soon", None), (7, None)])
def test_a_pause_in_the_body_counts_up_to_an_hour(delay: object, seconds: float | None) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    assert judge(503, error_body(503, "UNAVAILABLE", detail)) == Later("UNAVAILABLE", seconds)


def test_a_429_without_a_pause_waits_for_the_quota() -> None:
    assert judge(429, PAGE) == Later("status 429", QUOTA_PAUSE_SECONDS)
    assert judge(429, PAGE, {"retry-after": "0"}) == Later("status 429", QUOTA_PAUSE_SECONDS)


def test_no_word_but_a_code_is_repeated() -> None:
    body = error_body(503, "sent to bk3RNwTe3H0", {"@type": FCM_ERROR, "errorCode": "the token bk3RNwTe3H0"})
    assert judge(503, body) == Later("status 503")


WORDS = st.sampled_from(["UNREGISTERED", "INVALID_ARGUMENT", "type.googleapis.com/google.rpc.BadRequest", FCM_ERROR])
NAMES = st.sampled_from(["error", "details", "@type", "errorCode", "status", "message", "fieldViolations", "field"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(status=st.integers(200, 599), value=ANYTHING, retry_after=st.text(max_size=12))
def test_whatever_comes_is_an_outcome(status: int, value: object, retry_after: str) -> None:
    headers = {"retry-after": retry_after}
    outcome = find_outcome(read_answer(status, headers, json.dumps({"error": value}).encode(), NOW))
    assert isinstance(outcome, Accepted | TokenGone | Later | Refused)
