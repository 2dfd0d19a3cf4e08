"""Counting with the real tokenizer, in slices that stop nobody."""

import time
from dataclasses import replace

import pytest
from bpe_openai import get_encoding
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import (
    Attached,
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    ProviderTool,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    WebSearch,
)
from proxy.tokens import (
    SLICE_CHARACTERS,
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_PROVIDER_TOOL,
    TOKENS_PER_REPLY_PRIMER,
    Tokenizer,
    count_tokens,
    find_tokenizer,
    media_tokens,
    prompt_slices,
    search_tokens,
    spoken_tokens,
)
from tests.proxy.file_calls import make_file

o200k = get_encoding("o200k_base")
cl100k = get_encoding("cl100k_base")


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
    assert prompt_tokens(user(Text("Hello")), response_format=ResponseFormat("json_object")) > plain + 3


LONG_FORMAT = ResponseFormat("json_schema", "x", {"description": "word " * 200_000})


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest("m/x", (user(Text("word " * 200_000)),)),
        ChatRequest("m/x", (user(Text("x")),), tools=(Tool("f", "word " * 200_000),)),
        ChatRequest("m/x", (user(Text("x")),), response_format=LONG_FORMAT),
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


@given(st.text(max_size=80))
def test_older_models_have_their_own_encoding(text: str) -> None:
    assert find_tokenizer("gpt-4").count(text) == len(cl100k.encode(text))


@pytest.mark.parametrize(
    "model", ["gpt-4", "gpt-4-turbo", "gpt-4-0613", "gpt-3.5-turbo", "gpt-35-turbo", "openai/gpt-4", "ft:gpt-4-06:a::b"]
)
def test_models_before_4o_are_cl100k(model: str) -> None:
    assert find_tokenizer(model).encoding == "cl100k_base"


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.5-preview", "gpt-5", "gpt-5.2-codex", "o1", "o3-pro", "o4-mini",
     "chatgpt-4o-latest", "openai/gpt-4.1", "claude-sonnet-4-5", "gemini-3-pro-preview", "x-ai/grok-4", "", "new"],
)
def test_all_others_are_o200k(model: str) -> None:
    assert find_tokenizer(model).encoding == "o200k_base"


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4.1-mini", "openai/gpt-4o", "gpt-5", "o3", "chatgpt-4o", "echo"])
def test_openais_models_are_counted_as_they_are(model: str) -> None:
    assert find_tokenizer(model).estimate(1000) == 1000


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5-20250929"),
        ("google/gemini-2.5-pro", "gemini-2.5-pro"),
        ("x-ai/grok-4", "grok-4-0709"),
        ("DeepSeek/DeepSeek-R1-0528", "deepseek-chat"),
    ],
)
def test_a_model_is_counted_alike_whoever_offers_it(model: str, like: str) -> None:
    assert find_tokenizer(model) == find_tokenizer(like) != find_tokenizer("unheard-of")


def test_newer_claudes_make_more_of_a_text() -> None:
    older, newer = find_tokenizer("claude-opus-4-5"), find_tokenizer("claude-opus-4-7")
    assert older.estimate(100) == 116
    assert newer.estimate(100) == find_tokenizer("claude-sonnet-5").estimate(100) == 151
    assert find_tokenizer("claude-opus-4-20250514") == find_tokenizer("claude-opus-4-1-20250805")


@given(st.lists(st.text(max_size=40), max_size=10), st.integers(50, 300))
def test_a_prompt_is_rounded_once_however_many_pieces_it_has(texts: list[str], percent: int) -> None:
    tokenizer = Tokenizer(percent=percent, per_message=0, per_request=0)
    request = ChatRequest("m/x", (user(*map(Text, texts)),))
    counted = sum(map(count_tokens, texts))
    assert sum(prompt_slices(request, tokenizer)) == tokenizer.estimate(counted)
    assert counted * percent / 100 <= tokenizer.estimate(counted) < counted * percent / 100 + 1


