"""Money under concurrency and sudden death."""

import random
from contextlib import suppress
from decimal import Decimal

import trio

from proxy.tokens import count_tokens
from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_leaving import deltas, price, says_and_waits, wait_closed
from tests.fakes import RecordedRequest, Step, WaitFor, open_fake_upstream, openai_stream


async def test_fifty_parallel_requests_on_credit_for_ten(stores: Stores) -> None:
    """Each may cost the same; the provider waits until all have been decided, so that no settlement makes room."""
    decided = trio.Event()
    script = [WaitFor(decided), *openai_stream(["Hello"], usage=(8, 1000))]
    worst = Decimal("0.001604")  # 8 tokens in and 1,000 out, rounded up
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer(str(worst * 10 + worst / 2))
        statuses: list[bytes] = []

        async def call_once() -> None:
            async with open_caller(cloche) as caller:
                await caller.send(SHIPPED, customer, build_chat(stream=False, max_tokens=1000))
                await caller.read_until(b"}")
                statuses.append(caller.text)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(call_once)
            with trio.fail_after(10):
                while len(statuses) < 40:
                    await trio.sleep(0.01)
            balance, held = cloche.balance(customer)
            assert held == worst * 10
            assert balance - held >= 0
            decided.set()
        refused = [text for text in statuses if text.startswith(b"HTTP/1.1 402")]
        served = [text for text in statuses if text.startswith(b"HTTP/1.1 200")]
        assert (len(served), len(refused)) == (10, 40)
        assert all(b"credit_insufficient" in text for text in refused)
        assert len(upstream.requests) == 10
        assert cloche.balance(customer) == (worst * 10 + worst / 2 - 10 * price(8, 1000), 0)
        cloche.check_accounts()


async def test_a_charge_above_the_hold_is_charged_and_blocks_the_next_request(stores: Stores) -> None:
    """The provider says that it used more than we allowed: the debt is recorded, and nothing is given away."""
    script = openai_stream(["Hello"], usage=(8, 5000))
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer("0.001604")
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b"stream_completed")
        assert cloche.balance(customer) == (Decimal("0.001604") - price(8, 5000), 0)
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b"402")
        cloche.check_accounts()


async def test_kill_nine_during_a_hundred_streams(stores: Stores) -> None:
    """The next process on the machine finds what each stream had delivered, and charges exactly that, once."""
    chance = random.Random(11)  # noqa: S311 - a test that can be repeated
    plans = [chance.randint(1, 30) for _ in range(100)]

    def respond(request: RecordedRequest) -> list[Step]:
        return says_and_waits(plans[int(request.json["messages"][0]["content"])])

    async with open_fake_upstream(respond) as upstream:
        async with open_cloche(stores, upstream.url) as cloche:
            customers = [await cloche.make_customer("5") for _ in range(4)]
            async with trio.open_nursery() as nursery:
                for number, plan in enumerate(plans):
                    await nursery.start(stream_until_killed, cloche, customers[number % 4], number, plan)
                await wait_noted(cloche)
                cloche.kill()
            await wait_closed(upstream, 100)
            assert cloche.query("SELECT count(*) FROM holds WHERE state = 'held'") == [(100,)]
        async with open_cloche(stores, upstream.url) as cloche:
            await cloche.wait_settled()
            spent = sum(
                price(prompt, tokens(plan))
                for prompt, plan in zip(map(prompt_tokens, range(100)), plans, strict=True)
            )
            assert sum(5 - cloche.balance(customer)[0] for customer in customers) == spent
            assert [cloche.balance(customer)[1] for customer in customers] == [0] * 4
            assert cloche.query("SELECT count(*), bool_and(provisional) FROM usage") == [(100, True)]
            assert cloche.query("SELECT count(*) FROM credit_ledger WHERE kind = 'charge'") == [(100,)]
            cloche.check_accounts()
        assert not list(stores.journal_folder.iterdir())


async def test_a_lost_machine_leaves_holds_that_expire(stores: Stores) -> None:
    """The journal is gone with the machine: another one settles when the lease has ended, by what was renewed last."""
    other = Stores(stores.database_url, stores.owner_database_url, stores.redis_url, stores.journal_folder / "other")
    async with open_fake_upstream(says_and_waits(7)) as upstream:
        async with open_cloche(stores, upstream.url, HOLD_LEASE_SECONDS="2") as cloche:
            customer = await cloche.make_customer()
            async with trio.open_nursery() as nursery:
                await nursery.start(stream_until_killed, cloche, customer, 0, 7)
                with trio.fail_after(5):
                    while cloche.query("SELECT progress ->> 'output_tokens' FROM holds") != [(str(tokens(7)),)]:
                        await trio.sleep(0.05)
                cloche.kill()
        async with open_cloche(other, upstream.url, HOLD_LEASE_SECONDS="2") as cloche:
            await cloche.wait_settled()
            assert cloche.balance(customer) == (10 - price(prompt_tokens(0), tokens(7)), 0)
            cloche.check_accounts()


async def test_a_call_that_outlives_its_lease_is_charged_once_and_in_full(stores: Stores) -> None:
    """Somebody took its hold for orphaned; when it ends after all, the charge is corrected by the difference."""
    finish = trio.Event()
    steps = openai_stream(deltas(3), usage=(100, 50))
    async with (
        open_fake_upstream([*steps[:5], WaitFor(finish), *steps[5:]]) as upstream,
        open_cloche(stores, upstream.url, HOLD_LEASE_SECONDS="4000") as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b" gamma")
            cloche.query("UPDATE holds SET expires_at = now() - interval '1 second' RETURNING 1")
            async with open_cloche(
                Stores(stores.database_url, stores.owner_database_url, stores.redis_url, stores.journal_folder / "b")
            ):
                await cloche.wait_settled()
            finish.set()
            await caller.read_until(b"stream_completed")
        assert cloche.balance(customer) == (10 - price(100, 50), 0)
        assert cloche.query("SELECT kind FROM credit_ledger WHERE hold_id IS NOT NULL ORDER BY id") == [("correction",)]
        cloche.check_accounts()


async def stream_until_killed(
    cloche: Cloche,
    customer: Customer,
    number: int,
    plan: int,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with open_caller(cloche) as caller:
        await caller.send(OPENAI, customer, build_chat(str(number)))
        await caller.read_until(b'"content":" ', plan)
        task_status.started()
        with suppress(trio.BrokenResourceError):
            await caller.stream.receive_some()


async def wait_noted(cloche: Cloche) -> None:
    """The client has the last bytes a moment before the server's next step, in which it notes that they went out."""
    await trio.sleep(0.3)
    assert cloche.process.poll() is None


def tokens(count: int) -> int:
    return sum(map(count_tokens, deltas(count)))


def prompt_tokens(number: int) -> int:
    return 4 + count_tokens(str(number)) + 3
