"""The table of errors: what each becomes, in the one envelope that every client decodes."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from proxy import errors as proxy_errors
from proxy.events import Failed
from proxy.media import MediaRefused
from server import errors
from server.errors import (
    ArgumentInvalid,
    BodyTooLarge,
    ChoiceUnknown,
    ConsentRequired,
    IssuerUnavailable,
    LimitExceeded,
    MediaUnreadable,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Problem,
    ProviderFailed,
    RequestCancelled,
    RequestInvalid,
    SignInRefused,
    UploadsUnavailable,
    UploadTooSlow,
    VersionConflict,
    describe,
    describe_status,
    envelope,
    error_details,
)
from storage.api_keys import TooManyKeys
from storage.credits import BalanceTooLow, RequestRepeated, UserUnknown
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.rate_limits import Verdict
from storage.sign_ins import AccountInUse

TOKEN_LIMIT_PHRASES = ("maximum context length", "context window exceeded", "too many tokens", "is too long")
DESKTOP_TYPES = {
    "authentication_error",
    "bad_request",
    "billing_address_required",
    "configuration_error",
    "credit_insufficient",
    "customer_billing_conflict",
    "database_error",
    "external_service_error",
    "internal_error",
    "invalid_argument",
    "network_error",
    "not_found",
    "payment_declined",
    "payment_method_required",
    "rate_limit_error",
    "spending_limit_exceeded",
    "timeout_error",
    "unauthorized",
    "validation_error",
}
"""What the desktop maps to words of its own; it shows others as a generic error with status and message."""


def problem_of(error: Exception) -> Problem:
    problem = describe(error)
    assert problem is not None
    return problem


def build_verdict(**seconds: float) -> Verdict:
    return Verdict(is_granted=False, budget=0, limit=60, remaining=0, drawn_at=0, **seconds)


@pytest.mark.parametrize(
    ("error", "status", "error_type", "message"),
    [
        (NotAuthenticated("who?"), 401, "authentication_error", "Authentication error: who?"),
        (SignInRefused("over"), 401, "unauthorized", "Unauthorized: over"),
        (NotFound("gone"), 404, "not_found", "Not found: gone"),
        (ChoiceUnknown("this or that"), 400, "bad_request", "Bad request: this or that"),
        (ConsentRequired("agree first"), 403, "consent_required", "Consent required: agree first"),
        (UserUnknown("no user"), 404, "not_found", "Not found: no user"),
        (TooManyKeys("full"), 409, "already_exists", "Already exists: full"),
        (AccountInUse("wait"), 409, "customer_billing_conflict", "Billing conflict: wait"),
        (NotAllowed("no"), 403, "forbidden", "Forbidden: no"),
        (RequestInvalid("n: why"), 400, "validation_error", "Validation error: n: why"),
        (ArgumentInvalid("a: why"), 400, "invalid_argument", "Invalid argument: a: why"),
        (VersionConflict("a: newer"), 409, "conflict", "Conflict: a: newer"),
        (BodyTooLarge("big"), 413, "payload_too_large", "Payload too large: big"),
        (UploadTooSlow("slow"), 408, "timeout_error", "Request timeout: slow"),
        (MediaUnreadable("noise"), 400, "validation_error", "Validation error: noise"),
        (MediaRefused("m"), 400, "validation_error", "Validation error: m"),
        (proxy_errors.RequestNotSupported("r"), 400, "bad_request", "Bad request: r"),
        (proxy_errors.ModelNotPriced("m"), 503, "configuration_error", "Configuration error: m"),
        (proxy_errors.ProviderNotConfigured("k"), 503, "configuration_error", "Configuration error: k"),
        (RequestRepeated("again"), 409, "already_exists", "Already exists: again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_condition_has_its_status_type_and_label(
    error: Exception, status: int, error_type: str, message: str
) -> None:
    assert problem_of(error) == Problem(status, error_type, message)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            proxy_errors.ContextWindowExceeded("c"),
            Problem(400, "bad_request", "Bad request: c", reason="context_length_exceeded"),
        ),
        (proxy_errors.ModelUnknown("m"), Problem(404, "not_found", "Not found: m", reason="model_not_found")),
    ],
    ids=["context", "model"],
)
def test_what_programs_look_for_has_its_own_word_beside_the_type(error: Exception, expected: Problem) -> None:
    assert problem_of(error) == expected


def test_libraries_do_not_ask_again_for_what_their_user_has_called_off() -> None:
    problem = problem_of(RequestCancelled("stop"))
    assert problem == Problem(
        409, "request_cancelled", "Request cancelled: stop", headers={"X-Should-Retry": "false"}
    )


def test_too_little_credit_says_how_much_is_missing() -> None:
    problem = problem_of(BalanceTooLow(Decimal("0.5"), Decimal("0.25")))
    assert (problem.status, problem.error_type) == (402, "credit_insufficient")
    assert problem.message.startswith("Insufficient credits: ")
    assert "0.5 USD" in problem.message
    assert "0.25 USD" in problem.message


@pytest.mark.parametrize("error", [DatabaseUnavailable, RedisUnavailable])
def test_stores_that_are_away_are_never_the_callers_fault_and_tell_nothing_of_themselves(
    error: type[Exception],
) -> None:
    problem = problem_of(error("role cloche_server on 10.0.0.7: password authentication failed"))
    assert (problem.status, problem.error_type, problem.headers) == (503, "database_error", {"Retry-After": "2"})
    assert "10.0.0.7" not in problem.message
    assert "try again" in problem.message


def test_where_there_is_no_room_for_a_file_nothing_is_told_of_the_disk() -> None:
    problem = problem_of(UploadsUnavailable("a client's file cannot be kept: Read-only file system"))
    message = "Uploads unavailable: there is no room for the file right now; try again soon"
    assert problem == Problem(503, "internal_error", message, headers={"Retry-After": "30"})



def test_an_issuer_that_is_away_is_a_503_that_tells_nothing_of_it() -> None:
    problem = problem_of(IssuerUnavailable("https://tenant.example: connection refused"))
    assert (problem.status, problem.error_type) == (503, "external_service_error")
    assert problem.headers == {"Retry-After": "5"}
    assert "tenant" not in problem.message


def test_who_has_had_enough_is_told_for_how_long() -> None:
    problem = problem_of(LimitExceeded(build_verdict(retry_after_seconds=12.1, reset_seconds=47.5), 60))
    assert (problem.status, problem.error_type, problem.reason) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert problem.message == "Too many requests: the limit is 60 in 60 seconds; try again in 13 seconds"
    assert problem.headers == {
        "Retry-After": "13",
        "RateLimit-Limit": "60",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "48",
    }


def test_nobody_is_told_to_try_again_at_once() -> None:
    problem = problem_of(LimitExceeded(build_verdict(retry_after_seconds=0, reset_seconds=0), 1))
    assert problem.headers["Retry-After"] == "1"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_a_fault_of_ours_is_in_no_table(error: Exception) -> None:
    assert describe(error) is None


def test_a_kind_of_a_listed_error_is_described_like_it() -> None:
    class Special(RequestInvalid): ...

    assert problem_of(Special("x")).status == 400


# What the framework finds


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, "bad_request"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (408, "timeout_error"),
        (413, "payload_too_large"),
        (415, "validation_error"),
        (418, "bad_request"),
        (429, "rate_limit_error"),
        (500, "internal_error"),
        (599, "internal_error"),
    ],
)
def test_a_status_becomes_a_problem(status: int, error_type: str) -> None:
    problem = describe_status(status, "why", {"Allow": "GET"})
    assert (problem.status, problem.error_type, problem.headers) == (status, error_type, {"Allow": "GET"})
    assert problem.message.endswith(": why")


# The envelope


def test_every_error_has_both_spellings() -> None:
    assert msgspec.to_builtins(envelope(Problem(404, "not_found", "Not found: x"))) == {
        "code": 404,
        "message": "Not found: x",
        "error_type": "not_found",
        "errorType": "not_found",
    }


def test_a_401_has_the_member_that_older_clients_search() -> None:
    body = msgspec.to_builtins(envelope(problem_of(NotAuthenticated("Device ID mismatch"))))
    assert body["error"] == body["message"] == "Authentication error: Device ID mismatch"


def test_details_come_in_both_spellings() -> None:
    body = msgspec.to_builtins(envelope(Problem(429, "x", "y", {"code": "z"})))
    assert body["error_details"] == body["errorDetails"] == {"code": "z"}


# Providers


def build_failed(code: str, **others: object) -> Failed:
    return Failed(code, "Words for a user", "openai", **others)  # type: ignore[arg-type] # members of Failed


@pytest.mark.parametrize(
    ("code", "status", "error_type", "label"),
    [
        ("rate_limit_exceeded", 429, "rate_limit_error", "Too many requests"),
        ("context_length_exceeded", 400, "bad_request", "Bad request"),
        ("content_filter", 400, "bad_request", "Bad request"),
        ("bad_request", 400, "bad_request", "Bad request"),
        ("timeout_error", 504, "timeout_error", "External service error"),
        ("network_error", 502, "network_error", "External service error"),
        ("provider_unavailable", 503, "external_service_error", "External service error"),
        ("internal_error", 500, "internal_error", "Internal error"),
        ("authentication_failed", 502, "external_service_error", "External service error"),
        ("permission_denied", 502, "external_service_error", "External service error"),
        ("something new", 502, "external_service_error", "External service error"),
    ],
)
def test_a_providers_failure_has_a_status_that_does_not_blame_the_caller_and_the_label_of_its_type(
    code: str, status: int, error_type: str, label: str
) -> None:
    problem = problem_of(ProviderFailed(build_failed(code, status=401)))
    assert (problem.status, problem.error_type) == (status, error_type)
    assert problem.message.startswith(f"{label}: Words for a user")
    assert problem.details is not None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("content_filter", "content_filter"),
        ("authentication_failed", ""),
        ("something new", ""),
    ],
)
def test_programs_are_told_the_reason_where_the_provider_is_not_alone_to_blame(code: str, reason: str) -> None:
    assert problem_of(ProviderFailed(build_failed(code))).reason == reason


def test_too_long_a_prompt_is_said_in_words_that_the_desktop_searches_by_status_and_in_a_stream() -> None:
    failed = build_failed("context_length_exceeded")
    for message in (problem_of(ProviderFailed(failed)).message, str(error_details(failed)["message"])):
        assert any(phrase in message.lower() for phrase in TOKEN_LIMIT_PHRASES)


def test_the_limit_that_was_passed_is_told_as_openai_tells_it() -> None:
    failed = build_failed("context_length_exceeded", model_limit=8192)
    message = problem_of(ProviderFailed(failed)).message
    assert message.endswith("(context window exceeded: this model's maximum context length is 8192 tokens)")


@pytest.mark.parametrize(
    ("asked", "headers"), [(None, {}), (0.1, {"Retry-After": "1"}), (12.4, {"Retry-After": "12"})]
)
def test_what_a_provider_asks_to_wait_is_passed_on(asked: float | None, headers: Mapping[str, str]) -> None:
    assert problem_of(ProviderFailed(build_failed("rate_limit_exceeded", retry_after_seconds=asked))).headers == headers


def test_details_have_every_member_that_ios_requires() -> None:
    assert error_details(build_failed("network_error")) == {
        "code": "network_error",
        "message": "Words for a user",
        "fallbackAttempted": False,
        "providerError": {
            "provider": "openai",
            "statusCode": 0,
            "errorType": "network_error",
            "details": "Words for a user",
        },
    }


def test_details_tell_of_a_fallback_and_of_the_limit_that_was_passed() -> None:
    failed = build_failed("context_length_exceeded", fallback_attempted=True, model_limit=8192, requested_tokens=9000)
    details = error_details(failed)
    assert details["fallbackAttempted"] is True
    assert details["providerError"] == {
        "provider": "openai",
        "statusCode": 0,
        "errorType": "context_length_exceeded",
        "details": "Words for a user",
        "context": {"requestedTokens": 9000, "modelLimit": 8192},
    }
    only_limit: Any = error_details(build_failed("context_length_exceeded", model_limit=8192))["providerError"]
    assert only_limit["context"] == {"modelLimit": 8192}


def test_what_no_provider_failed_at_names_none() -> None:
    assert error_details(Failed("content_filter", "Blocked", "")).keys() == {"code", "message", "fallbackAttempted"}


def test_the_desktop_knows_most_of_our_types() -> None:
    kinds = [*errors._TABLE.values(), *errors._BY_STATUS.values(), *errors._PROVIDER_KINDS.values()]
    ours = {kind.error_type for kind in kinds}
    assert ours - DESKTOP_TYPES == {
        "already_exists",
        "conflict",
        "consent_required",
        "forbidden",
        "method_not_allowed",
        "payload_too_large",
        "request_cancelled",
    }
