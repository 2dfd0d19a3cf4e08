"""One classification of what goes wrong with a provider, in the words that the clients know."""

import re
from collections.abc import Mapping

from proxy.chat import Failed
from proxy.errors import UpstreamError, UpstreamTimedOut, UpstreamUnreachable

_CODES = {
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
_CONTEXT_PHRASES = ("context_length_exceeded", "maximum context length", "context window", "prompt is too long")
_MAX_MESSAGE = 500
_MAX_TYPE = 100
_OUR_ACCOUNT = {
    "authentication_failed": "the provider does not accept this server's key",
    "permission_denied": "the provider does not let this server do that",
}
"""What providers say of these names our key, organisation or project, which are no business of a client's."""
_OUR_IDS = re.compile(r"\b(?:org|proj|sk)[-_][\w*-]+")
"""Other messages may name them too: «Rate limit reached for … in organization org-…»."""


def failed_upstream(provider: str, error: UpstreamError) -> Failed:
    """The connection to the provider failed. Which host it was is for our log, not for a client."""
    match error:
        case UpstreamTimedOut():
            return Failed("timeout_error", "the provider did not answer in time", provider)
        case UpstreamUnreachable():
            return Failed("network_error", "the provider cannot be reached", provider)
    return Failed("network_error", "the provider's answer was cut short", provider)


def failed_here(provider: str, code: str, message: str) -> Failed:
    return Failed(code, message, provider)


def failed_status(  # noqa: PLR0917 - what a provider says of one error
    provider: str,
    status: int,
    message: str,
    error_type: str,
    error_code: str = "",
    headers: Mapping[str, str] | None = None,
) -> Failed:
    """The provider answered with an error. `status` is its HTTP status, or the one that its error inside a 200 stands
    for.
    """
    code = classify(status, message, error_type, error_code)
    shown = _OUR_ACCOUNT.get(code) or _OUR_IDS.sub("…", message[:_MAX_MESSAGE])
    return Failed(code, shown, provider, status, (error_type or error_code)[:_MAX_TYPE], _retry_after(headers or {}))


def classify(status: int, message: str, error_type: str = "", error_code: str = "") -> str:
    """The contract's word for an error."""
    text = f"{error_code} {error_type} {message}".lower()
    if status in {0, 400, 413, 422} and any(phrase in text for phrase in _CONTEXT_PHRASES):
        return "context_length_exceeded"
    if "rate_limit" in text or "insufficient_quota" in text:
        return "rate_limit_exceeded"
    if "content_filter" in text or "content_policy" in text:
        return "content_filter"
    return _CODES.get(status, "provider_internal_error" if status >= 500 else "external_service_error")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the HTTP date form is left alone, providers send numbers."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= 86_400 else None
