"""People and providers who mean harm or know no better: nobody is served for nothing, charged for nothing, or shown
what is another's; and the server lives on.
"""

import base64
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from itertools import cycle
from typing import Any
from uuid import UUID

import h2.config
import h2.connection
import pytest
import trio

import storage.postgres
import storage.psycopg_trio
from server.leases import build_settlement
from storage.credits import Credits
from storage.embedded import EmbeddedServers
from storage.errors import DatabaseUnavailable
from storage.postgres import open_database
from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, build_request, join_text, open_caller, read_events
from tests.end_to_end.cloche import SECRET, Cloche, Customer, Stores, fetch_status, open_cloche
from tests.end_to_end.hostile_inputs import BAD, BODY, COUNTED, GOOD, OPENAI_HAS_NONE, PROMPT, REQUESTS
from tests.end_to_end.test_leaving import deltas, price, price_of_deltas, says_and_waits, wait_closed
from tests.fakes import RecordedRequest, SendChunk, Step, WaitFor, open_fake_upstream, openai_stream, stream_head


async def test_a_provider_that_sends_garbage_costs_what_it_said_and_its_clients_see_an_end(
    stores: Stores, capfd: pytest.CaptureFixture[str]
) -> None:
    playing: list[Step] = []
    async with (
        open_fake_upstream(lambda _: tuple(playing)) as upstream,
        open_cloche(stores, upstream.url, PROVIDER_IDLE_SECONDS="2") as cloche,
    ):
        customer = await cloche.make_customer()
        for name, (script, cost) in in_a_bearable_order():
            playing[:] = script
            before, _ = cloche.balance(customer)
            async with open_caller(cloche) as caller:
                await caller.send(SHIPPED, customer, build_chat(PROMPT))
                await caller.read_until(b"\r\n0\r\n\r\n")
            await cloche.wait_settled()
            end = "stream_completed" if name in GOOD else "error_details"
            assert (name, read_events(caller.text)[-1][0]) == (name, end)
            assert (name, before - cloche.balance(customer)[0]) == (name, cost)
            assert len(caller.text) < 10_000
            assert b"sk-upstream" not in caller.text
        cloche.check_accounts()
        assert await fetch_status(cloche.port, "/health/ready") == 200
    check_log(capfd.readouterr().err, customer)


def in_a_bearable_order() -> Iterator[tuple[str, tuple[list[Step], Decimal]]]:
    """Two good answers after each bad one: what fails more often is given a rest by its circuit breaker."""
    yield from GOOD.items()
    good = cycle(GOOD.items())
    for bad in BAD.items():
        yield from (bad, next(good), next(good))


async def test_hostile_requests_are_refused_or_served_and_never_an_error_of_ours(
    stores: Stores, capfd: pytest.CaptureFixture[str]
) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hi"], usage=(8, 1))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        for name, (body, status) in REQUESTS.items():
            for path in (SHIPPED, OPENAI):
                expected = 200 if path == OPENAI and name in OPENAI_HAS_NONE else status
                assert (name, await call(cloche, path, customer.headers, body)) == (name, expected)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - len(upstream.requests) * price(8, 1), 0)
        cloche.check_accounts()
    check_log(capfd.readouterr().err, customer)


async def test_credentials_of_somebody_else_or_of_nobody_are_refused(stores: Stores) -> None:
    async with open_fake_upstream() as upstream, open_cloche(stores, upstream.url) as cloche:
        customer, other = await cloche.make_customer(), await cloche.make_customer()
        _, claims, signature = customer.token.split(".")
        nothing = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        unsigned = (f"{nothing}.{claims}.", f"{nothing}.{claims}.{signature}")
        for token in (other.token, *unsigned, "a.b.c", "\xe9.\xe9.\xe9"):
            headers = {**customer.device_headers, "Authorization": f"Bearer {token}"}
            assert await call(cloche, SHIPPED, headers, BODY) == 401
        headers = {"authorization": f"Bearer {other.token}", **customer.headers}
        assert await call(cloche, SHIPPED, headers, BODY) == 401
        assert not upstream.connections


