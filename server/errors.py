"""One table: exception to status, error type and label; and the one envelope that all clients decode."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import UNSET

from proxy import errors as proxy_errors
from proxy.events import Failed
from proxy.media import MediaRefused
from server.envelopes import ErrorEnvelope
from storage import errors as storage_errors
from storage.api_keys import TooManyKeys
from storage.bookings import AdjustmentRefused
from storage.credits import BalanceTooLow, RequestRepeated, SpendingLimitReached, UserUnknown
from storage.rate_limits import Verdict
from storage.sign_ins import AccountInUse
from storage.spending_limits import ApiKeyUnknown


class ServerError(Exception):
    """Base of every error that this package raises on purpose. The message is fit for a user's eyes."""


class NotAuthenticated(ServerError):
    """No credentials, or credentials that don't hold."""


class SignInRefused(NotAuthenticated):
    """A sign-in that counts no more, or whose person may not come in."""


class NotAllowed(ServerError):
    """The caller is known and may not do this."""


class LimitExceeded(ServerError):
    """The caller has had what it may have in a window. Nothing was drawn."""

    def __init__(self, verdict: Verdict, window_seconds: float) -> None:
        seconds = max(1, math.ceil(verdict.retry_after_seconds))
        super().__init__(f"the limit is {verdict.limit} in {window_seconds:g} seconds; try again in {seconds} seconds")
        self.verdict = verdict
        self.retry_after_seconds = seconds


class TooManyWatchers(ServerError):
    """More of one user's connections watch events than may."""


class IssuerUnavailable(ServerError):
    """Whoever signs people in (Auth0) does not answer, or not as it should: nothing is said about the caller."""


class StripeNotConfigured(ServerError):
    """This server sells nothing: it has no key for Stripe."""


class StripeUnavailable(ServerError):
    """Stripe does not answer, or not as it should. What was asked may have happened."""


class StripeKeySpent(StripeUnavailable):
    """Stripe keeps a fault of its own under this idempotency key: only another key helps."""


class StripeRefused(ServerError):
    """Stripe understood and will not do it. `code` is Stripe's word for it."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class CardDeclined(StripeRefused):
    """The bank does not pay, or wants its customer to be there (`authentication_required`). `decline_code` is the
    bank's own word, where there is one.
    """

    def __init__(self, message: str, code: str = "", decline_code: str = "") -> None:
        super().__init__(message, code)
        self.decline_code = decline_code


class PaymentMethodRequired(ServerError):
    """There is no card that a purchase could be paid with."""


class BillingAddressRequired(ServerError):
    """Stripe has no name or address of the customer, which the tax depends on."""


class NotFound(ServerError):
    """What the request names is not there, or not the caller's."""


class RequestInvalid(ServerError):
    """The request's body, headers or query are not of the form. The message names the place."""


class UpgradeRequired(ServerError):
    """The path is that of a WebSocket, and the request asks for none, or for another version."""


class ArgumentInvalid(ServerError):
    """A value is of the form, and out of its bounds. The message says which they are."""


class ChoiceUnknown(ServerError):
    """A word that is none of those it may be. The message lists them."""


class DeviceInvalid(ServerError):
    """What a device says of itself does not hold. The message is a word that clients know, or names the header."""


class VersionConflict(ServerError):
    """Somebody else has written what the caller was going to replace. The message says which version stands now."""


class ConsentRequired(ServerError):
    """The caller has to agree to documents first. The message names them, and where they are shown."""


class BodyTooLarge(ServerError):
    """More bytes than this server takes."""


class RequestCancelled(ServerError):
    """The caller has called it off by another request, and pays for what it had used until then."""


class UploadTooSlow(ServerError):
    """The client has not sent its file in time."""


class TooManyUploads(ServerError):
    """More of one user's files are on their way, or worked on, than may be at a time."""


class UploadsUnavailable(ServerError):
    """There is no room for a file right now: the disk is full, or files of others take what they may have together."""


class MediaUnreadable(ServerError):
    """A file that holds no sound or video that this server can read. The message says what it takes."""


class ProviderFailed(ServerError):
    """The provider failed before the client was answered."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a client sees it, in no dialect yet."""

    status: int
    error_type: str
    message: str
    details: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    """What happened, where there is a word for it that says more than the type: programs on `/v1` branch on it."""

    @property
    def detail(self) -> str:
        """The message without its label, which says nothing to people."""
        return self.message.partition(": ")[2] or self.message


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    error_type: str
    label: str
    retry_after_seconds: int | None = None
    told: str | None = None
    """What is told instead of the error's own message, where that is for the operator: hosts, roles, SQL."""
    reason: str = ""


_STORES_AWAY = _Kind(
    503, "database_error", "Database error", 2, "the accounts cannot be reached right now; try again in a moment"
)

