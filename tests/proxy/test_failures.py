"""One classification of what goes wrong, in the clients' words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Failed
from proxy.errors import Phase, UpstreamBroken, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from proxy.failures import classify, failed_here, failed_status, failed_upstream

VOCABULARY = {
    "context_length_exceeded",
    "rate_limit_exceeded",
    "authentication_failed",
    "permission_denied",
    "bad_request",
    "not_found",
    "provider_internal_error",
    "provider_gateway_error",
    "provider_unavailable",
    "timeout_error",
    "network_error",
    "external_service_error",
    "content_filter",
}


@pytest.mark.parametrize(
    ("status", "message", "error_type", "error_code", "code"),
    [
        (400, "The maximum context length is 8192 tokens", "invalid_request_error", "", "context_length_exceeded"),
        (400, "too much", "invalid_request_error", "context_length_exceeded", "context_length_exceeded"),
        (400, "Prompt is too long: 300000 tokens", "", "", "context_length_exceeded"),
        (0, "exceeds the context window", "", "", "context_length_exceeded"),
        (500, "could not read the context window of the model", "", "", "provider_internal_error"),
        (413, "", "", "", "context_length_exceeded"),
        (429, "", "", "", "rate_limit_exceeded"),
        (403, "", "insufficient_quota", "", "rate_limit_exceeded"),
        (0, "", "rate_limit_error", "", "rate_limit_exceeded"),
        (400, "", "", "content_filter", "content_filter"),
        (400, "", "", "content_policy_violation", "content_filter"),
        (422, "", "", "", "bad_request"),
        (529, "", "overloaded_error", "", "provider_unavailable"),
        (599, "", "", "", "provider_internal_error"),
        (302, "", "", "", "external_service_error"),
        (0, "", "", "", "external_service_error"),
    ],
)
def test_an_error_has_the_word_that_clients_know(
    status: int, message: str, error_type: str, error_code: str, code: str
) -> None:
    assert classify(status, message, error_type, error_code) == code


@given(st.integers(0, 999), st.text(max_size=30), st.text(max_size=30))
def test_every_error_has_a_word_of_the_vocabulary(status: int, message: str, error_type: str) -> None:
    assert classify(status, message, error_type) in VOCABULARY


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("1.5", 1.5),
        ("86400", 86400),
        *[(text, None) for text in ("86401", "-1", "nan", "inf", "soon", "", "Wed, 21 Oct 2026 07:28:00 GMT")],
    ],
)
def test_retry_after_is_seconds_within_reason(text: str, seconds: float | None) -> None:
    assert failed_status("x", 429, "", "", headers={"retry-after": text}).retry_after_seconds == seconds


def test_a_message_is_cut_and_the_type_falls_back_on_the_code() -> None:
    assert len(failed_status("x", 400, "m" * 10_000, "t" * 10_000).message) == 500
    assert len(failed_status("x", 400, "m" * 10_000, "t" * 10_000).provider_error_type) == 100
    failed = failed_status("x", 400, "", "", "some_code")
    assert failed.provider_error_type == "some_code"
    assert failed.retry_after_seconds is None


@pytest.mark.parametrize("status", [401, 403, 429])
def test_what_concerns_our_own_account_is_not_shown(status: int) -> None:
    failed = failed_status("x", status, "Incorrect API key provided: sk-ab****yz, organization org-7", "auth")
    assert "sk-" not in repr(failed)
    assert "org-7" not in repr(failed)


@pytest.mark.parametrize("phase", ["connect", "write", "response", "idle"])
def test_silence_is_a_timeout(phase: Phase) -> None:
    failed = failed_upstream("x", UpstreamTimedOut("10.1.2.3 was silent", phase))
    assert failed == Failed("timeout_error", "the provider did not answer in time", "x")


@pytest.mark.parametrize("kind", [UpstreamUnreachable, UpstreamBroken, UpstreamError])
def test_a_broken_connection_is_a_network_error_and_names_no_host(kind: type[UpstreamError]) -> None:
    failed = failed_upstream("x", kind("10.1.2.3 cannot be reached"))
    assert (failed.code, failed.status) == ("network_error", 0)
    assert "10.1.2.3" not in failed.message


def test_a_failure_of_ours_has_no_status() -> None:
    assert failed_here("x", "parsing_error", "what?") == Failed("parsing_error", "what?", "x", 0)


def test_our_ids_are_not_told_and_the_rest_of_the_message_is() -> None:
    message = "Rate limit reached for gpt-4.1 in organization org-AbCdEf123456 on tokens per min: slow down"
    failed = failed_status("openai", 429, message, "tokens")
    assert failed.message == "Rate limit reached for gpt-4.1 in organization … on tokens per min: slow down"
