"""Cancelled calls where something else goes wrong too, or many things at once: the books stay exact."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path

import httpx2
import pytest
import trio
from openai import AsyncOpenAI, ConflictError

from tests.end_to_end.asking import ask
from tests.end_to_end.caller import SHIPPED, build_chat, open_caller, read_events
from tests.end_to_end.cloche import Stores
from tests.end_to_end.test_api_keys import make, with_key
from tests.end_to_end.test_cancelling import CANCEL, Scene, cost_of, open_scene, read_request_id, wait_accepted
from tests.end_to_end.test_leaving import deltas, price_of_deltas, says_and_waits, wait_closed
from tests.end_to_end.test_transcribing import post
from tests.fake_upstream import RecordedRequest
from tests.fakes import Pause, SendChunk, Step, WaitForClose, openai_stream, stream_head
from tests.proxy.calls import text_chunk
from tests.storage.redis_server import RedisServer

CALLS = 50
KIBIBYTE = "x" * 1024
FLOOD: list[Step] = [stream_head(), *[text_chunk(KIBIBYTE)] * 40_000, WaitForClose()]
"""More than all buffers between a provider and a client hold."""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def test_while_redis_is_away_a_process_cancels_its_own_calls_and_the_others_hear_of_it_by_their_leases(
    stores: Stores, own_redis: RedisServer
) -> None:
    here = replace(stores, redis_url=own_redis.url)
    async with (
        open_scene(here, says_and_waits(5), HOLD_LEASE_SECONDS="4") as scene,
        open_caller(scene.first) as caller,
        open_caller(scene.first) as other,
    ):
        for one in (caller, other):
            await one.send(SHIPPED, scene.customer, build_chat())
            await one.read_until(b'"content":" epsilon"')
        own_redis.kill()
        reply = await scene.cancel(read_request_id(other))
        assert (reply.status, reply.json["status"]) == (200, "active")
        await other.read_until(b"stream_cancelled")
        cost = cost_of(await replace(scene, servers=[scene.first]).cancel(read_request_id(caller)))
        await caller.read_until(b"stream_cancelled")
        assert cost == price_of_deltas(5)
        await scene.first.wait_settled()
        scene.check_charged(2 * cost)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_client_that_does_not_read_keeps_no_call_from_being_cancelled(stores: Stores, count: int) -> None:
    """What stands in its socket counts, what the server could not write any more does not; and its task is over as soon
    as it reads on, or leaves.
    """
    async with open_scene(stores, FLOOD, count) as scene, open_caller(scene.first) as caller:
        await caller.send(SHIPPED, scene.customer, build_chat())
        await caller.read_until(b"chat.completion.chunk")
        request_id = read_request_id(caller)
        await wait_stuck(scene)
        reply = await scene.cancel(request_id)
        await wait_closed(scene.upstream)
        assert reply.seconds < 3
        scene.check_charged(cost_of(reply))
        with trio.fail_after(10):
            while b"stream_cancelled" not in caller.text[-4096:]:
                caller.text += await caller.stream.receive_some(65536)
        told = read_events(caller.text + (b"" if caller.text.endswith(b"0\r\n\r\n") else b"0\r\n\r\n"))[-1][1]
        assert Decimal(str(told["finalCost"])) == cost_of(reply)
        scene.check_charged(cost_of(reply))


async def wait_stuck(scene: Scene) -> None:
    """Until the provider cannot say more."""
    said = -1
    with trio.fail_after(20):
        while (now := scene.upstream.connections[0].sent_bytes) != said:
            said = now
            await trio.sleep(0.3)


async def test_an_api_key_cancels_its_users_calls(stores: Stores) -> None:
    async with open_scene(stores, says_and_waits(1)) as scene, open_caller(scene.first) as caller:
        key = with_key((await make(scene.first, scene.customer, scopes=["read", "write"]))["key"])
        reader = with_key((await make(scene.first, scene.customer, scopes=["read"]))["key"])
        await caller.send(SHIPPED, scene.customer, build_chat())
        await caller.read_until(b'"content":" alpha"')
        body = {"requestId": read_request_id(caller)}
        assert (await ask(scene.last, CANCEL, reader, body)).status == 403
        cost_of(await ask(scene.last, CANCEL, key, body))


async def test_openais_library_does_not_ask_again_for_what_was_cancelled(stores: Stores) -> None:
    async with open_scene(stores, [stream_head(), WaitForClose()]) as scene, trio.open_nursery() as nursery:

        async def call() -> None:
            client = AsyncOpenAI(
                base_url=f"{scene.first.url}/v1",
                api_key=scene.customer.token,
                default_headers={**scene.customer.device_headers, "Idempotency-Key": "mine"},
            )
            async with client:
                with pytest.raises(ConflictError, match="cancelled"):
                    await client.chat.completions.create(
                        model="openai/gpt-4.1-mini", messages=[{"role": "user", "content": "Hello"}], max_tokens=1000
                    )

        nursery.start_soon(call)
        await wait_accepted(scene)
        cost_of(await scene.cancel("mine"))
        await trio.sleep(2)  # its first pause is shorter
        assert len(scene.upstream.requests) == 1


@pytest.mark.parametrize("path", ["/api/audio/transcriptions", "/v1/audio/transcriptions"])
async def test_a_recording_that_is_being_written_down(stores: Stores, path: str) -> None:
    async with open_scene(stores, [stream_head(), WaitForClose()]) as scene:
        replies: list[httpx2.Response] = []

        async def transcribe() -> None:
            keyed = replace(scene.customer, headers={**scene.customer.headers, "Idempotency-Key": "mine"})
            replies.append(await post(scene.first, keyed, path))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(transcribe)
            await wait_accepted(scene)
            cost = cost_of(await scene.cancel("mine"))
            await wait_closed(scene.upstream)
        assert (replies[0].status_code, "request_cancelled" in replies[0].text) == (409, True)
        assert cost > 0
        scene.check_charged(cost)


@dataclass(slots=True)
class Books:
    """What clients and who cancelled were told, by request."""

    streams: dict[str, Decimal] = field(default_factory=dict)
    cancels: dict[str, Decimal] = field(default_factory=dict)
    too_late: int = 0


async def test_fifty_calls_cancelled_at_random_moments_by_either_process(stores: Stores) -> None:
    chance = random.Random(9)  # noqa: S311 - a test that can be repeated

    def respond(_: RecordedRequest) -> list[Step]:
        count = chance.randint(0, 12)
        steps = openai_stream(deltas(count), usage=(100, 50)) if chance.random() < 0.3 else says_and_waits(count)
        return [*chain.from_iterable(map(pause_after, steps))]

    async with open_scene(stores, respond) as scene:
        books = Books()
        async with trio.open_nursery() as nursery:
            for _ in range(CALLS):
                nursery.start_soon(call_and_cancel, scene, books, chance.random() * 0.5, chance.randrange(2))
        rows = scene.first.query("SELECT request_id::text, outcome, cost_usd FROM usage")
        booked = {request_id: cost for request_id, _, cost in rows}
        assert len(booked) == CALLS
        assert books.streams == booked
        assert {name: booked[name] for name in books.cancels} == books.cancels
        assert {name for name, outcome, _ in rows if outcome == "cancelled"} == set(books.cancels)
        assert books.too_late + len(books.cancels) == CALLS
        print(f"cancelled {len(books.cancels)}, too late {books.too_late}")
        assert min(books.too_late, len(books.cancels)) > 3
        scene.check_charged(sum(booked.values(), Decimal(0)))
        assert scene.upstream.open_connections <= books.too_late, "those that wait for the next call"


def pause_after(step: Step) -> Sequence[Step]:
    return (step, Pause(0.02)) if isinstance(step, SendChunk) else (step,)


async def call_and_cancel(scene: Scene, books: Books, pause_seconds: float, server: int) -> None:
    """Each on a server of its own choice; the client reads on to the end of its answer."""
    async with open_caller(scene.servers[1 - server]) as caller:
        await caller.send(SHIPPED, scene.customer, build_chat())
        await caller.read_until(b"stream_started")
        request_id = read_request_id(caller)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.read_until, b"0\r\n\r\n")
            await trio.sleep(pause_seconds)
            reply = await replace(scene, servers=[scene.servers[server]]).cancel(request_id)
        if reply.status == 404:
            books.too_late += 1
        else:
            books.cancels[request_id] = cost_of(reply)
        name, told = read_events(caller.text)[-1]
        assert name == ("stream_completed" if reply.status == 404 else "stream_cancelled")
        books.streams[request_id] = Decimal(str(told["finalCost"]))
