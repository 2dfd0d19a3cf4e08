"""What Google says when something is wrong."""

import json
from typing import Any

import pytest

from proxy.dialects.gemini.errors import read_refusal
from proxy.events import Failed


def refuse(status: int, error: object, headers: dict[str, str] | None = None) -> Failed:
    return read_refusal("google", status, headers or {}, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (400, "INVALID_ARGUMENT", "bad_request"),
        (400, "FAILED_PRECONDITION", "bad_request"),
        (403, "PERMISSION_DENIED", "permission_denied"),
        (404, "NOT_FOUND", "not_found"),
        (429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded"),
        (500, "INTERNAL", "provider_internal_error"),
        (503, "UNAVAILABLE", "provider_unavailable"),
        (504, "DEADLINE_EXCEEDED", "timeout_error"),
    ],
)
def test_each_status_has_its_code(status: int, name: str, code: str) -> None:
    failed = refuse(status, {"code": status, "message": "No.", "status": name})
    assert (failed.code, failed.status, failed.provider_error_type) == (code, status, name)


def test_a_prompt_that_is_too_long_says_by_how_much() -> None:
    message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    failed = refuse(400, {"code": 400, "message": message, "status": "INVALID_ARGUMENT"})
    assert failed.code == "context_length_exceeded"
    assert (failed.requested_tokens, failed.model_limit) == (1_200_000, 1_048_576)
    assert failed.provider_error_type == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "error",
    [
        {"message": "API key not valid. Please pass a valid API key."},
        {"message": "Refused.", "details": [{"reason": "API_KEY_INVALID"}]},
        {"message": "API key expired. Please renew the API key."},
    ],
)
def test_a_key_that_is_not_taken_is_ours_though_google_calls_it_a_bad_request(error: dict[str, Any]) -> None:
    failed = refuse(400, {"code": 400, "status": "INVALID_ARGUMENT", **error})
    assert (failed.code, failed.status) == ("authentication_failed", 400)
    assert "API key" not in failed.message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Quota of consumer 'project_number:4711' is out", "Quota of consumer '…' is out"),
        ("see projects/my-app-17 there", "see … there"),
        ("used in project 4711 before", "used in project… before"),
        ("at ?project=4711 now", "at ?project… now"),
        ("key AIzaSyA-b_c is odd", "key … is odd"),
        ("your project has a plan", "your project has a plan"),
    ],
)
def test_a_message_does_not_name_our_project_or_key(message: str, shown: str) -> None:
    assert refuse(429, {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}).message == shown


@pytest.mark.parametrize(
    ("details", "headers", "seconds"),
    [
        ([{"@type": "x"}, {"retryDelay": "48s"}], {}, 48.0),
        ([{"retryDelay": "0.5s"}], {}, 0.5),
        ([{"retryDelay": "48s"}], {"retry-after": "3"}, 48.0),
        ([{"retryDelay": "soon"}, 5, None], {"retry-after": "3"}, 3.0),
        ([{"retryDelay": "99999999999s"}], {}, None),
        ([{"retryDelay": "-1s"}], {}, None),
        ("none", {}, None),
        (None, {}, None),
    ],
)
def test_how_long_to_wait_stands_in_the_body(details: object, headers: dict[str, str], seconds: float | None) -> None:
    failed = refuse(429, {"code": 429, "message": "Slow down", "details": details}, headers)
    assert failed.retry_after_seconds == seconds


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", b'{"error":null}', b"[{}]", b'{"error":' * 100_000, b'{"error":5}']
)
def test_a_refusal_without_words_is_known_by_its_status(body: bytes) -> None:
    failed = read_refusal("google", 502, {}, body)
    assert (failed.code, failed.message) == ("provider_gateway_error", "the provider answered with status 502")


def test_a_refusal_may_be_a_word() -> None:
    assert refuse(401, "invalid_grant").code == "authentication_failed"
    assert refuse(418, "teapot").message == "teapot"