async def test_one_idempotency_key_in_parallel_is_one_call(stores: Stores) -> None:
    go = trio.Event()
    script = [WaitFor(go), *openai_stream(["Hi"], usage=(8, 1))]
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        headers = {**customer.headers, "Idempotency-Key": "the same"}
        statuses: list[int] = []

        async def call_once() -> None:
            statuses.append(await call(cloche, OPENAI, headers, BODY))
            if len(statuses) == 19:
                go.set()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call_once)
        assert sorted(statuses) == [200, *[409] * 19]
        assert await call(cloche, OPENAI, headers, BODY) == 409
        assert len(upstream.requests) == 1
        assert cloche.balance(customer) == (10 - price(8, 1), 0)


async def test_nobody_gets_the_bytes_of_an_answer_that_another_left(stores: Stores) -> None:
    def respond(request: RecordedRequest) -> list[Step]:
        text = request.json["messages"][0]["content"]
        return openai_stream([f" {text}"] * 30, usage=(8, 30), pause_seconds=0.002)

    async with open_fake_upstream(respond) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()

        async def call_often(who: int) -> None:
            for turn in range(6):
                text = f"caller{who}turn{turn}"
                async with open_caller(cloche) as caller:
                    await caller.send(OPENAI, customer, build_chat(text))
                    await caller.read_until(b" " + text.encode(), 1 + who % 5)
                    if (who + turn) % 3:
                        caller.reset()
                        continue
                    await caller.read_until(b"\r\n0\r\n\r\n")
                    assert join_text(read_events(caller.text)) == f" {text}" * 30

        async with trio.open_nursery() as nursery:
            for who in range(12):
                nursery.start_soon(call_often, who)
        await cloche.wait_settled()
        assert len(upstream.connections) < len(upstream.requests), "no connection was used again"
        cloche.check_accounts()


