"""What we ask Stripe to make."""

from dataclasses import replace
from uuid import UUID

from server.billing import stripe_forms as forms
from server.billing.stripe_objects import BillingDetails, CheckoutOrder
from tests.server.billing.stripe_objects import ADDRESS, build_settings

PURCHASE, USER = UUID(int=1), UUID(int=2)
ORDER = CheckoutOrder(PURCHASE, USER, "cus_1", gross_cents=1000, fee_cents=200, net_cents=800)
SETTINGS = build_settings()


def test_a_page_sells_credits_and_a_fee_before_tax() -> None:
    form = forms.build_checkout(ORDER, SETTINGS)
    prices = [line["price_data"] for line in form["line_items"]]
    assert [(price["product_data"]["name"], price["unit_amount"]) for price in prices] == [
        ("Credits", 800),
        ("Processing fee", 200),
    ]
    assert {(price["currency"], price["tax_behavior"], price["product_data"]["tax_code"]) for price in prices} == {
        ("usd", "exclusive", "txcd_10103001")
    }
    assert [line["quantity"] for line in form["line_items"]] == [1, 1]


def test_a_fee_of_nothing_is_no_line() -> None:
    free = replace(ORDER, fee_cents=0, net_cents=1000)
    assert forms.build_lines(free) == [("Credits", 1000)]


def test_the_payment_carries_the_order_and_keeps_the_card() -> None:
    data = forms.build_checkout(ORDER, SETTINGS)["payment_intent_data"]
    assert data["setup_future_usage"] == "off_session"
    assert data["metadata"] == {
        "type": "credit_purchase",
        "purchase_id": str(PURCHASE),
        "user_id": str(USER),
        "gross_amount_cents": "1000",
        "platform_fee_cents": "200",
        "net_amount_cents": "800",
        "gross_amount": "10.00",
        "platform_fee": "2.00",
        "net_amount": "8.00",
        "currency": "USD",
    }


def test_people_come_back_to_our_own_pages_with_the_session() -> None:
    form = forms.build_checkout(ORDER, SETTINGS)
    assert form["success_url"] == "https://cloche.invalid/billing/success?session_id={CHECKOUT_SESSION_ID}"
    assert form["cancel_url"] == "https://cloche.invalid/billing/cancel"
    setup = forms.build_setup(USER, "cus_1", SETTINGS)
    page = "https://cloche.invalid/billing/payment-method"
    assert setup["success_url"] == f"{page}/success?session_id={{CHECKOUT_SESSION_ID}}"
    assert setup["cancel_url"] == f"{page}/cancel"


def test_tax_is_computed_unless_the_settings_say_no() -> None:
    assert forms.build_checkout(ORDER, SETTINGS)["automatic_tax"] == {"enabled": True}
    untaxed = replace(SETTINGS, calculates_tax=False)
    assert forms.build_checkout(ORDER, untaxed)["automatic_tax"] == {"enabled": False}
    assert forms.build_invoice(ORDER, untaxed)["automatic_tax"] == {"enabled": False}


def test_a_setup_sells_nothing_and_names_the_user() -> None:
    form = forms.build_setup(USER, "cus_1", SETTINGS)
    assert "line_items" not in form
    assert form["billing_address_collection"] == "required"
    assert form["client_reference_id"] == str(USER)
    assert form["setup_intent_data"] == {"metadata": {"type": "setup_payment_method", "user_id": str(USER)}}


def test_an_invoice_is_not_advanced_by_stripe_and_takes_no_stray_items() -> None:
    form = forms.build_invoice(ORDER, SETTINGS)
    assert form["auto_advance"] is False
    assert form["discounts"] == ""
    assert form["pending_invoice_items_behavior"] == "exclude"
    assert form["metadata"]["type"] == "auto_topoff"
    item = forms.build_invoice_item(ORDER, "in_1", ("Credits", 800))
    assert (item["invoice"], item["amount"], item["tax_behavior"]) == ("in_1", 800, "exclusive")


def test_a_customer_without_a_name_is_made_without_one() -> None:
    assert "name" not in forms.build_customer(USER, "ann@example.com", None)
    assert forms.build_customer(USER, "ann@example.com", "Ann")["metadata"]["user_id"] == str(USER)


def test_an_address_leaves_nothing_of_the_one_before_it() -> None:
    form = forms.build_billing_details(BillingDetails("Ann", replace(ADDRESS, state=None)))
    assert form["name"] == "Ann"
    assert (form["address"]["line1"], form["address"]["line2"], form["address"]["state"]) == ("1 Main Street", "", "")
