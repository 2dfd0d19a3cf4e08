"""Stripe, and where its pages send people back to. Pure."""

from dataclasses import dataclass, field

from server.settings import Settings, is_loopback, read_base_url, read_flag, read_positive

DEFAULT_API_BASE = "https://api.stripe.com"
DEFAULT_API_VERSION = "2024-06-20"


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """Without a secret key nothing is sold, and the routes that need Stripe say so. `website_url` is where people come
    back to from Stripe's pages: by default to pages of our own.
    """

    secret_key: str | None = field(repr=False)
    publishable_key: str | None
    webhook_secret: str | None = field(repr=False)
    api_base: str
    api_version: str
    deadline_seconds: float
    """For one exchange with Stripe; what is worth it is tried again with the same idempotency key."""
    website_url: str
    portal_return_url: str
    calculates_tax: bool

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Several, separated by commas, while one takes over from another."""
        return tuple(secret for secret in (self.webhook_secret or "").split(",") if secret)

    @property
    def sells(self) -> bool:
        return self.secret_key is not None


def read_billing_settings(settings: Settings, server_url: str, is_production: bool) -> BillingSettings:
    """A key without the secret that proves events, or the other way round, is a problem: paid credits would be lost."""
    unset: str | None = None
    secret_key = settings.read("STRIPE_SECRET_KEY", unset, _read_key)
    webhook_secret = settings.read("STRIPE_WEBHOOK_SECRET", unset, _read_signing_secrets)
    if (secret_key is None) != (webhook_secret is None):
        settings.problems.append(
            "STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET go together: set both, or none, and then nothing is sold"
        )
    settings.read("STRIPE_LOG", unset, _refuse_log)
    api_base = settings.read("STRIPE_API_BASE", DEFAULT_API_BASE, read_base_url)
    if is_production and api_base.startswith("http://") and not is_loopback(api_base):
        settings.problems.append("STRIPE_API_BASE is wrong: the secret key may leave this machine over https only")
    website_url = settings.read("WEBSITE_BASE_URL", server_url, read_base_url)
    return BillingSettings(
        secret_key=secret_key,
        publishable_key=settings.read("STRIPE_PUBLISHABLE_KEY", unset, _read_key),
        webhook_secret=webhook_secret,
        api_base=api_base,
        api_version=settings.read("STRIPE_API_VERSION", DEFAULT_API_VERSION, str),
        deadline_seconds=settings.read("STRIPE_DEADLINE_SECONDS", 20.0, read_positive),
        website_url=website_url,
        portal_return_url=settings.read("STRIPE_PORTAL_RETURN_URL", f"{website_url}/billing", read_base_url),
        calculates_tax=settings.read("STRIPE_AUTOMATIC_TAX", True, read_flag),
    )


def _read_signing_secrets(text: str) -> str:
    return ",".join(_read_key(secret.strip()) for secret in text.split(","))


def _read_key(text: str) -> str:
    if not text.strip() or len(text) < 8 or not text.isascii() or any(character.isspace() for character in text):
        raise ValueError("it must be a key as Stripe's dashboard shows it")
    return text


def _refuse_log(_: str) -> str:
    raise ValueError("unset it: Stripe's library would print keys' owners, addresses and payments to the log")
