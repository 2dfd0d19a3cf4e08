"""One classification of what goes wrong, in the clients' words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import counts_against
from proxy.errors import (
    FileNotReady,
    FileUnreadable,
    Phase,
    RequestNotSendable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from proxy.events import Failed
from proxy.failures import classify, failed_here, failed_status, failed_upstream, is_transient, may_be_the_key

TOO_LONG = "context_length_exceeded"
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
        (429, "check your plan and billing details", "insufficient_quota", "", "provider_unavailable"),
        (0, "", "rate_limit_error", "", "rate_limit_exceeded"),
        (400, "", "", "content_filter", "content_filter"),
        (400, "", "", "content_policy_violation", "content_filter"),
        (422, "", "", "", "bad_request"),
        (529, "", "overloaded_error", "", "provider_unavailable"),
        (599, "", "", "", "provider_internal_error"),
        (302, "", "", "", "external_service_error"),
        (0, "", "", "", "external_service_error"),
        (0, "", "overloaded_error", "", "provider_unavailable"),
        (200, "", "api_error", "", "provider_internal_error"),
        (0, "", "", "RESOURCE_EXHAUSTED", "rate_limit_exceeded"),
        (400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", "", "authentication_failed"),
        (0, "", "invalid_request_error", "", "bad_request"),
        (400, "", "not_found_error", "", "bad_request"),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8)", "", "", TOO_LONG),
        (400, "This model's maximum prompt length is 8 but the request contains 9 tokens.", "", "", TOO_LONG),
        (400, "The response was filtered by our content management policy", "", "", "content_filter"),
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


def test_a_file_that_cannot_be_used_is_told_and_does_not_speak_against_the_provider() -> None:
    """Else one client with strange files could close a model to all others."""
    for error, code in ((FileNotReady("10.1.2.3"), "external_service_error"), (FileUnreadable("f"), "bad_request")):
        failed = failed_upstream("x", error)
        assert failed.code == code
        assert "the file" in failed.message
        assert not counts_against(failed)


def test_a_failure_of_ours_has_no_status() -> None:
    assert failed_here("x", "parsing_error", "what?") == Failed("parsing_error", "what?", "x", 0)


@pytest.mark.parametrize(
    ("message", "limit", "requested"),
    [
        ("maximum context length is 8,192 tokens. However, your messages resulted in 9000 tokens.", 8192, 9000),
        ("maximum context length is 8192 tokens. However, you requested 9001 tokens (8000 in the…", 8192, 9001),
        ("maximum context length is 8192 tokens", 8192, None),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200_000, 210_000),
        ("The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).", 2**20, 1_100_000),
        ("This model's maximum prompt length is 131072 but the request contains 140000 tokens.", 131_072, 140_000),
        ("input length and `max_tokens` exceed context limit: 190000 + 21333 > 200000, decrease", 200_000, 211_333),
        ("prompt is too long", None, None),
        ("maximum context length is 99999999999999999999 tokens", None, None),
    ],
)
def test_how_far_a_prompt_is_too_long_is_read_from_the_message(
    message: str, limit: int | None, requested: int | None
) -> None:
    failed = failed_status("x", 400, message, "")
    assert failed.code == TOO_LONG
    assert (failed.model_limit, failed.requested_tokens) == (limit, requested)


@pytest.mark.parametrize(
    ("failed", "is_it", "key"),
    [
        (failed_status("x", 429, "", ""), True, False),
        (failed_status("x", 409, "", ""), True, False),
        (failed_status("x", 408, "", ""), True, False),
        (failed_status("x", 529, "", ""), True, False),
        (failed_status("x", 0, "", "overloaded_error"), True, False),
        (failed_upstream("x", UpstreamBroken("")), True, False),
        (failed_upstream("x", UpstreamTimedOut("", "idle")), True, False),
        (failed_upstream("x", RequestNotSendable("")), False, False),
        (failed_upstream("x", FileNotReady("")), False, False),
        (failed_upstream("x", FileUnreadable("")), False, False),
        (failed_status("x", 400, "", ""), False, False),
        (failed_status("x", 404, "", ""), False, False),
        (failed_status("x", 400, "too many tokens", ""), False, False),
        (failed_status("x", 401, "", ""), False, True),
        (failed_status("x", 403, "", ""), False, True),
        (failed_status("x", 0, "", ""), False, False),
        (failed_here("x", "parsing_error", ""), False, False),
    ],
)
def test_only_what_may_pass_is_transient(failed: Failed, is_it: bool, key: bool) -> None:
    assert (is_transient(failed), may_be_the_key(failed)) == (is_it, key)


@pytest.mark.parametrize(
    ("status", "message", "error_type"),
    [
        (400, "Your credit balance is too low to access the Anthropic API.", "invalid_request_error"),
        (402, "Insufficient credits. Add more", ""),
        (402, "This request requires more credits, or fewer max_tokens. You can only afford 3395.", ""),
        (402, "Prompt tokens limit exceeded: 230799 > 91442. To increase, visit our settings", ""),
        (403, "Your newly created team doesn't have any credits or licenses yet.", ""),
        (429, "Your team 16f2 has either used all available credits or reached its monthly spending limit.", ""),
        (0, "pay up", "billing_error"),
    ],
)
def test_what_we_owe_a_provider_is_told_to_nobody_and_another_can_answer(
    status: int, message: str, error_type: str
) -> None:
    failed = failed_status("x", status, message, error_type)
    assert failed.code == "provider_unavailable"
    assert message not in failed.message
    assert is_transient(failed)


def test_the_time_to_wait_may_be_in_milliseconds_or_in_the_body() -> None:
    headers = {"retry-after-ms": "1500", "retry-after": "2"}
    assert failed_status("x", 429, "", "", headers=headers).retry_after_seconds == 1.5
    assert failed_status("x", 429, "", "", headers=headers, retry_after_seconds=31).retry_after_seconds == 31


@pytest.mark.parametrize("id_", ["org-AbCdEf123456", "0dccdde6-f924-4f1b-bb3b-92ef846e0a5b", "project_number:4711"])
def test_our_ids_are_not_told_and_the_rest_of_the_message_is(id_: str) -> None:
    message = f"Rate limit reached for gpt-4.1 in organization ({id_}) on tokens per min: slow down"
    failed = failed_status("openai", 429, message, "tokens")
    assert failed.message == "Rate limit reached for gpt-4.1 in organization (…) on tokens per min: slow down"