_TABLE: Mapping[type[Exception], _Kind] = {
    NotAuthenticated: _Kind(401, "authentication_error", "Authentication error"),
    SignInRefused: _Kind(401, "unauthorized", "Unauthorized"),
    NotAllowed: _Kind(403, "forbidden", "Forbidden"),
    NotFound: _Kind(404, "not_found", "Not found"),
    LimitExceeded: _Kind(429, "rate_limit_error", "Too many requests", reason="rate_limit_exceeded"),
    TooManyWatchers: _Kind(429, "rate_limit_error", "Too many requests", 60, reason="rate_limit_exceeded"),
    IssuerUnavailable: _Kind(
        503, "external_service_error", "External service error", 5, "sign-in cannot be reached now; try again soon"
    ),
    RequestInvalid: _Kind(400, "validation_error", "Validation error"),
    UpgradeRequired: _Kind(426, "bad_request", "Upgrade required"),
    ArgumentInvalid: _Kind(400, "invalid_argument", "Invalid argument"),
    ChoiceUnknown: _Kind(400, "bad_request", "Bad request"),
    DeviceInvalid: _Kind(400, "bad_request", "Bad request"),
    ConsentRequired: _Kind(403, "consent_required", "Consent required"),
    VersionConflict: _Kind(409, "conflict", "Conflict"),
    RequestCancelled: _Kind(409, "request_cancelled", "Request cancelled"),
    BodyTooLarge: _Kind(413, "payload_too_large", "Payload too large"),
    UploadTooSlow: _Kind(408, "timeout_error", "Request timeout"),
    TooManyUploads: _Kind(429, "rate_limit_error", "Too many requests", 5, reason="rate_limit_exceeded"),
    UploadsUnavailable: _Kind(
        503, "internal_error", "Uploads unavailable", 30, "there is no room for the file right now; try again soon"
    ),
    MediaUnreadable: _Kind(400, "validation_error", "Validation error"),
    proxy_errors.ModelUnknown: _Kind(404, "not_found", "Not found", reason="model_not_found"),
    proxy_errors.ModelNotPriced: _Kind(503, "configuration_error", "Configuration error"),
    proxy_errors.ProviderNotConfigured: _Kind(503, "configuration_error", "Configuration error"),
    proxy_errors.ContextWindowExceeded: _Kind(400, "bad_request", "Bad request", reason="context_length_exceeded"),
    MediaRefused: _Kind(400, "validation_error", "Validation error"),
    proxy_errors.RequestNotSupported: _Kind(400, "bad_request", "Bad request"),
    BalanceTooLow: _Kind(402, "credit_insufficient", "Insufficient credits"),
    AdjustmentRefused: _Kind(402, "credit_insufficient", "Insufficient credits"),
    SpendingLimitReached: _Kind(402, "spending_limit_exceeded", "Spending limit exceeded"),
    PaymentMethodRequired: _Kind(402, "payment_method_required", "Payment method required"),
    BillingAddressRequired: _Kind(402, "billing_address_required", "Billing address required"),
    CardDeclined: _Kind(402, "payment_declined", "Payment declined"),
    StripeNotConfigured: _Kind(503, "configuration_error", "Configuration error"),
    StripeUnavailable: _Kind(
        503, "external_service_error", "External service error", 5, "payments cannot be reached now; try again soon"
    ),
    StripeRefused: _Kind(502, "external_service_error", "External service error"),
    RequestRepeated: _Kind(409, "already_exists", "Already exists"),
    TooManyKeys: _Kind(409, "already_exists", "Already exists"),
    ApiKeyUnknown: _Kind(404, "not_found", "Not found"),
    UserUnknown: _Kind(404, "not_found", "Not found"),
    AccountInUse: _Kind(409, "customer_billing_conflict", "Billing conflict"),
    storage_errors.DatabaseUnavailable: _STORES_AWAY,
    storage_errors.RedisUnavailable: _STORES_AWAY,
}

CANCELLED = "the request was cancelled by its user"

_NEVER_AGAIN = {"X-Should-Retry": "false"}
"""OpenAI's libraries send what was answered with a 409 once more, unless this is there:
https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py (`_should_retry`).
"""
_UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
"""https://www.rfc-editor.org/rfc/rfc9110#section-15.5.22 and https://www.rfc-editor.org/rfc/rfc6455#section-4.4."""

_BY_STATUS: Mapping[int, _Kind] = {
    400: _Kind(400, "bad_request", "Bad request"),
    401: _Kind(401, "authentication_error", "Authentication error"),
    403: _Kind(403, "forbidden", "Forbidden"),
    404: _Kind(404, "not_found", "Not found"),
    405: _Kind(405, "method_not_allowed", "Method not allowed"),
    408: _Kind(408, "timeout_error", "Request timeout"),
    413: _Kind(413, "payload_too_large", "Payload too large"),
    415: _Kind(415, "validation_error", "Validation error"),
    429: _Kind(429, "rate_limit_error", "Too many requests"),
}

