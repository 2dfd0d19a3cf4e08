"""What counts as signed by Stripe; compared with Stripe's own library."""

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from server.billing.event_signature import MAX_HEADER, TOLERANCE_SECONDS, SignatureInvalid, verify
from server.errors import describe

SECRET, OTHER = "whsec_first", "whsec_second"
PAYLOAD = '{"id": "evt_1", "name": "Zoë"}'
NOW = 1_700_000_000


def sign(secret: str = SECRET, at: int = NOW, payload: str = PAYLOAD) -> str:
    """By Stripe's library."""
    return str(stripe.WebhookSignature.generate_signature_header(payload, secret, timestamp=at))


def is_valid(header: str | None, *secrets: str, payload: bytes = PAYLOAD.encode(), now: float = NOW) -> bool:
    try:
        verify(payload, header, secrets or [SECRET], now)
    except SignatureInvalid:
        return False
    return True


def test_what_stripes_library_signs_is_valid() -> None:
    assert is_valid(sign())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 2**33))
def test_both_agree_on_any_body(payload: str, at: int) -> None:
    header = sign(at=at, payload=payload)
    assert is_valid(header, payload=payload.encode(), now=at)
    assert not is_valid(header, payload=payload.encode() + b" ", now=at)


@given(st.text(max_size=200))
def test_no_header_raises_anything_else(header: str) -> None:
    assert not is_valid(header)


def test_another_secret_is_refused() -> None:
    assert not is_valid(sign(OTHER))


def test_while_secrets_change_both_count() -> None:
    assert is_valid(sign(), OTHER, SECRET)
    assert is_valid(sign(OTHER), OTHER, SECRET)


def test_one_of_several_signatures_is_enough() -> None:
    mine, other = sign().partition(",")[2], sign(OTHER).partition(",")[2]
    assert is_valid(f"t={NOW},{other},{mine},v0=abc")


def test_without_any_secret_nothing_is_valid() -> None:
    with pytest.raises(SignatureInvalid):
        verify(PAYLOAD.encode(), sign(""), [], NOW)


def test_five_minutes_either_way_count() -> None:
    for seconds in (-TOLERANCE_SECONDS, -1, 1, TOLERANCE_SECONDS):
        assert is_valid(sign(at=NOW + seconds))
        assert not is_valid(sign(at=NOW + seconds + (1 if seconds > 0 else -1) * TOLERANCE_SECONDS))


def test_the_time_is_signed_too() -> None:
    digest = sign(at=NOW - 5000).partition(",")[2]
    assert not is_valid(f"t={NOW},{digest}")


def test_a_signature_of_another_scheme_counts_for_nothing() -> None:
    assert not is_valid(sign().replace("v1=", "v0="))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ",",
        "t=",
        "t=1700000000",
        "v1=" + "0" * 64,
        "t=1700000000,v1=",
        "t=1700000000,v1=" + "é" * 64,
        "t=١٧٠٠٠٠٠٠٠٠,v1=" + "0" * 64,
        "t=1e9,v1=" + "0" * 64,
        "t=-1,v1=" + "0" * 64,
        "t=1,t=2,v1=" + "0" * 64,
        "t=" + "9" * 5000 + ",v1=" + "0" * 64,
    ],
)
def test_a_malformed_header_is_refused(header: str | None) -> None:
    assert not is_valid(header)


def test_a_huge_header_is_refused_before_it_is_read() -> None:
    assert is_valid(sign() + ",v1=0" * 10)
    assert not is_valid(sign() + ",v1=0" * MAX_HEADER)


def test_a_body_that_is_no_text_is_verified_like_any_other() -> None:
    assert not is_valid(sign(), payload=b"\xff\xfe")


def test_a_refusal_is_a_400() -> None:
    problem = describe(SignatureInvalid("Stripe-Signature: no"))
    assert problem is not None
    assert (problem.status, problem.error_type) == (400, "validation_error")
