"""Counting with the real tokenizer, in slices that stop nobody."""

import time

import pytest
from bpe_openai import get_encoding
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ChatRequest, Document, Image, Message, Part, Refusal, Text, Tool, ToolCall
from proxy.tokens import (
    SLICE_CHARACTERS,
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REPLY_PRIMER,
    count_tokens,
    media_tokens,
    prompt_slices,
)

o200k = get_encoding("o200k_base")


def prompt_tokens(*messages: Message, **rest: object) -> int:
    return sum(prompt_slices(ChatRequest("m/x", messages, **rest)))  # type: ignore[arg-type] # fields by name


def user(*parts: Part) -> Message:
    return Message("user", parts)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("Hello", 1), ("Hello, world!", 4), ("antidisestablishmentarianism", 6)]
)
def test_texts_have_the_tokens_of_o200k(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@given(st.text(max_size=80))
def test_it_counts_what_the_tokenizer_makes(text: str) -> None:
    assert count_tokens(text) == len(o200k.encode(text))


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00b", "\ud83d \ude00"])
def test_half_a_character_counts_for_something(text: str) -> None:
    assert count_tokens(text) >= 1


def test_a_prompt_is_its_texts_and_a_little_for_every_message() -> None:
    messages = (Message("system", (Text("Be brief."),)), user(Text("Hello, world!"), Text("Hello")))
    counted = count_tokens("Be brief.") + 4 + 1
    assert prompt_tokens(*messages) == counted + 2 * TOKENS_PER_MESSAGE + TOKENS_PER_REPLY_PRIMER


def test_all_that_is_sent_is_counted() -> None:
    plain = prompt_tokens(user(Text("Hello")))
    call = ToolCall("call_1", "Hello", "Hello")
    assert prompt_tokens(Message("assistant", (Text("Hello"),), tool_calls=(call,))) == plain + 2
    assert prompt_tokens(user(Text("Hello"), Refusal("Hello"))) == plain + 1
    assert prompt_tokens(user(Text("Hello")), tools=(Tool("f", "Hello", {"type": "object"}),)) > plain + 6
    assert prompt_tokens(user(Text("Hello")), response_format={"type": "json_object"}) > plain + 3


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest("m/x", (user(Text("word " * 200_000)),)),
        ChatRequest("m/x", (user(Text("x")),), tools=(Tool("f", "word " * 200_000),)),
        ChatRequest("m/x", (user(Text("x")),), response_format={"description": "word " * 200_000}),
    ],
    ids=["message", "tool", "response_format"],
)
def test_a_long_prompt_comes_in_slices(request_: ChatRequest) -> None:
    """So that whoever counts can let others run in between."""
    slices = list(prompt_slices(request_))
    assert max(slices) < SLICE_CHARACTERS / 4
    assert len(slices) >= 1_000_000 / SLICE_CHARACTERS
    assert sum(slices) == pytest.approx(200_000, rel=0.01)


@pytest.mark.parametrize("piece", ["a", " ", "ab1!\n", "語", "a ", "\u0301"])
def test_no_slice_takes_long_whatever_is_in_it(piece: str) -> None:
    text = (piece * SLICE_CHARACTERS)[:SLICE_CHARACTERS]
    count_tokens("warm")
    started_at = time.perf_counter()
    count_tokens(text)
    assert time.perf_counter() - started_at < 0.1  # a few milliseconds; a bound for a loaded machine


def test_media_are_estimated_apart_from_the_prompt() -> None:
    image = user(Text("Hello"), Image("image/png", "A" * 1000))
    assert prompt_tokens(image) == prompt_tokens(user(Text("Hello")))
    assert media_tokens(ChatRequest("m/x", (image, image))) == 2 * TOKENS_PER_IMAGE


def test_a_document_counts_by_its_size() -> None:
    small, large = Document("application/pdf", "A" * 100), Document("application/pdf", "A" * 4_000_000)
    assert media_tokens(ChatRequest("m/x", (user(small),))) == TOKENS_PER_IMAGE
    assert media_tokens(ChatRequest("m/x", (user(large),))) == 300_000
