"""Providers that misbehave, each in its own dialect: the client gets a typed error in time, and the charge is right."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx2
import trio

from storage.seed import seed
from tests.end_to_end.caller import OPENAI, SHIPPED, join_text, parse_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.replaying import KINDS, Kind, build_settings, write_catalogue
from tests.fake_upstream import RecordedRequest
from tests.fakes import Pause, Reset, Send, SendChunk, Step, WaitForClose, open_fake_upstream, response, stream_head

DEADLINES = {
    "PROVIDER_FIRST_BYTE_SECONDS": "1",
    "PROVIDER_FIRST_TOKEN_SECONDS": "2",
    "PROVIDER_IDLE_SECONDS": "1",
    "PROVIDER_RETRY_SECONDS": "0.001",
}
IN_TIME_SECONDS = 8
"""Above all deadlines, on a busy machine."""
EVENT_STREAM = {"content-type": "text/event-stream"}


def event(data: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def responses_event(type_: str, **members: object) -> bytes:
    return event({"type": type_, "sequence_number": 1, **members}, type_)


HELLO: Mapping[str, bytes] = {
    "openai-chat": event({"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}),
    "openai-responses": responses_event(
        "response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta="Hello"
    ),
    "anthropic": event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    + event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
    "google": event({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "index": 0}]}),
}
"""A word of an answer in each dialect; xAI and OpenRouter speak OpenAI's."""

ERROR: Mapping[str, bytes] = {
    "openai-chat": event({"error": {"message": "busy", "type": "server_error", "code": 503}}),
    "openai-responses": responses_event("error", error={"message": "busy", "type": "server_error", "code": None}),
    "anthropic": event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error"),
    "google": event({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}),
}


def dialect_of(kind: Kind) -> str:
    return kind.name if kind.name in HELLO else "openai-responses" if "responses" in kind.name else "openai-chat"


def misdeeds(kind: Kind) -> dict[str, tuple[list[Step], set[str]]]:
    """What a provider may do before it has said a word, and the words for it that a client may be told."""
    hello, error = HELLO[dialect_of(kind)], ERROR[dialect_of(kind)]
    garbage = bytes(range(256)) * 4
    return {
        "says nothing": ([WaitForClose()], {"timeout_error"}),
        "begins and says nothing": ([stream_head(), WaitForClose()], {"timeout_error"}),
        "says half an event": ([stream_head(), SendChunk(hello[:-20]), WaitForClose()], {"timeout_error"}),
        "resets": ([Reset()], {"network_error"}),
        "resets in its first event": ([stream_head(), SendChunk(hello[:-20]), Pause(0.02), Reset()], {"network_error"}),
        "has an error inside": (
            [stream_head(), SendChunk(error), WaitForClose()],
            {"provider_unavailable", "provider_internal_error"},
        ),
        "sends garbage": (response(200, garbage, EVENT_STREAM), {"network_error", "parsing_error"}),
        "sends garbage events": (response(200, b"data: {gar\n\n" * 9, EVENT_STREAM), {"parsing_error"}),
        "sends a page": (response(200, b"<html>busy</html>", {"content-type": "text/html"}), {"parsing_error"}),
        "sends nothing": (response(200, b"", EVENT_STREAM), {"network_error"}),
        "sends an empty object": (response(200, b"{}"), {"parsing_error"}),
        "refuses with a page": (response(502, b"<html>", {"content-type": "text/html"}), {"provider_gateway_error"}),
        "is no HTTP": ([Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Reset()], {"network_error"}),
    }


@asynccontextmanager
async def open_bad_providers(
    stores: Stores, tmp_path: Path, scripts: Mapping[str, list[Step]], copies: int
) -> AsyncIterator[Cloche]:
    """Each of the scripts is played for the request whose text names it."""
    seed(stores.owner_database_url, write_catalogue(tmp_path / "catalogue.toml", copies))

    def respond(request: RecordedRequest) -> list[Step]:
        return scripts[request.body.decode().partition("play:")[2].partition(";")[0]]

    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, settings=build_settings(upstream) | DEADLINES) as cloche,
    ):
        yield cloche


def open_client(cloche: Cloche) -> httpx2.AsyncClient:
    """One for a test: each reads a file of authorities for 30 ms, although nobody speaks TLS here."""
    return httpx2.AsyncClient(base_url=cloche.url, timeout=30)


async def ask(
    client: httpx2.AsyncClient, customer: Customer, kind: Kind, play: str, path: str, *, stream: bool
) -> httpx2.Response:
    messages = [{"role": "user", "content": f"play:{play};"}]
    body = {"model": kind.model, "messages": messages, "max_tokens": 500, "stream": stream, **kind.asks}
    with trio.fail_after(IN_TIME_SECONDS):
        return await client.post(path, json=body, headers=dict(customer.headers))


