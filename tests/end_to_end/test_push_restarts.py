"""Pushes when servers end in mid-delivery, and when there are two of them."""

import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack

import trio

from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.push_scene import Phone, add_phone, find_deliveries, notify, wait_none_due
from tests.end_to_end.test_push_faults import build_wanted, check_exactly_once, tell
from tests.push_stand_in import Accept, Book, Held, open_push_stand_in

PHONES, JOBS = 10, 20
SETTINGS = {"PUSH_LEASE_SECONDS": "5"}
OTHERS_AT_WORK = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def add_phones(cloche: Cloche) -> tuple[Customer, list[Phone]]:
    desktop = await cloche.make_customer()
    return desktop, [await add_phone(cloche, desktop) for _ in range(PHONES)]


def count_noted(cloche: Cloche) -> int:
    return sum(state == "sent" for _, state, _ in find_deliveries(cloche))


def find_push_ids(book: Book) -> Mapping[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for push in book.received:
        found.setdefault(push.identity, set()).add(push.push_id)
    return found


async def test_after_kill_9_all_arrive_and_only_what_was_in_flight_comes_again_as_the_same_notification(
    stores: Stores,
) -> None:
    """APNs has acknowledged what nobody could note any more: it cannot be known from here whether it arrived."""
    async with open_push_stand_in() as push:
        book, settings = push.apns.book, {**push.apns_settings, **SETTINGS}
        async with open_cloche(stores, settings=settings) as cloche:
            desktop, phones = await add_phones(cloche)
            may_begin = trio.Event()
            push.apns.script.otherwise = lambda _: Held(may_begin)
            await tell(cloche, desktop, JOBS, PHONES)
            await book.wait_received(1)
            answered = {phone.token for phone in phones[: PHONES // 2]}
            push.apns.script.otherwise = lambda seen: Accept() if seen.token in answered else Held(60.0)
            may_begin.set()
            with trio.fail_after(10):
                while len(book.acknowledged) < count_noted(cloche) + 4 * PHONES:
                    await trio.sleep(0.01)
            cloche.kill()
            with trio.fail_after(5):
                while push.apns.open_connections or cloche.query(OTHERS_AT_WORK):  # a statement outlives who sent it
                    await trio.sleep(0.01)
            noted = count_noted(cloche)
            acknowledged = set(book.count_acknowledged())
            assert noted < len(acknowledged) < PHONES * JOBS
        push.apns.script.otherwise = lambda _: Accept()
        async with open_cloche(stores, settings=settings) as again:
            await wait_none_due(again, 20)
            await book.wait_until(lambda seen: set(seen.count_acknowledged()) == build_wanted(phones, JOBS))
        counts = book.count_acknowledged()
        assert set(counts) == build_wanted(phones, JOBS)
        repeated = {each for each, count in counts.items() if count > 1}
        assert repeated <= acknowledged
        assert len(repeated) == len(acknowledged) - noted
        assert max(counts.values()) == 2
        assert {len(push_ids) for push_ids in find_push_ids(book).values()} == {1}


async def test_a_server_that_is_stopped_in_mid_delivery_leaves_nothing_to_be_sent_twice(stores: Stores) -> None:
    """What is under way is answered soon, and that is waited for; the rest is not begun."""
    async with open_push_stand_in() as push:
        book, may_begin = push.apns.book, trio.Event()
        push.apns.script.otherwise = lambda _: Held(may_begin)
        async with open_cloche(stores, settings=push.apns_settings) as cloche:
            desktop, phones = await add_phones(cloche)
            await tell(cloche, desktop, JOBS, PHONES)
            await book.wait_received(1)
            push.apns.script.otherwise = lambda _: Held(0.3)
            may_begin.set()
            await book.wait_acknowledged(PHONES)
            cloche.process.send_signal(signal.SIGTERM)
            await trio.to_thread.run_sync(cloche.process.wait)
        assert PHONES <= len(book.acknowledged) < PHONES * JOBS
        assert book.cut == []
        push.apns.script.otherwise = lambda _: Accept()
        async with open_cloche(stores, settings=push.apns_settings) as again:
            await wait_none_due(again)
        await check_exactly_once(book, build_wanted(phones, JOBS))


async def test_two_servers_share_the_work_and_send_nothing_twice(stores: Stores) -> None:
    async with open_push_stand_in() as push, AsyncExitStack() as stack:
        push.apns.script.otherwise = lambda _: Held(0.01)
        servers = [
            await stack.enter_async_context(open_cloche(stores, settings=push.apns_settings)) for _ in range(2)
        ]
        desktop, phones = await add_phones(servers[0])
        for job in range(JOBS):
            assert await notify(servers[job % 2], desktop, jobId=f"job-{job}") == PHONES
        await wait_none_due(servers[0])
        await check_exactly_once(push.apns.book, build_wanted(phones, JOBS))
        assert len(push.apns.provider_tokens) == 2
