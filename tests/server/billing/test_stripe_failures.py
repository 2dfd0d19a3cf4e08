"""What Stripe's errors mean for us."""

import pytest

from server.billing.stripe_failures import read_failure
from server.errors import CardDeclined, ServerError, StripeKeySpent, StripeRefused, StripeUnavailable, describe

MESSAGE = "No such customer: 'cus_secret'; ann@example.com"


@pytest.mark.parametrize(
    ("status", "type_", "code", "kind"),
    [
        (None, "", "", StripeUnavailable),
        (500, "api_error", "", StripeUnavailable),
        (503, "", "", StripeUnavailable),
        (429, "invalid_request_error", "rate_limit", StripeUnavailable),
        (400, "invalid_request_error", "rate_limit", StripeUnavailable),
        (409, "invalid_request_error", "idempotency_key_in_use", StripeUnavailable),
        (400, "invalid_request_error", "lock_timeout", StripeUnavailable),
        (401, "invalid_request_error", "", StripeUnavailable),
        (403, "invalid_request_error", "", StripeUnavailable),
        (402, "card_error", "card_declined", CardDeclined),
        (402, "invalid_request_error", "invoice_payment_intent_requires_action", CardDeclined),
        (400, "invalid_request_error", "authentication_required", CardDeclined),
        (404, "invalid_request_error", "resource_missing", StripeRefused),
        (400, "invalid_request_error", "", StripeRefused),
    ],
)
def test_an_error_is_passing_or_of_the_bank_or_for_good(
    status: int | None, type_: str, code: str, kind: type[ServerError]
) -> None:
    failure = read_failure(status, {"type": type_, "code": code, "message": MESSAGE})
    assert type(failure) is kind
    assert "cus_secret" not in str(failure)
    assert "@" not in str(failure)


def test_a_decline_says_what_stripe_and_what_the_bank_says() -> None:
    failure = read_failure(402, {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"})
    assert isinstance(failure, CardDeclined)
    assert (failure.code, failure.decline_code) == ("card_declined", "insufficient_funds")
    assert str(failure) == "the card has insufficient funds"


def test_whoever_holds_a_stolen_card_is_not_told_that_it_is_known() -> None:
    stolen = read_failure(402, {"type": "card_error", "code": "card_declined", "decline_code": "stolen_card"})
    plain = read_failure(402, {"type": "card_error", "code": "card_declined"})
    assert str(stolen) == str(plain)


def test_the_same_key_with_other_parameters_is_told_by_its_type_for_it_has_no_code() -> None:
    failure = read_failure(400, {"type": "idempotency_error", "message": MESSAGE})
    assert isinstance(failure, StripeRefused)
    assert failure.code == "idempotency_error"


def test_a_fault_that_is_repeated_for_its_key_is_one_that_another_key_helps_against() -> None:
    fault = {"type": "api_error", "message": MESSAGE}
    assert type(read_failure(500, fault)) is StripeUnavailable
    assert type(read_failure(500, fault, is_replayed=True)) is StripeKeySpent
    assert type(read_failure(409, fault, is_replayed=True)) is StripeUnavailable


@pytest.mark.parametrize("status", [200, 400, 404])
def test_an_answer_without_an_error_in_it_is_not_stripes(status: int) -> None:
    assert isinstance(read_failure(status, {}), StripeUnavailable)


def test_members_of_odd_types_are_passed_over() -> None:
    failure = read_failure(400, {"type": ["card_error"], "code": 7, "decline_code": None})
    assert isinstance(failure, StripeRefused)
    assert failure.code == ""


@pytest.mark.parametrize(
    ("status", "code", "answer"),
    [
        (503, "", (503, "external_service_error")),
        (404, "resource_missing", (502, "external_service_error")),
        (402, "card_declined", (402, "payment_declined")),
    ],
)
def test_clients_are_told_whose_fault_it_is(status: int, code: str, answer: tuple[int, str]) -> None:
    problem = describe(read_failure(status, {"code": code}))
    assert problem is not None
    assert (problem.status, problem.error_type) == answer
