"""`/ws/events`, as a stream and as a WebSocket, on one server and between two: what is told, replayed, and ended."""

import json
import signal
from contextlib import AsyncExitStack
from decimal import Decimal

import httpx2
import pytest
import trio

from scripts.device_link.link import LinkRefused
from tests.end_to_end.caller import OPENAI, build_chat, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_leaving import says_and_waits
from tests.end_to_end.watching import PATH, Watch, open_both, open_socket, open_stream
from tests.fakes import open_fake_upstream

DONE = {"jobId": "job-1", "title": "Done", "body": "It is done", "customData": {"type": "job_completed"}}
PING = '{"type":"ping"}'
NOTIFICATIONS_ALONE = "?types=notification-created"


async def notify(cloche: Cloche, customer: Customer, title: str = "Done") -> None:
    async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
        answer = await client.post("/api/notifications/job-completed", json={**DONE, "title": title})
        assert answer.status_code == 200, answer.text


async def read_titles(watch: Watch, times: int) -> list[str]:
    return [one.payload["title"] for one in await watch.wait_for("notification-created", times)]


async def test_what_happens_on_one_server_is_told_on_another(stores: Stores) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(open_fake_upstream(says_and_waits(4)))
        here = await stack.enter_async_context(open_cloche(stores, upstream.url))
        there = await stack.enter_async_context(open_cloche(stores, upstream.url))
        customer = await here.make_customer("10")
        watches = await stack.enter_async_context(open_both(here, customer))
        for watch in watches:
            (balance,) = await watch.wait_for("balance-changed")
            assert balance.payload == {
                "balanceDecimal": "10.000000",
                "freeCreditBalance": "0.000000",
                "currency": "USD",
            }
        await notify(there, customer)
        async with open_caller(there) as caller:
            await caller.send(OPENAI, customer, build_chat())
            await caller.read_until(b" delta")
            await watches[0].wait_for("chat-progress")
        for watch in watches:
            (created,) = await watch.wait_for("notification-created")
            (finished,) = await watch.wait_for("chat-finished")
            (started,), (progress,) = await watch.wait_for("chat-started"), await watch.wait_for("chat-progress")
            assert started.payload["requestId"] == progress.payload["requestId"] == finished.payload["requestId"]
            assert progress.payload["completionTokens"] > 0
            assert finished.payload["outcome"] == "cancelled"
            assert 0 < (created.id or 0) < (started.id or 0) < (finished.id or 0)
            _, charged = await watch.wait_for("balance-changed", 2)
            assert Decimal(charged.payload["balanceDecimal"]) == 10 - Decimal(finished.payload["cost"])


async def test_who_comes_back_is_told_what_it_missed_and_no_more(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        async with open_both(cloche, customer, NOTIFICATIONS_ALONE) as watches:
            await notify(cloche, customer, "one")
            ((first,), (same,)) = [await watch.wait_for("notification-created") for watch in watches]
            assert first == same
        await notify(cloche, customer, "two")
        await notify(cloche, customer, "three")
        query, header = f"{NOTIFICATIONS_ALONE}&lastEventId=1", {"Last-Event-ID": str(first.id)}
        async with open_both(cloche, customer, query, header) as watches:
            for watch in watches:
                assert await read_titles(watch, 2) == ["two", "three"]
            await notify(cloche, customer, "four")
            for watch in watches:
                assert await read_titles(watch, 3) == ["two", "three", "four"]
        async with open_both(cloche, customer, NOTIFICATIONS_ALONE) as watches:
            await notify(cloche, customer, "five")
            for watch in watches:
                assert await read_titles(watch, 1) == ["five"]


async def test_a_stream_and_a_socket_say_what_they_are_and_a_wrong_wish_is_refused(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        async with open_both(cloche, customer) as (stream, socket):
            assert b"\r\ncontent-type: text/event-stream" in stream.head.lower()
            assert b"\r\ncache-control: no-cache" in stream.head.lower()
            assert (await stream.wait_heartbeat())["userId"] == str(customer.user_id)
            assert await socket.ask(PING) == {"type": "pong"}
            refused = await socket.ask(json.dumps({"type": "event", "payload": {"eventType": "x", "payload": {}}}))
            assert refused["code"] == "readOnly"
            cloche.query("INSERT INTO regions (label, url) VALUES ('Mars', 'https://mars.example.com') RETURNING 1")
            for watch in (stream, socket):
                (changed,) = await watch.wait_for("configuration-changed")
                assert changed.payload == {"tables": ["regions"]}
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
            assert (await client.get(PATH, params={"lastEventId": "x"})).status_code == 400
            assert (await client.get(PATH, headers={"Last-Event-ID": "-1"})).status_code == 400
            head = await client.head(PATH)
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
        stranger = Customer(customer.user_id, {})
        async with open_stream(cloche, stranger) as stream:
            assert stream.head.startswith(b"HTTP/1.1 401")
        with pytest.raises(LinkRefused) as found:
            await open_socket(cloche, stranger).__aenter__()
        assert found.value.status == 401


async def test_a_sign_out_ends_it_within_a_second_on_every_server(stores: Stores) -> None:
    async with open_cloche(stores) as here, open_cloche(stores) as there:
        customer, other = await here.make_customer("0"), await here.make_customer("0")
        async with open_both(here, customer) as (stream, socket), open_socket(here, other) as stays:
            await socket.ask(PING)
            async with httpx2.AsyncClient(base_url=there.url, headers=dict(customer.headers)) as client:
                assert (await client.post("/api/auth/logout")).status_code == 200
            with trio.fail_after(1):
                assert await socket.read_until_ended() == 4401
                await stream.read_until_ended()
            await notify(here, other)
            await stays.wait_for("notification-created")


async def test_who_leaves_in_any_manner_leaves_nothing_and_a_server_that_stops_waits_for_nobody(
    stores: Stores,
) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        before = cloche.open_sockets()
        for _ in range(10):
            async with open_both(cloche, customer) as (_, socket):
                await socket.ask(PING)
                socket.link.cut()
        with trio.fail_after(5):
            while cloche.open_sockets() > before:
                await trio.sleep(0.01)
        async with open_both(cloche, customer) as (stream, socket):
            await socket.ask(PING)
            cloche.process.send_signal(signal.SIGTERM)
            assert await socket.read_until_ended() == 1012
            await stream.read_until_ended()
        with trio.fail_after(5):
            while cloche.process.poll() is None:
                await trio.sleep(0.01)
        assert cloche.find_logged('"level":"ERROR"') == []
