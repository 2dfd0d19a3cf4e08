"""`python -m scripts.reconcile` beside a running server, with localstripe in Stripe's place: what we were not told is
found, and repaired.
"""

from decimal import Decimal

import trio

from tests.end_to_end.cloche import Stores, build_environment
from tests.end_to_end.test_buying import open_shop
from tests.scripts.commands import Done, run_command
from tests.stripe_stand_in import StripeStandIn, open_stripe_stand_in


async def reconcile(stores: Stores, stripe: StripeStandIn, *arguments: str) -> Done:
    environment = build_environment(stores, "http://127.0.0.1:9", stripe.settings)
    return await trio.to_thread.run_sync(lambda: run_command("reconcile", *arguments, environment=environment))


async def test_a_refund_and_a_dispute_whose_events_got_lost_are_found_and_taken_back(stores: Stores) -> None:
    """localstripe: payments, the refund. The front: the dispute."""
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        buyer = await shop.make_buyer()
        payments = [await shop.buy(buyer) for _ in range(3)]
        await shop.wait_balance(buyer, "24.00")
        await shop.wait_worked_off()
        clean = await reconcile(stores, stripe)
        assert (clean.status, clean.errors) == (0, "")
        assert clean.output.splitlines()[-2:] == [
            "stripe: ok; 3 payments of ours, and 0 of users who are gone",
            "clean",
        ]

        stripe.events.types = ()
        await stripe.refund(payments[0], 250)
        await stripe.open_dispute(payments[1], 500)
        found = await reconcile(stores, stripe, "--days", "3")
        assert found.status == 1
        told = [line for line in found.output.splitlines() if line.startswith("  pi_")]
        assert sorted(line.split(":")[0].strip() for line in told) == sorted(payments[:2])
        assert sum("refunded 0, Stripe says 250" in line for line in told) == 1
        assert sum("disputed 0, Stripe says 500" in line for line in told) == 1
        assert shop.read_balance(buyer) == 24

        repaired = await reconcile(stores, stripe, "--days", "3", "--repair")
        assert (repaired.status, repaired.output.count("; repaired")) == (0, 2)
        assert repaired.output.splitlines()[-1] == "clean"
        assert shop.read_balance(buyer) == 24 - Decimal(8) * (250 + 500) / 1000
        shop.cloche.check_accounts()
