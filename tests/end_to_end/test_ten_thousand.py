"""Chats of fifty users on two servers, with clients leaving at random: what is charged is what a recount says."""

import random
import time
from collections.abc import Sequence
from decimal import Decimal

import pytest
import trio

from storage.postgres import open_database
from tests.end_to_end.cloche import Cloche, Stores, build_environment, open_cloche
from tests.end_to_end.crowd import USERS, Plan, Provider, Recount, User, chat, draw_plans, make_users
from tests.end_to_end.test_leaving import price, read_number
from tests.fakes import FakeUpstream, RecordedConnection, open_fake_upstream
from tests.scripts.commands import run_command

AT_ONCE = 40


@pytest.mark.parametrize("chats", [600, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_charges_equal_an_independent_recount_to_the_last_place(stores: Stores, chats: int) -> None:
    chance = random.Random(chats)  # noqa: S311 - a test that can be repeated
    plans, recount = draw_plans(chats, chance), Recount()
    limit = trio.CapacityLimiter(AT_ONCE)
    async with (
        open_fake_upstream(Provider(plans).respond) as upstream,
        open_cloche(stores, upstream.url, DATABASE_CONNECTIONS="10") as one,
        open_cloche(stores, upstream.url, DATABASE_CONNECTIONS="10") as other,
        open_database(stores.database_url, size=1) as database,
    ):
        users = await make_users(one, database, chats // USERS)
        owners = [chance.randrange(USERS) for _ in plans]

        async def run(number: int) -> None:
            owner = owners[number]
            async with limit:
                await chat((one, other)[number % 2], users[owner], number, plans[number], owner, recount)

        started = time.monotonic()
        async with trio.open_nursery() as nursery:
            for number in range(chats):
                nursery.start_soon(run, number)
        seconds = time.monotonic() - started
        await one.wait_settled(30)
        await wait_cut(upstream, plans)
        print(f"{chats} chats in {seconds:.0f} s, {chats / seconds:.0f} a second: {dict(recount.statuses)}")

        assert recount.statuses["402"] > 0, "somebody was to run dry"
        charged = sum(compare(one, user, number, recount) for number, user in enumerate(users))
        assert one.query("SELECT sum(cost_usd) FROM usage") == [(charged,)]
        assert one.query("SELECT count(*) FROM spending_limits WHERE held_usd <> 0") == [(0,)]
        assert one.query("SELECT count(*) > 0 FROM credit_ledger WHERE kind = 'charge' AND free_usd < 0") == [(True,)]
        one.check_accounts()
        done = run_command("reconcile", environment=build_environment(stores, upstream.url, {}))
        assert (done.status, done.output.splitlines()[-1]) == (0, "clean"), done.output + done.errors


async def wait_cut(upstream: FakeUpstream, plans: Sequence[Plan]) -> None:
    """Until every connection has ended whose answer did not: others are kept for the next chat."""
    with trio.fail_after(10):
        while any(connection.is_open and not is_kept(connection, plans) for connection in upstream.connections):
            await trio.sleep(0.01)


def is_kept(connection: RecordedConnection, plans: Sequence[Plan]) -> bool:
    return bool(connection.requests) and plans[read_number(connection.requests[-1])].kind == "stays"


def compare(cloche: Cloche, user: User, number: int, recount: Recount) -> Decimal:
    """What the user was charged. Every call costs what was counted here, and the balance is what is left."""
    rows = "SELECT cost_usd, input_tokens, output_tokens, provisional FROM usage WHERE user_id = %s AND cost_usd > 0"
    found = cloche.query(rows, user.customer.user_id)
    begun = [(cost, tokens) for cost, tokens, output, provisional in found if provisional and not output]
    assert len(begun) <= recount.uncertain[number]
    assert all(cost == price(tokens, 0) for cost, tokens in begun)
    costs = sorted(recount.costs[number] + [cost for cost, _ in begun])
    assert sorted(cost for cost, *_ in found) == costs, difference([cost for cost, *_ in found], costs)
    charged = sum(costs, Decimal(0))
    assert cloche.balance(user.customer) == (user.granted_usd - charged, 0)
    return charged


def difference(found: Sequence[Decimal], counted: Sequence[Decimal]) -> str:
    only_found, only_counted = list(found), list(counted)
    for cost in counted:
        if cost in only_found:
            only_found.remove(cost)
            only_counted.remove(cost)
    return f"charged and not counted: {only_found}; counted and not charged: {only_counted}"