async def test_a_misdeed_before_the_first_word_is_a_typed_error_in_time_and_costs_nothing(
    stores: Stores, tmp_path: Path
) -> None:
    """A model for each, so that no two share a circuit breaker."""
    plays = {
        f"{kind.name} {name}": (replace(kind, model=f"{kind.model}-{number}"), *misdeed)
        for kind in KINDS
        for number, (name, misdeed) in enumerate(misdeeds(kind).items(), 20 if kind.asks else 0)
    }
    scripts = {play: script for play, (_, script, _) in plays.items()}
    async with open_bad_providers(stores, tmp_path, scripts, copies=40) as cloche:
        customer = await cloche.make_customer("100")
        places = trio.CapacityLimiter(12)
        async with open_client(cloche) as client, trio.open_nursery() as nursery:
            for play, (kind, _, codes) in plays.items():
                nursery.start_soon(partial(check_misdeed, client, customer, kind, play, codes, places))
        await cloche.wait_settled()
        assert cloche.balance(customer) == (100, 0)
        cloche.check_accounts()


async def check_misdeed(
    client: httpx2.AsyncClient,
    customer: Customer,
    kind: Kind,
    play: str,
    codes: set[str],
    places: trio.CapacityLimiter,
) -> None:
    async with places:
        try:
            for stream in (True, False):
                answer = await ask(client, customer, kind, play, OPENAI, stream=stream)
                assert answer.status_code in {502, 503, 504}, answer.text
                assert answer.json()["error"]["message"]
            whole = await ask(client, customer, kind, play, SHIPPED, stream=False)
            assert whole.json()["errorDetails"]["code"] in codes, whole.text
            streamed = parse_events((await ask(client, customer, kind, play, SHIPPED, stream=True)).content)
            assert [name for name, _ in streamed] == ["stream_started", "error_details"]
            assert streamed[-1][1]["error"]["code"] in codes, streamed
        except Exception as error:  # to say which misdeed it was
            error.add_note(f"when it was: {play}")
            raise


ENDINGS: Mapping[str, tuple[list[Step], str]] = {
    "falls silent": ([WaitForClose()], "timeout_error"),
    "resets": ([Pause(0.02), Reset()], "network_error"),
    "breaks off inside an event": ([SendChunk(b"data: {"), Pause(0.02), Reset()], "network_error"),
    "sends garbage": ([SendChunk(b"data: {gar\n\n"), WaitForClose()], "parsing_error"),
}


async def test_a_misdeed_after_the_first_word_is_an_event_and_what_came_is_charged(
    stores: Stores, tmp_path: Path
) -> None:
    plays = {f"{kind.name} {name}": (kind, *ending) for kind in KINDS for name, ending in ENDINGS.items()}
    scripts: dict[str, list[Step]] = {
        play: [stream_head(), SendChunk(HELLO[dialect_of(kind)]), Pause(0.02), *steps]
        for play, (kind, steps, _) in plays.items()
    }
    async with open_bad_providers(stores, tmp_path, scripts, copies=0) as cloche, open_client(cloche) as client:
        async with trio.open_nursery() as nursery:
            for play, (kind, _, code) in plays.items():
                if code == "timeout_error":
                    nursery.start_soon(check_ending, cloche, client, kind, play, code)
        for play, (kind, _, code) in plays.items():
            if code != "timeout_error":  # one by one: a reset throws away what a busy server has not read yet
                await check_ending(cloche, client, kind, play, code)
        cloche.check_accounts()


async def check_ending(cloche: Cloche, client: httpx2.AsyncClient, kind: Kind, play: str, code: str) -> None:
    customer = await cloche.make_customer()
    events = parse_events((await ask(client, customer, kind, play, SHIPPED, stream=True)).content)
    assert join_text(events) == "Hello"
    assert events[-1][0] == "error_details"
    assert events[-1][1]["error"]["code"] == code, play
    await cloche.wait_settled()
    assert_charged_for_the_word(cloche, customer)


def assert_charged_for_the_word(cloche: Cloche, customer: Customer) -> None:
    """The prompt as it was counted for the hold, and one word of one token, or of two where ours is an estimate."""
    statement = """
        SELECT usage.outcome, usage.provisional, input_tokens, output_tokens, cost_usd, holds.prompt_tokens
        FROM usage JOIN holds ON holds.id = request_id WHERE usage.user_id = %s
    """
    [(outcome, provisional, prompt, completion, cost, counted)] = cloche.query(statement, customer.user_id)
    assert (outcome, provisional, prompt) == ("failed", True, counted)
    assert completion in {1, 2}
    exact = (prompt * Decimal(3) + completion * Decimal(15)) / 1_000_000
    assert cost == exact.quantize(Decimal("0.000001"))
    assert cloche.balance(customer) == (10 - cost, 0)