def test_tools_bring_what_their_provider_says_of_them() -> None:
    tokenizer = Tokenizer(with_tools=500, tools_percent=50)
    plain = ChatRequest("m/x", (user(Text("Hello")),))
    tool = Tool("f", "word " * 100)
    written = count_tokens('["f","' + "word " * 100 + '",null]')
    with_tool = sum(prompt_slices(replace(plain, tools=(tool,)), tokenizer))
    assert with_tool - sum(prompt_slices(plain, tokenizer)) == 500 + TOKENS_PER_MESSAGE + -(-written // 2)


def test_a_providers_own_tools_and_its_search_are_counted() -> None:
    plain = prompt_tokens(user(Text("Hello")))
    own = ProviderTool("bash_20250124", {"type": "bash_20250124", "name": "bash"})
    assert prompt_tokens(user(Text("Hello")), provider_tools=(own,)) > plain + TOKENS_PER_PROVIDER_TOOL + 5
    assert prompt_tokens(user(Text("Hello")), web_search=WebSearch()) == plain + TOKENS_PER_PROVIDER_TOOL
    assert search_tokens(3) == 3 * search_tokens(1) > 0


def test_reasoning_that_goes_back_is_counted_and_what_is_sealed_is_estimated() -> None:
    thought = user(Reasoning("Hello", signature="S" * 4000, encrypted="A" * 1600))
    assert prompt_tokens(thought) == prompt_tokens(user(Text("Hello")))
    assert media_tokens(ChatRequest("m/x", (thought,))) == 300


def test_the_texts_of_a_providers_items_are_counted_however_deep() -> None:
    item = {"type": "Hello", "results": [{"title": "Hello", "score": 0.5, "none": None}, ["Hello"]]}
    names = ["type", "Hello", "results", "title", "Hello", "score", "0", "none", "Hello"]
    assert prompt_tokens(user(ProviderItem("f", item))) == prompt_tokens(user()) + sum(map(count_tokens, names))
    nested: dict[str, object] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    assert prompt_tokens(user(ProviderItem("f", nested))) > 100_000


def test_what_is_sealed_or_media_in_an_item_is_no_text() -> None:
    """A film of 20 megabytes would be fifteen million tokens of base64."""
    sealed = user(ProviderItem("f", {"content": "QUJD" * 400}))
    assert prompt_tokens(sealed) == prompt_tokens(user()) + 1
    assert media_tokens(ChatRequest("m/x", (sealed,))) == 300
    film = user(ProviderItem("f", {"data": "QUJD" * 5_000_000}))
    assert media_tokens(ChatRequest("m/x", (film,))) == 150_000
    prose = user(ProviderItem("f", {"text": "word " * 400}), ProviderItem("f", {"text": "語" * 400}))
    assert media_tokens(ChatRequest("m/x", (prose,))) == 0
    assert prompt_tokens(prose) > 700


@pytest.mark.parametrize(("format_", "seconds"), [("wav", 10), ("pcm16", 10), ("mp3", 40), ("anything", 40)])
def test_sound_counts_by_the_seconds_that_it_may_last(format_: str, seconds: int) -> None:
    sound = user(Audio(format_, "A" * (160_000 * 4 // 3)))
    request = ChatRequest("m/x", (sound,))
    assert media_tokens(request) == pytest.approx((seconds + 1) * 32, abs=32)
    assert media_tokens(request, find_tokenizer("gpt-audio")) == pytest.approx((seconds + 1) * 10, abs=10)


@pytest.mark.parametrize(
    ("media_type", "rate", "model", "tokens"),
    [
        ("audio/mp4", None, "gemini-2.5-pro", 8 * 32),
        ("audio/mp4", 9, "gpt-4o", 8 * 10),
        ("video/mp4", None, "gemini-2.5-pro", 8 * (32 + 265)),
        ("video/mp4", 2, "gemini-2.5-pro", 8 * (32 + 2 * 265)),
        ("video/mp4", 0.1, "gemini-3-flash-preview", 318),  # 8 seconds of 32 and 7.7
        ("video/mp4", 20, "gemini-3.8-flash", 8 * (32 + 20 * 77)),
        ("video/mp4", None, "gemini-4-argon", 8 * (32 + 265)),
    ],
)
def test_a_file_counts_by_its_seconds_and_a_video_by_its_pictures(
    media_type: str, rate: float | None, model: str, tokens: int
) -> None:
    film = user(Attached(media_type, make_file(5), 7.1, rate))
    assert media_tokens(ChatRequest("m/x", (film,)), find_tokenizer(model)) == tokens


def test_a_spoken_answer_has_twenty_tokens_a_second() -> None:
    assert spoken_tokens(0) == 0
    assert spoken_tokens(4) == 1
    assert spoken_tokens(64_000) == 20


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4.1-mini", "gpt-5-nano", "claude-opus-4-7", "grok-4"])
def test_some_models_make_more_of_an_image(model: str) -> None:
    image = ChatRequest("m/x", (user(Image("image/png", "AAAA")),))
    assert media_tokens(image, find_tokenizer(model)) > TOKENS_PER_IMAGE


def test_media_are_estimated_apart_from_the_prompt() -> None:
    image = user(Text("Hello"), Image("image/png", "A" * 1000))
    assert prompt_tokens(image) == prompt_tokens(user(Text("Hello")))
    assert media_tokens(ChatRequest("m/x", (image, image))) == 2 * TOKENS_PER_IMAGE


def test_a_document_counts_by_its_size() -> None:
    small, large = Document("application/pdf", "A" * 100), Document("application/pdf", "A" * 4_000_000)
    assert media_tokens(ChatRequest("m/x", (user(small),))) == TOKENS_PER_IMAGE
    assert media_tokens(ChatRequest("m/x", (user(large),))) == 300_000
    assert media_tokens(ChatRequest("m/x", (user(Document("text/plain", "A" * 4000)),))) == 1000
