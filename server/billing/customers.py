"""Who our users are to Stripe: a customer for each, made when it is first needed, and whether it is ready to pay."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import trio

from server.billing.stripe_api import PaymentMethod, StripeApi, StripeCustomer
from server.errors import BillingAddressRequired, PaymentMethodRequired, ServerError, StripeKeySpent, StripeRefused
from storage.billing_customers import BillingCustomer, BillingCustomers

MAX_ROUNDS = 3
"""More would mean that somebody deletes customers as fast as they are made."""
GLANCE_SECONDS = 5.0
"""The longest that a page waits for Stripe which does without it just as well."""
QUIET_SECONDS = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is missing before something can be sold."""

    needs_payment_method: bool
    needs_billing_info: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """`customer` is None while there is none."""

    customer: StripeCustomer | None
    readiness: Readiness


UNKNOWN = Standing(None, Readiness(needs_payment_method=False, needs_billing_info=False))


class Customers:
    """Every method may be repeated, and raises StorageError and what StripeApi does."""

    def __init__(self, stripe: StripeApi, table: BillingCustomers) -> None:
        self._stripe = stripe
        self._table = table
        self._quiet_until = -float("inf")

    async def ensure(self, user_id: UUID, email: str, name: str | None) -> str:
        """The id of the user's customer, made if there is none, or none any more. Our row is there before Stripe is
        asked, and its number is in the idempotency key: so two who ask at once get the same. Raises UserUnknown.
        """
        for _ in range(MAX_ROUNDS):
            row = await self._table.get_or_make(user_id)
            if row.customer_id is None:
                made = await self._make(row, email, name)
                if await self._table.note_customer(user_id, made, row.customer_number):
                    return made
            elif await self._stripe.find_customer(row.customer_id) is not None:
                return row.customer_id
            else:
                await self._table.forget(row.customer_id)
        raise StripeRefused("the payment service does not keep its customer; try again later")

    async def find_id(self, user_id: UUID) -> str | None:
        """As our row has it; Stripe is not asked."""
        row = await self._table.find(user_id)
        return None if row is None else row.customer_id

    async def describe(self, user_id: UUID) -> StripeCustomer | None:
        """None if there is none, or no more."""
        customer_id = await self.find_id(user_id)
        return None if customer_id is None else await self._stripe.find_customer(customer_id)

    async def find_standing(self, user_id: UUID) -> Standing:
        customer = await self.describe(user_id)
        has_default = customer is not None and customer.default_payment_method is not None
        methods = await self._stripe.list_payment_methods(customer.id) if customer and has_default else []
        return Standing(customer, read_readiness(customer, methods))

    async def readiness(self, user_id: UUID) -> Readiness:
        return (await self.find_standing(user_id)).readiness

    async def require_ready(self, user_id: UUID) -> None:
        """Raises PaymentMethodRequired or BillingAddressRequired."""
        readiness = await self.readiness(user_id)
        if readiness.needs_payment_method:
            raise PaymentMethodRequired("leave a card first: the billing page leads there")
        if readiness.needs_billing_info:
            raise BillingAddressRequired("a name and an address are missing: enter them on the billing page")

    async def try_standing(self, user_id: UUID) -> Standing:
        """For a page that has more to show: UNKNOWN if Stripe is not set up, fails, or takes its time. That is told in
        the log once a minute. Raises StorageError alone.
        """
        if not self._stripe.settings.sells:
            return UNKNOWN
        try:
            with trio.fail_after(GLANCE_SECONDS):
                return await self.find_standing(user_id)
        except (ServerError, trio.TooSlowError) as error:
            self._tell_nowait(error)
            return UNKNOWN

    async def _make(self, row: BillingCustomer, email: str, name: str | None) -> str:
        """If somebody asked with another name or address and the same key, and did not come to note the answer, or
        Stripe failed and repeats that for a day, only another key helps: Stripe may keep a customer that nobody uses.
        """
        key = f"customer_{row.user_id}_{row.customer_number}"
        try:
            return await self._stripe.create_customer(row.user_id, email, name, key)
        except StripeKeySpent:
            pass
        except StripeRefused as error:
            if error.code != "idempotency_error":
                raise
        return await self._stripe.create_customer(row.user_id, email, name, f"{key}_{uuid4()}")

    def _tell_nowait(self, error: Exception) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("a page is shown without what Stripe knows: %s", str(error) or "Stripe takes its time")


def read_readiness(customer: StripeCustomer | None, methods: Sequence[PaymentMethod]) -> Readiness:
    """A customer is ready with a name, an address that taxes can be computed for, and a default payment method."""
    if customer is None:
        return Readiness(needs_payment_method=True, needs_billing_info=True)
    addresses = (customer.billing_address, customer.shipping_address)
    return Readiness(
        needs_payment_method=customer.default_payment_method is None or not methods,
        needs_billing_info=customer.name is None or not any(address and address.is_complete for address in addresses),
    )
