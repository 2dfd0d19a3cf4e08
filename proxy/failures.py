"""One classification of what goes wrong with a provider, in the words that the clients know."""

import re
from collections.abc import Mapping

from proxy.errors import (
    FileNotReady,
    FileUnreadable,
    RequestNotSendable,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from proxy.events import Failed

_BY_STATUS = {
    400: "bad_request",
    401: "authentication_failed",
    403: "permission_denied",
    404: "not_found",
    408: "timeout_error",
    413: "context_length_exceeded",
    422: "bad_request",
    429: "rate_limit_exceeded",
    500: "provider_internal_error",
    502: "provider_gateway_error",
    503: "provider_unavailable",
    504: "timeout_error",
    529: "provider_unavailable",
}
_BY_WORD = {
    "context_length_exceeded": "context_length_exceeded",
    "rate_limit_exceeded": "rate_limit_exceeded",
    "rate_limit_error": "rate_limit_exceeded",
    "insufficient_quota": "rate_limit_exceeded",
    "resource_exhausted": "rate_limit_exceeded",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "overloaded_error": "provider_unavailable",
    "server_is_overloaded": "provider_unavailable",
    "unavailable": "provider_unavailable",
    "api_error": "provider_internal_error",
    "server_error": "provider_internal_error",
    "internal_error": "provider_internal_error",
    "internal": "provider_internal_error",
    "timeout_error": "timeout_error",
    "deadline_exceeded": "timeout_error",
    "authentication_error": "authentication_failed",
    "invalid_api_key": "authentication_failed",
    "unauthenticated": "authentication_failed",
    "permission_error": "permission_denied",
    "permission_denied": "permission_denied",
    "billing_error": "provider_unavailable",
    "not_found_error": "not_found",
    "model_not_found": "not_found",
    "not_found": "not_found",
    "invalid_request_error": "bad_request",
    "invalid_argument": "bad_request",
    "failed_precondition": "bad_request",
    "request_too_large": "context_length_exceeded",
}
"""The providers' own types and codes, for errors inside a 200 and for those that say more than their status.

Sources: https://docs.anthropic.com/en/api/errors, https://ai.google.dev/gemini-api/docs/troubleshooting,
https://platform.openai.com/docs/guides/error-codes.
"""
_SAYS_MORE_THAN_ITS_STATUS = {"context_length_exceeded", "rate_limit_exceeded", "content_filter"}
_CONTEXT = re.compile(
    r"context_length_exceeded|maximum context length|context window|context length|prompt is too long"
    r"|input token count|maximum prompt length|too many (?:input )?tokens|input is too long|input too long"
    r"|exceeds? context limit"
)
_KEY = re.compile(r"api key not valid|api_key_invalid|invalid api key|incorrect api key")
_OUR_BILL = re.compile(
    r"credit balance is too low|billing_error|billing hard limit|insufficient[ _](?:credits|balance)"
    r"|used all available credits|doesn't have any credits|run out of credits|insufficient_quota"
)
_MAY_BE_OUR_BILL = {0, 200, 400, 403, 429}
"""Beside 402, which is nothing else: what xAI says of it comes as a 403 or a 429."""
_NOT_PAID = "the provider does not serve this server at the moment"
"""What we owe a provider is no business of a client's; another provider can answer meanwhile."""
_TRANSIENT = {
    "rate_limit_exceeded",
    "timeout_error",
    "network_error",
    "provider_internal_error",
    "provider_gateway_error",
    "provider_unavailable",
}
_TRANSIENT_STATUSES = {408, 409, 425, 429}
_ABOUT_THE_KEY = {"authentication_failed", "permission_denied"}
_LIMIT_AND_REQUESTED = (
    re.compile(
        r"maximum context length is (?P<limit>\d+).*?(?:you requested|resulted in|requested about) (?P<requested>\d+)"
    ),
    re.compile(r"exceed context limit: (?P<requested>\d+ \+ \d+) > (?P<limit>\d+)"),
    re.compile(r"prompt is too long: (?P<requested>\d+) tokens > (?P<limit>\d+)"),
    re.compile(r"input token count \(?(?P<requested>\d+)\)? exceeds .*?\(?(?P<limit>\d+)\)?\D*$"),
    re.compile(r"maximum prompt length is (?P<limit>\d+).*?contains (?P<requested>\d+)"),
    re.compile(r"maximum context length is (?P<limit>\d+)"),
)
_MAX_MESSAGE = 500
_MAX_TYPE = 100
_MAX_DIGITS = 12
_OUR_ACCOUNT = {
    "authentication_failed": "the provider does not accept this server's key",
    "permission_denied": "the provider does not let this server do that",
}
"""What providers say of these names our key, organisation or project, which are no business of a client's."""
_OUR_IDS = re.compile(
    r"\b(?:(?:(?:org|proj|sk|xai)[-_]|AIza|projects/|project_number:)[\w*-]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
"""Other messages may name them too: «Rate limit reached for … in organization org-…», «the rate limit for your
organization (a UUID)».
"""


def failed_upstream(provider: str, error: UpstreamError) -> Failed:
    """The connection to the provider failed. Which host it was is for our log, not for a client."""
    match error:
        case UpstreamTimedOut():
            return Failed("timeout_error", "the provider did not answer in time", provider)
        case UpstreamUnreachable():
            return Failed("network_error", "the provider cannot be reached", provider)
        case FileNotReady():
            return Failed("external_service_error", "the provider did not get the file ready in time", provider)
        case FileUnreadable():
            return Failed("bad_request", "the provider could not read the file as video or sound", provider)
        case RequestNotSendable():
            return Failed("configuration_error", "this server is not set up to reach the provider", provider)
    return Failed("network_error", "the provider's answer was cut short", provider)


def tell_status(status: int) -> str:
    """The message of an error that brought no words; `status` is 0 where there was none."""
    return f"the provider answered with status {status}" if status else "the provider reported an error"


def failed_here(provider: str, code: str, message: str) -> Failed:
    return Failed(code, message, provider)


def failed_status(  # noqa: PLR0917 - what a provider says of one error
    provider: str,
    status: int,
    message: str,
    error_type: str,
    error_code: str = "",
    headers: Mapping[str, str] | None = None,
    *,
    retry_after_seconds: float | None = None,
) -> Failed:
    """The provider answered with an error. `status` is its HTTP status, or the one that its error inside a 200 stands
    for; 0 if it names none. What a body says of the time to wait comes before the headers.
    """
    code = classify(status, message, error_type, error_code)
    if code == "provider_unavailable" and _is_our_bill(status, message, error_type):
        message = _NOT_PAID
    limit, requested = _read_limit(message) if code == "context_length_exceeded" else (None, None)
    return Failed(
        code,
        _OUR_ACCOUNT.get(code) or _OUR_IDS.sub("…", message[:_MAX_MESSAGE]),
        provider,
        status,
        (error_type or error_code)[:_MAX_TYPE],
        _read_retry_after(headers or {}) if retry_after_seconds is None else retry_after_seconds,
        model_limit=limit,
        requested_tokens=requested,
    )


def classify(status: int, message: str, error_type: str = "", error_code: str = "") -> str:
    """The contract's word for an error."""
    said = message.lower()
    if status in {0, 200, 400, 413, 422} and (_CONTEXT.search(said) or "context_length" in error_code):
        return "context_length_exceeded"
    if status in {0, 200, 400} and _KEY.search(said):
        return "authentication_failed"
    if _is_our_bill(status, message, error_type):
        return "provider_unavailable"
    words = [_BY_WORD[word] for word in (error_code.lower(), error_type.lower()) if word in _BY_WORD]
    told = next((word for word in words if word in _SAYS_MORE_THAN_ITS_STATUS), None)
    if told is None and ("content_filter" in said or "content management policy" in said):
        told = "content_filter"
    if told is not None:
        return told
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if words and status < 500:
        return words[0]
    return "provider_internal_error" if status >= 500 else "external_service_error"


def _is_our_bill(status: int, message: str, error_type: str) -> bool:
    said = f"{error_type} {message}".lower()
    return status == 402 or (status in _MAY_BE_OUR_BILL and _OUR_BILL.search(said) is not None)


def is_transient(failed: Failed) -> bool:
    """Whether asking again, or another provider, may help: never for what is wrong with the request itself."""
    return failed.code in _TRANSIENT or failed.status in _TRANSIENT_STATUSES or failed.status >= 500


def may_be_the_key(failed: Failed) -> bool:
    """Whether another key of ours at the same provider may help."""
    return failed.code in _ABOUT_THE_KEY


def _read_limit(message: str) -> tuple[int | None, int | None]:
    """How many tokens the model takes, and how many there were, as far as the message tells."""
    text = message[:_MAX_MESSAGE].lower().replace(",", "")
    for pattern in _LIMIT_AND_REQUESTED:
        if found := pattern.search(text):
            numbers = {name: _sum(value) for name, value in found.groupdict().items()}
            return numbers.get("limit"), numbers.get("requested")
    return None, None


def _sum(text: str) -> int | None:
    """Of one number, or of several with a plus between them; None if one is too long to be a number of tokens."""
    numbers = text.split(" + ")
    return None if any(len(number) > _MAX_DIGITS for number in numbers) else sum(map(int, numbers))


def _read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the HTTP date form is left alone, providers send numbers."""
    for name, unit_seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_seconds
        except ValueError:
            continue
        if 0 <= seconds <= 86_400:
            return seconds
    return None