async def test_a_request_behind_one_that_is_left_is_never_made(stores: Stores) -> None:
    async with open_fake_upstream(says_and_waits(3)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.stream.send_all(build_request(SHIPPED, customer.headers, BODY) * 2)
            await caller.read_until(b" gamma")
            caller.reset()
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert len(upstream.requests) == 1
        assert cloche.balance(customer) == (10 - price_of_deltas(3, COUNTED), 0)


async def test_a_hundred_http2_streams_of_which_half_are_reset(stores: Stores) -> None:
    finish = trio.Event()
    steps = openai_stream(deltas(3), usage=(8, 9))
    async with (
        open_fake_upstream([*steps[:5], WaitFor(finish), *steps[5:]]) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        tcp = await trio.open_tcp_stream("127.0.0.1", cloche.port)
        async with tcp:
            client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            client.initiate_connection()
            for stream_id in range(1, 200, 2):
                start_stream(client, stream_id, customer)
            await read_marks(client, tcp, b" gamma", 100)
            for stream_id in range(1, 200, 4):
                client.reset_stream(stream_id)
            await tcp.send_all(client.data_to_send())
            with trio.fail_after(5):
                while upstream.open_connections > 50:
                    await trio.sleep(0.01)
            finish.set()
            await read_marks(client, tcp, b"stream_completed", 50)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - 50 * price_of_deltas(3, COUNTED) - 50 * price(8, 9), 0)
        cloche.check_accounts()


async def test_what_was_swept_while_we_could_not_settle_is_corrected_to_the_last_token(stores: Stores) -> None:
    """PostgreSQL is away for longer than a lease; when it is back, another machine is quicker than we are."""
    finish = trio.Event()
    steps = openai_stream(deltas(3), usage=(100, 50))
    async with (
        open_fake_upstream([*steps[:5], WaitFor(finish), *steps[5:]]) as upstream,
        open_cloche(stores, upstream.url, HOLD_LEASE_SECONDS="3") as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as leaver, open_caller(cloche) as stayer:
            for caller in (leaver, stayer):
                await caller.send(SHIPPED, customer, build_chat(PROMPT))
                await caller.read_until(b" gamma")
            cloche.query("UPDATE holds SET progress = '{}' RETURNING 1")
            async with postgres_away(cloche):
                leaver.leave()
                with trio.fail_after(5):
                    while not any(connection.closed_by_client.is_set() for connection in upstream.connections):
                        await trio.sleep(0.01)
                finish.set()
                await stayer.read_until(b"stream_completed")
                await sweep_elsewhere(cloche)
                assert cloche.balance(customer) == (10, 0)
        await wait_balance(cloche, customer, 10 - price_of_deltas(3, COUNTED) - price(100, 50))
        cloche.check_accounts()


async def test_what_was_swept_before_a_killed_server_came_back_is_corrected_to_the_last_token(stores: Stores) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream:
        async with open_cloche(stores, upstream.url, HOLD_LEASE_SECONDS="4000") as cloche:
            customer = await cloche.make_customer()
            async with open_caller(cloche) as caller:
                await caller.send(SHIPPED, customer, build_chat(PROMPT))
                await caller.read_until(b" epsilon")
                await trio.sleep(0.2)
                cloche.kill()
            await sweep_elsewhere(cloche)
            assert cloche.balance(customer) == (10, 0)
        async with open_cloche(stores, upstream.url) as cloche:
            await wait_balance(cloche, customer, 10 - price_of_deltas(5, COUNTED))
            cloche.check_accounts()


async def test_a_database_that_hangs_is_told_as_one_that_is_away(
    database_url: str, owner_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel takes every byte and confirms it: no timeout of TCP, and none of PostgreSQL's own, ever ends that."""
    monkeypatch.setattr(storage.postgres, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(storage.psycopg_trio, "CANCEL_SECONDS", 0.1)
    async with open_database(database_url, size=1) as database:
        operator = database.as_operator("test")
        [(process,)] = await operator.fetch("SELECT pg_backend_pid()")
        os.kill(process, signal.SIGSTOP)
        try:
            with trio.fail_after(5), pytest.raises(DatabaseUnavailable):
                await operator.fetch("SELECT 1")
        finally:
            os.kill(process, signal.SIGCONT)
        assert await operator.fetch("SELECT 1") == [(1,)]


async def test_a_redis_that_hangs_is_503_and_never_401_and_is_found_again(
    stores: Stores, servers: EmbeddedServers
) -> None:
    script = openai_stream(["Hi"], usage=(8, 1))
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        assert await call(cloche, SHIPPED, customer.headers, BODY) == 200
        os.kill(servers.redis_pid, signal.SIGSTOP)
        try:
            assert await call(cloche, SHIPPED, customer.headers, BODY) == 503
        finally:
            os.kill(servers.redis_pid, signal.SIGCONT)
        with trio.fail_after(5):  # for a second nobody asks again
            while (status := await call(cloche, SHIPPED, customer.headers, BODY)) != 200:
                assert status == 503
                await trio.sleep(0.05)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - 2 * price(8, 1), 0)


async def test_streams_that_are_cut_at_full_speed_are_charged_for_all_that_came_out(
    stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Clients read to the end of their connections, so what reached them is known; the server was busy writing."""
    configuration = tmp_path_factory.mktemp("hypercorn") / "hypercorn.toml"
    configuration.write_text('worker_class = "trio"\nworkers = 0\ngraceful_timeout = 1\nerrorlog = "-"\n')
    delta = b'data: {"choices":[{"index":0,"delta":{"content":" x"}}]}\n\n'
    async with (
        open_fake_upstream([stream_head(), *[SendChunk(delta)] * 200_000]) as upstream,
        open_cloche(stores, upstream.url, options=("-c", str(configuration))) as cloche,
    ):
        read: dict[UUID, int] = {}

        async def read_all(customer: Customer) -> None:
            async with open_caller(cloche) as caller:
                await caller.send(OPENAI, customer, build_chat())
                with suppress(trio.BrokenResourceError):
                    await caller.read_all()
            read[customer.user_id] = caller.text.count(b'"content":" x"')

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(read_all, await cloche.make_customer())
            await trio.sleep(1)
            cloche.process.terminate()
        assert dict(cloche.query("SELECT user_id, output_tokens FROM usage")) == read
        assert sum(read.values()) > 0
        cloche.check_accounts()


async def test_a_worker_that_is_killed_loses_nothing(stores: Stores) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream:
        async with open_cloche(stores, upstream.url, options=("-w", "2")) as cloche:
            customer = await cloche.make_customer()
            callers = [await trio.open_tcp_stream("127.0.0.1", cloche.port) for _ in range(20)]
            for caller in callers:
                await caller.send_all(build_request(SHIPPED, customer.headers, BODY))
            with trio.fail_after(10):
                while sum(connection.sent_chunks == 6 for connection in upstream.connections) < 20:
                    await trio.sleep(0.01)
            await trio.sleep(0.3)
            workers = [int(path.name.partition("-")[0]) for path in stores.journal_folder.iterdir()]
            os.kill(workers[0], signal.SIGKILL)
            for caller in callers:
                await caller.aclose()
            await wait_closed(upstream, 20)
        async with open_cloche(stores, upstream.url) as cloche:
            await cloche.wait_settled()
            assert cloche.balance(customer) == (10 - 20 * price_of_deltas(5, COUNTED), 0)
            cloche.check_accounts()


async def call(cloche: Cloche, path: str, headers: Any, body: bytes) -> int:
    """The status, when the answer has come completely."""
    async with open_caller(cloche) as caller:
        request = build_request(path, {**headers, "Connection": "close"}, body)
        await caller.stream.send_all(request)
        return int((await caller.read_all()).split(maxsplit=2)[1])


def check_log(log: str, customer: Customer) -> None:
    """What the server wrote holds no secret, and no error that was not foreseen."""
    for secret in (customer.token, customer.token.rpartition(".")[2], "sk-upstream", SECRET, PROMPT):
        assert secret not in log
    assert "Running on" in log
    assert "in our own code" not in log
    assert len(log) < 40_000


@asynccontextmanager
async def postgres_away(cloche: Cloche) -> AsyncIterator[None]:
    """Nobody but the superuser gets in or stays in."""
    limit = "UPDATE pg_database SET datconnlimit = %s WHERE datname = current_database() RETURNING 1"
    cloche.query(limit, 0)
    cloche.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloche'")
    try:
        yield
    finally:
        cloche.query(limit, -1)


async def sweep_elsewhere(cloche: Cloche) -> None:
    """What another machine does with leases that have ended."""
    cloche.query("UPDATE holds SET expires_at = now() - interval '1 second' RETURNING 1")
    async with open_database(cloche.owner_database_url, size=1) as database:
        credits_ = Credits(database)
        for hold in await credits_.find_expired():
            assert await credits_.settle_expired(build_settlement(hold))


async def wait_balance(cloche: Cloche, customer: Customer, balance: object) -> None:
    with trio.move_on_after(10):
        while cloche.balance(customer) != (balance, 0):
            await trio.sleep(0.02)
    assert cloche.balance(customer) == (balance, 0)


def start_stream(client: h2.connection.H2Connection, stream_id: int, customer: Customer) -> None:
    headers = [(":method", "POST"), (":path", SHIPPED), (":scheme", "http"), (":authority", "cloche")]
    client.send_headers(stream_id, headers + [(name.lower(), value) for name, value in customer.headers.items()])
    client.send_data(stream_id, BODY, end_stream=True)


async def read_marks(
    client: h2.connection.H2Connection, tcp: trio.SocketStream, mark: bytes, times: int
) -> None:
    seen: dict[int, bytes] = {}
    with trio.fail_after(15):
        await tcp.send_all(client.data_to_send())
        while sum(mark in text for text in seen.values()) < times:
            for event in client.receive_data(await tcp.receive_some(65536)):
                if isinstance(event, h2.events.DataReceived):
                    seen[event.stream_id] = seen.get(event.stream_id, b"") + event.data
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            await tcp.send_all(client.data_to_send())
