"""The long version of leaving: only with ./scripts/test --soak."""

import random
import time
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.test_leaving import (
    cut_one,
    price,
    price_of_deltas,
    prompt_tokens,
    read_number,
    says_and_waits,
    wait_closed,
    wait_sockets,
)
from tests.fakes import RecordedRequest, Step, open_fake_upstream

STREAMS = 6000
AT_ONCE = 60


@pytest.mark.soak
async def test_thousands_of_streams_cut_at_random_leave_nothing_behind(stores: Stores) -> None:
    """Memory, sockets and money after six thousand streams, of which no client stayed to the end."""
    chance = random.Random(3)  # noqa: S311 - a test that can be repeated
    plans = [chance.choice([0, 1, 2, 5, 9]) for _ in range(STREAMS)]

    def respond(request: RecordedRequest) -> Iterable[Step]:
        return says_and_waits(plans[read_number(request)])

    async with open_fake_upstream(respond) as upstream, open_cloche(stores, upstream.url) as cloche:
        customers = [await cloche.make_customer("30") for _ in range(20)]
        before = cloche.open_sockets()
        left_at = [0.0] * STREAMS
        sizes: list[int] = []
        limit = trio.CapacityLimiter(AT_ONCE)

        async def cut(number: int) -> None:
            async with limit:
                delay = chance.uniform(0, 0.05)
                await cut_one(cloche, customers[number % 20], number, plans[number], delay, left_at)

        started = time.monotonic()
        for batch in range(0, STREAMS, STREAMS // 6):
            async with trio.open_nursery() as nursery:
                for number in range(batch, batch + STREAMS // 6):
                    nursery.start_soon(cut, number)
            sizes.append(memory_kib(cloche))
        await cloche.wait_settled(30)
        await wait_sockets(cloche, before)
        await wait_closed(upstream)
        print(f"{STREAMS} streams in {time.monotonic() - started:.0f} s; memory {sizes} KiB")

        assert upstream.open_connections == 0
        assert sizes[-1] - sizes[1] < 16 * 1024, "memory grows with the number of streams that have ended"
        spoken = sum((price_of_deltas(plan, prompt_tokens(n)) for n, plan in enumerate(plans) if plan), Decimal(0))
        silent = "SELECT coalesce(sum(cost_usd), 0), count(*) FROM usage WHERE output_tokens = 0 AND input_tokens > 0"
        cost, count = cloche.query(silent)[0]
        assert sum(30 - cloche.balance(customer)[0] for customer in customers) == spoken + cost
        assert cost <= count * price(12, 0)
        cloche.check_accounts()


def memory_kib(cloche: Cloche) -> int:
    status = Path(f"/proc/{cloche.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