_PROVIDER_FAILED = "External service error"
_REFUSED = _Kind(400, "bad_request", "Bad request")
_PROVIDER_KINDS: Mapping[str, _Kind] = {
    "rate_limit_exceeded": _BY_STATUS[429],
    "context_length_exceeded": _REFUSED,
    "content_filter": _REFUSED,
    "bad_request": _REFUSED,
    "timeout_error": _Kind(504, "timeout_error", _PROVIDER_FAILED),
    "network_error": _Kind(502, "network_error", _PROVIDER_FAILED),
    "provider_unavailable": _Kind(503, "external_service_error", _PROVIDER_FAILED),
    "internal_error": _Kind(500, "internal_error", "Internal error"),
}
_PROVIDER_AT_FAULT = _Kind(502, "external_service_error", _PROVIDER_FAILED)

INTERNAL = Problem(500, "internal_error", "Internal error: something went wrong on our side; the error was logged")


def describe(error: Exception) -> Problem | None:
    """What a client is told of `error`; None if it is no error of ours, and then it is a fault to be logged."""
    if isinstance(error, ProviderFailed):
        return _describe_failed(error.failed)
    kind = next((_TABLE[class_] for class_ in type(error).__mro__ if class_ in _TABLE), None)
    if kind is None:
        return None
    message = f"{kind.label}: {kind.told or error}"
    return Problem(kind.status, kind.error_type, message, headers=_problem_headers(error, kind), reason=kind.reason)


def limit_headers(verdict: Verdict) -> dict[str, str]:
    """What is left of a budget. `RateLimit-Reset` is in seconds from now, not a time of day:
    https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-06
    """
    return {
        "RateLimit-Limit": str(verdict.limit),
        "RateLimit-Remaining": str(verdict.remaining),
        "RateLimit-Reset": str(math.ceil(verdict.reset_seconds)),
    }


def describe_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """An error that the framework found: an unknown path, a wrong method, a body that is too large."""
    kind = _BY_STATUS.get(status, _Kind(status, "bad_request" if status < 500 else "internal_error", "Error"))
    return Problem(kind.status, kind.error_type, f"{kind.label}: {detail}", headers=headers or {})


def envelope(problem: Problem) -> ErrorEnvelope:
    """For the shipped clients."""
    details = UNSET if problem.details is None else problem.details
    return ErrorEnvelope(
        problem.status,
        problem.message,
        problem.error_type,
        problem.error_type,
        problem.message if problem.status == 401 else UNSET,
        details,
        details,
    )


def error_details(failed: Failed) -> dict[str, object]:
    """The object that clients decode from the stream's `error_details` event, camelCase and complete."""
    details: dict[str, object] = {
        "code": failed.code,
        "message": tell_failed(failed),
        "fallbackAttempted": failed.fallback_attempted,
    }
    if failed.provider:
        details["providerError"] = _provider_error(failed)
    return details


def tell_failed(failed: Failed) -> str:
    """Of too long a prompt in words that clients search for: the desktop's, and OpenAI's, which LiteLLM looks for."""
    if failed.code != "context_length_exceeded":
        return failed.message
    limit = f": this model's maximum context length is {failed.model_limit} tokens" if failed.model_limit else ""
    return f"{failed.message} (context window exceeded{limit})"


def _provider_error(failed: Failed) -> dict[str, object]:
    provider_error: dict[str, object] = {
        "provider": failed.provider,
        "statusCode": failed.status,
        "errorType": failed.provider_error_type or failed.code,
        "details": failed.message,
    }
    limits = {"requestedTokens": failed.requested_tokens, "modelLimit": failed.model_limit}
    context = {name: tokens for name, tokens in limits.items() if tokens is not None}
    return provider_error | ({"context": context} if context else {})


def _problem_headers(error: Exception, kind: _Kind) -> dict[str, str]:
    if isinstance(error, LimitExceeded):
        return {"Retry-After": str(error.retry_after_seconds), **limit_headers(error.verdict)}
    if isinstance(error, UpgradeRequired):
        return dict(_UPGRADE)
    if isinstance(error, RequestCancelled):
        return dict(_NEVER_AGAIN)
    return {} if kind.retry_after_seconds is None else {"Retry-After": str(kind.retry_after_seconds)}


def _describe_failed(failed: Failed) -> Problem:
    """A key of ours that the provider refuses is our fault, not the caller's: no 401 to a client, nor a word of it."""
    kind = _PROVIDER_KINDS.get(failed.code, _PROVIDER_AT_FAULT)
    headers = {}
    if failed.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(failed.retry_after_seconds)))
    message = f"{kind.label}: {tell_failed(failed)}"
    reason = failed.code if failed.code in _PROVIDER_KINDS else ""
    return Problem(kind.status, kind.error_type, message, error_details(failed), headers, reason)
