"""What Stripe tells, as values."""

from server.billing.stripe_objects import Session, TaxId
from tests.server.billing.stripe_objects import build_customer


def test_nobody_is_named_in_a_repr() -> None:
    session = Session(
        id="cs_1",
        mode="payment",
        status="open",
        payment_status="unpaid",
        url="https://checkout.stripe.com/c/pay/cs_1#secret",
        customer_id="cus_1",
        customer_email="ann@example.com",
        client_reference_id=None,
        currency="usd",
        subtotal_cents=None,
        total_cents=None,
        payment_intent_id=None,
        setup_intent_id=None,
        metadata={},
    )
    text = repr((session, build_customer(), TaxId("eu_vat", "DE123456789", "DE", "verified")))
    assert "cs_1" in text
    for secret in ("ann", "Ann", "Main Street", "Springfield", "62701", "#secret", "DE123456789"):
        assert secret not in text
