"""Stripe's settings: what goes together, what must not be, and that no key is shown."""

import pytest

from server.billing.settings import BillingSettings, read_billing_settings
from server.settings import Settings

SERVER = "https://api.example.com"
KEYS = {"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": "whsec_0123456789"}


def read(is_production: bool = True, /, **environment: str) -> tuple[BillingSettings, list[str]]:
    settings = Settings(environment)
    return read_billing_settings(settings, SERVER, is_production), settings.problems


def test_without_keys_nothing_is_sold() -> None:
    settings, problems = read()
    assert (settings.sells, problems) == (False, [])


def test_stripe_itself_and_our_own_pages_are_the_defaults() -> None:
    settings, problems = read(**KEYS)
    assert (settings.sells, problems) == (True, [])
    assert (settings.api_base, settings.api_version) == ("https://api.stripe.com", "2024-06-20")
    assert (settings.website_url, settings.portal_return_url) == (SERVER, f"{SERVER}/billing")
    assert settings.calculates_tax


@pytest.mark.parametrize("name", list(KEYS))
def test_one_key_without_the_other_is_a_problem(name: str) -> None:
    _, problems = read(**{name: KEYS[name]})
    assert len(problems) == 1
    assert "go together" in problems[0]


@pytest.mark.parametrize("key", ["sk_ test_0123456789", "short", "sk_test_…0123456789"])
def test_a_key_that_is_none_is_told_without_being_shown(key: str) -> None:
    _, problems = read(**{**KEYS, "STRIPE_SECRET_KEY": key})
    assert "STRIPE_SECRET_KEY is wrong" in problems[0]
    assert key not in "".join(problems)


def test_the_secret_key_leaves_the_machine_over_https_only() -> None:
    assert read(**KEYS, STRIPE_API_BASE="http://stripe.example.com")[1] != []
    assert read(**KEYS, STRIPE_API_BASE="http://127.0.0.1:8420")[1] == []
    assert read(False, **KEYS, STRIPE_API_BASE="http://stripe.example.com")[1] == []


def test_the_library_is_not_made_to_talk() -> None:
    """`STRIPE_LOG=debug` has it print every request and answer."""
    _, problems = read(**KEYS, STRIPE_LOG="debug")
    assert len(problems) == 1
    assert problems[0].startswith("STRIPE_LOG")


def test_no_secret_stands_in_a_repr() -> None:
    settings, _ = read(**KEYS, STRIPE_PUBLISHABLE_KEY="pk_test_0123456789")
    assert "sk_test" not in repr(settings)
    assert "whsec" not in repr(settings)


def test_two_signing_secrets_count_while_one_takes_over_from_another() -> None:
    settings, problems = read(**{**KEYS, "STRIPE_WEBHOOK_SECRET": "whsec_0123456789, whsec_9876543210"})
    assert (settings.webhook_secrets, problems) == (("whsec_0123456789", "whsec_9876543210"), [])


@pytest.mark.parametrize("secret", ["", " ", ",,,,,,,,,", "whsec_0123456789,"])
def test_an_empty_signing_secret_is_refused_at_the_start(secret: str) -> None:
    """Anybody could sign with it."""
    assert read(**{**KEYS, "STRIPE_WEBHOOK_SECRET": secret})[1] != []
