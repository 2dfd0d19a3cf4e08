"""Stripe for tests: localstripe, which nobody here wrote, in a process of its own, behind a small front of ours.

    async with open_stripe_stand_in() as stripe, open_cloche(stores, settings=stripe.settings) as cloche:
        stripe.send_events_to(cloche.url)
        ...                                             # the server makes a customer at stripe.url
        await stripe.leave_card(customer_id)            # with name and address: ready to buy
        await stripe.complete_checkout(session_id)      # its card is charged, events go out
        await stripe.refund(payment_intent_id, 500)

LOCALSTRIPE'S OWN (https://github.com/adrienverge/localstripe): customers and their tax ids, payment methods and cards
that are declined, setup intents, payment intents, charges, balance transactions, refunds; invoices from draft to paid.
It makes and signs these events itself, and we pass them on byte for byte: `customer.created`, `customer.updated`,
`customer.deleted`, `invoice.created`, `invoice.payment_succeeded`, `invoice.payment_failed`. Each takes it a second, it
does not try again, and they look like those of a very old API version (2017-08-15).

THE FRONT'S:
* Checkout sessions (payment and setup), portal sessions, the search for customers, disputes.
* The page that people see: `complete_checkout` has localstripe charge the customer's card, `complete_setup` has it
  confirm a setup intent.
* Invoices without a subscription, which localstripe does not make: the front gives the customer a subscription that
  costs nothing, and puts the sum of the items into `starting_balance`. Finalizing and voiding, items with prices, tax.
* All other events, in the shape of API version 2024-06-20, made of what localstripe holds by then and signed as
  Stripe signs: `payment_intent.*`, `checkout.session.*`, `charge.*`, `setup_intent.succeeded`,
  `payment_method.attached`, `invoice.finalized`, `.paid`, `.voided`.
* `Stripe-Version`, `Idempotency-Key`, parameters that nobody knows, a declined invoice as status 402, and members and
  codes that localstripe leaves out.
* Lists of payment intents by time.

A test says in its name or docstring whose part it leans on.
"""

from tests.stripe_stand_in.faults import Fault
from tests.stripe_stand_in.stand_in import DECLINED_CARD, GOOD_CARD, StripeStandIn, open_stripe_stand_in

__all__ = ["DECLINED_CARD", "GOOD_CARD", "Fault", "StripeStandIn", "open_stripe_stand_in"]
