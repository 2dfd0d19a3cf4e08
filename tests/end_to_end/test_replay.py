"""Every provider's recorded answers through the whole server: streamed, whole, in both dialects, charged the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import count as count_up
from pathlib import Path

import trio

from tests.end_to_end.caller import SHIPPED, parse_events
from tests.end_to_end.cloche import Stores
from tests.end_to_end.replaying import (
    KINDS,
    Kind,
    Replay,
    Told,
    open_replay,
    read_all_exchanges,
    read_shipped_stream,
    read_stream,
    read_whole,
)
from tests.proxy.exchanges import MADE, RecordedExchange

AT_ONCE = 8


async def test_answers_of_our_own_making_reach_clients_as_they_are(stores: Stores, tmp_path: Path) -> None:
    counts = await replay_all(stores, tmp_path, MADE)
    assert min(counts.values()) > 0
    assert counts.keys() == {"openai", "anthropic", "google", "xai", "openrouter"}


async def test_recorded_answers_reach_clients_as_they_are(
    stores: Stores, tmp_path: Path, recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    counts = await replay_all(stores, tmp_path, recordings)
    for provider, count in counts.items():
        count_replayed(f"{provider}, through the server", count)
    assert sum(counts.values()) == 594


async def replay_all(stores: Stores, tmp_path: Path, folder: Path) -> dict[str, int]:
    """How many for each provider. Those that fail have a model each, so that no circuit breaker spoils the others."""
    numbers = count_up()
    found = {kind: read_all_exchanges(folder, kind) for kind in KINDS}
    exchanges = {f"{kind.name}/{exchange.id}": exchange for kind, several in found.items() for exchange in several}
    counts: dict[str, int] = {}
    async with open_replay(stores, tmp_path / "catalogue.toml", exchanges) as replay:
        places = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for kind, several in found.items():
                provider = kind.model.partition("/")[0]
                counts[provider] = counts.get(provider, 0) + len(several)
                for exchange in several:
                    spoilt = kind if is_whole(exchange) else replace(kind, model=f"{kind.model}-{next(numbers)}")
                    nursery.start_soon(partial(check_exchange, replay, spoilt, exchange, places))
        await replay.cloche.wait_settled()
        replay.cloche.check_accounts()
    return counts


async def check_exchange(
    replay: Replay, kind: Kind, exchange: RecordedExchange, places: trio.CapacityLimiter
) -> None:
    async with places:
        try:
            if is_whole(exchange):
                await check_answer(replay, kind, exchange)
            else:
                await check_failure(replay, kind, exchange)
        except Exception as error:  # to say which recording it was
            error.add_note(f"in the recording {exchange.id}")
            raise


def is_whole(exchange: RecordedExchange) -> bool:
    expect = exchange.expect
    return exchange.status == 200 and expect["error"] is None and expect.get("complete") is not False


async def check_answer(replay: Replay, kind: Kind, exchange: RecordedExchange) -> None:
    streamed = await replay.ask(kind, exchange, stream=True)
    whole = await replay.ask(kind, exchange, stream=False)
    assert (streamed.status_code, whole.status_code) == (200, 200), streamed.text + whole.text
    told = read_stream(streamed.content)
    assert told == read_whole(whole.json())
    assert_as_expected(told, exchange)
    shipped = await replay.ask(kind, exchange, SHIPPED, stream=True)
    check_shipped(shipped.content, told)


def check_shipped(body: bytes, told: Told) -> None:
    """The same text, usage and cost; an answer that a filter left nothing of ends as an error."""
    text, (name, last) = read_shipped_stream(body)
    assert text == told.text + told.refusal
    is_filtered = told.finish_reason == "content_filter" and not (text or told.calls)
    assert name == ("error_details" if is_filtered else "stream_completed")
    update_name, update = parse_events(body)[-2]
    assert (update_name, update["isFinal"]) == ("usage_update", True)
    assert Decimal(str(update["estimatedCost"])) == told.cost_usd
    assert update["tokensInput"] == told.usage["prompt_tokens"]
    assert update["tokensOutput"] == told.usage["completion_tokens"]
    assert is_filtered or last["finalCost"] == update["estimatedCost"]


def assert_as_expected(told: Told, exchange: RecordedExchange) -> None:
    expect = exchange.expect
    assert told.text == (expect["text"] or "")
    assert told.reasoning == (expect["reasoning_text"] or "")
    assert told.refusal == (expect["refusal"] or "")
    calls = [
        (call["name"], read_arguments(call["arguments_raw"]))
        for call in expect["tool_calls"]
        if call["name"] != "computer_call"  # an item of the provider, which goes its own way
    ]
    assert [(name, read_arguments(arguments)) for _, (name, arguments) in sorted(told.calls.items())] == calls
    assert told.finish_reason in {"stop", "length", "tool_calls", "content_filter"}
    if told.calls:
        assert told.finish_reason in {"tool_calls", "stop", "length"}


def read_arguments(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def check_failure(replay: Replay, kind: Kind, exchange: RecordedExchange) -> None:
    """A failure before the answer began is a status, also to a client that wanted a stream; after it an event."""
    for stream in (True, False):
        answer = await replay.ask(kind, exchange, stream=stream)
        if answer.status_code == 200:
            assert stream
            last = [line for line in answer.text.split("\n") if line.startswith("data: ")][-1]
            assert json.loads(last.removeprefix("data: "))["error"]["message"]
        else:
            assert answer.json()["error"]["message"]
    shipped = await replay.ask(kind, exchange, SHIPPED, stream=True)
    _, (name, last_event) = read_shipped_stream(shipped.content)
    assert name == "error_details"
    assert last_event["error"]["code"]
    assert last_event["error"]["fallbackAttempted"] is False
