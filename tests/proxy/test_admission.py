"""What is decided before money moves."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import trio

from proxy.admission import EXPECTED_OUTPUT_TOKENS, TOKENS_A_TURN, Admission, admit
from proxy.chat import ChatRequest, Document, Image, Message, Text, WebSearch
from proxy.errors import ContextWindowExceeded, RequestNotSupported
from proxy.pricing import MIN_RATE, Price, Rates, decode_price, worst_cost_usd
from proxy.providers import openai
from proxy.routing import Model, Upstream
from proxy.tokens import TOKENS_PER_SEARCH, find_tokenizer
from tests.proxy.calls import MODEL, PRICE, PROMPT_TOKENS, REQUEST, USER, with_messages

UPSTREAMS = {"openai": Upstream(openai.PROVIDER, "https://api.test/v1", ("sk-1",))}


async def admit_to(model: Model = MODEL, request: ChatRequest = REQUEST) -> Admission:
    return await admit({model.id: model}, UPSTREAMS, USER, request)


def body_of(admission: Admission) -> Any:
    assert admission.call is not None
    return json.loads(admission.call.request.body)


async def test_the_hold_says_who_pays_what_at_most_and_at_which_price() -> None:
    request = replace(REQUEST, task_type="text_improvement", idempotency_key="once")
    hold = (await admit_to(request=request)).hold
    assert (hold.user_id, hold.model_id, hold.provider_code) == (USER, MODEL.id, "openai")
    assert (hold.task_type, hold.idempotency_key) == ("text_improvement", "once")
    assert hold.prompt_tokens == PROMPT_TOKENS
    assert hold.amount_usd == worst_cost_usd(PRICE, PROMPT_TOKENS, 100)
    assert decode_price(hold.price) == PRICE


async def test_every_hold_has_an_id_of_its_own() -> None:
    assert (await admit_to()).hold.id != (await admit_to()).hold.id


@pytest.mark.parametrize(
    ("asked", "model", "granted"),
    [
        (100, MODEL, 100),
        (None, MODEL, MODEL.max_output_tokens),
        (10**9, MODEL, MODEL.max_output_tokens),
        (100, replace(MODEL, context_window=PROMPT_TOKENS + 7), 7),
        (100, replace(MODEL, context_window=PROMPT_TOKENS), 1),
        (None, replace(MODEL, context_window=0), MODEL.max_output_tokens),
    ],
)
async def test_the_output_is_bounded_by_the_client_the_model_and_its_window(
    asked: int | None, model: Model, granted: int
) -> None:
    """And the provider is told the very bound that the hold was made for."""
    admission = await admit_to(model, replace(REQUEST, max_output_tokens=asked))
    assert body_of(admission)["max_completion_tokens"] == granted
    assert admission.hold.amount_usd == worst_cost_usd(PRICE, PROMPT_TOKENS, granted)


async def test_a_prompt_above_the_window_is_refused_in_words_that_the_clients_know() -> None:
    with pytest.raises(ContextWindowExceeded, match="context window exceeded"):
        await admit_to(replace(MODEL, context_window=PROMPT_TOKENS - 1))


async def test_a_model_of_unknown_window_takes_any_prompt() -> None:
    admission = await admit_to(replace(MODEL, context_window=0), with_messages("word " * 200_000))
    assert admission.hold.prompt_tokens > 200_000


async def test_the_estimate_is_the_prompt_and_no_more_of_the_answer_than_may_be_expected() -> None:
    unbounded = replace(REQUEST, max_output_tokens=None)
    assert (await admit_to()).estimated_tokens == PROMPT_TOKENS + 100
    assert (await admit_to(request=unbounded)).estimated_tokens == PROMPT_TOKENS + EXPECTED_OUTPUT_TOKENS


@pytest.mark.parametrize("window", [0, 50_000])
async def test_media_are_held_for(window: int) -> None:
    request = replace(REQUEST, messages=(*REQUEST.messages, Message("user", (Image("image/png", "AAAA"),))))
    hold = (await admit_to(replace(MODEL, sees_images=True, context_window=window), request)).hold
    assert hold.prompt_tokens == PROMPT_TOKENS + 4 + find_tokenizer("gpt-4o-mini").per_image


async def test_media_are_held_for_as_far_as_the_window_reaches_and_leave_room_for_the_answer() -> None:
    """A scanned book of many megabytes need not be paid for by tokens that no model could read."""
    book = Document("application/pdf", "A" * 20_000_000)
    request = replace(REQUEST, messages=(*REQUEST.messages, Message("user", (book,))))
    admission = await admit_to(replace(MODEL, sees_images=True), request)
    assert admission.hold.prompt_tokens == MODEL.context_window
    assert body_of(admission)["max_completion_tokens"] == 100


async def test_searches_are_held_for_with_what_they_may_add_to_the_prompt() -> None:
    request = replace(REQUEST, web_search=WebSearch(max_searches=3))
    price = replace(PRICE, web_search_per_thousand=Decimal(10))
    model = replace(MODEL, price=price, capabilities={"api": "responses"})
    hold = (await admit_to(model, request)).hold
    worst = worst_cost_usd(price, hold.prompt_tokens + 3 * TOKENS_PER_SEARCH, 100, 3)
    assert hold.amount_usd == worst
    assert body_of(await admit_to(model, request))["max_tool_calls"] == 3


async def test_what_has_no_price_is_refused() -> None:
    with pytest.raises(RequestNotSupported, match="web_search"):
        await admit_to(request=replace(REQUEST, web_search=WebSearch()))


async def test_the_provider_is_told_a_pseudonym_that_is_the_same_for_the_same_user() -> None:
    first, again = body_of(await admit_to())["user"], body_of(await admit_to())["user"]
    other = await admit({MODEL.id: MODEL}, UPSTREAMS, uuid4(), REQUEST)
    assert first == again != body_of(other)["user"]
    assert USER.hex not in first


async def test_a_long_prompt_lets_others_run_while_it_is_counted() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await admit_to(replace(MODEL, context_window=0), with_messages("word " * 400_000))
        nursery.cancel_scope.cancel()
    assert turns >= 400_000 / TOKENS_A_TURN / 2


async def test_counting_ends_where_the_window_does() -> None:
    """A prompt of a hundred megabytes is not counted to its end to be refused."""
    request = ChatRequest(MODEL.id, (Message("user", (Text("word " * 10_000_000),)),))
    started_at = trio.current_time()
    with pytest.raises(ContextWindowExceeded):
        await admit_to(request=request)
    assert trio.current_time() - started_at < 0.4  # half of what all of it takes; this is a hundredth


async def test_the_smallest_call_holds_something() -> None:
    cheapest = Rates(MIN_RATE, MIN_RATE, MIN_RATE, MIN_RATE)
    model = replace(MODEL, price=Price(cheapest))
    admission = await admit_to(model, replace(REQUEST, max_output_tokens=1))
    assert admission.hold.amount_usd == Decimal("0.000001")


async def test_a_model_that_transcribes_is_no_model_to_chat_with() -> None:
    with pytest.raises(RequestNotSupported, match=r"model: openai/gpt-4o-mini transcribes audio and does not chat"):
        await admit_to(replace(MODEL, model_type="transcription"))
    assert (await admit_to(replace(MODEL, model_type="chat"))).model.model_type == "chat"
