"""Whatever the events, a stream that OpenAI's SDK has joined is the whole answer, and both are typed as it wants."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import ContentFilterFinishReasonError, LengthFinishReasonError
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.chat import ProviderItem
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    Completed,
    Finished,
    FinishReason,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.sse import SseDecoder
from server.dialects import openai, shipped
from server.dialects.messages import WireMessage, read_messages
from tests.server.dialects.answers import EVERYTHING, LOGPROB, RICH, build_answer, collect

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
names = st.text("abc", min_size=1, max_size=3)
maybe = st.none() | names
places = st.none() | st.integers(0, 9)
base64 = st.binary(max_size=7).map(lambda data: b64encode(data).decode())
indexes = st.integers(0, 3)
objects = st.dictionaries(names, texts | st.lists(st.integers(0, 9), max_size=2), max_size=2)

pieces: list[st.SearchStrategy[ChatEvent]] = [
    st.builds(TextDelta, texts),
    st.builds(RefusalDelta, texts),
    st.builds(ReasoningDelta, texts, indexes, st.booleans()),
    st.builds(Citation, st.none() | names, st.none() | texts, places, places, st.none() | texts, places),
    st.builds(ImageDelta, st.just("image/png"), base64),
    st.builds(AudioDelta, st.binary(max_size=9).map(lambda data: b64encode(data * 3).decode()), texts),
    st.builds(Logprobs, st.lists(st.just(LOGPROB), min_size=1, max_size=2).map(tuple)),
    st.builds(ProviderItem, names, objects),
]
reasons: list[FinishReason] = ["stop", "tool_calls", "content_filter", "error"]
usages = st.builds(Usage, *[st.integers(0, 9)] * 10)
seal = st.builds(ReasoningSealed, indexes, names, maybe, maybe, maybe)
seals = st.lists(seal, max_size=3, unique_by=lambda one: one.index)
calls = st.lists(st.tuples(names, names, st.lists(texts, max_size=3), maybe), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> list[ChatEvent]:
    """Any pieces; each block sealed once, after its last piece; calls numbered from 0; then the end."""
    events: list[ChatEvent] = draw(st.lists(st.one_of(pieces), max_size=12))
    events += draw(seals)
    for index, (id_, name, arguments, signature) in enumerate(draw(calls)):
        events.append(ToolCallDelta(index, id_, name, "", signature))
        events += [ToolCallDelta(index, arguments=piece) for piece in arguments]
    usage = draw(usages)
    return [*events, usage, Finished(draw(st.sampled_from(reasons))), Completed(usage, "0.000120", provisional=False)]


def read_chunks(module: Any, events: Sequence[ChatEvent], batch: int) -> list[Any]:
    """The chunks of a stream in a dialect, without what only its own clients know."""
    encoder = module.DIALECT.open_encoder(build_answer(include_usage=True))
    data: bytes = encoder.open()
    for start in range(0, len(events), batch):
        data += encoder.encode(list(events[start : start + batch]))
    return [json.loads(event.data) for event in SseDecoder().feed(data) if not event.name and event.data != b"[DONE]"]


def join(chunks: list[Any]) -> Any:
    """As the SDK does it, before it raises for an answer that was cut or filtered."""
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot.model_dump(mode="json", exclude_unset=True)


def read_whole(module: Any, events: Sequence[ChatEvent]) -> Any:
    return json.loads(module.encode_whole(build_answer(), collect(events)))


def put_in_order(answer: Any) -> Any:
    """Leaves out what says nothing: empty and absent mean the same, and so do a block's entries apart or together."""
    (choice,) = answer["choices"]
    message = {name: value for name, value in choice["message"].items() if value not in (None, "", [])}
    thoughts = {"role": "assistant", "reasoning_details": message.pop("reasoning_details", [])}
    for call in message.get("tool_calls", ()):
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    said = {name: value for name, value in message.pop("audio", {}).items() if value is not None}
    audio = {"id": "", "data": "", "transcript": "", "expires_at": 0} | said
    logprobs = (choice.get("logprobs") or {}).get("content")
    message.pop("parsed", None)
    (read,) = read_messages([msgspec.convert(thoughts, WireMessage)])
    return message, read, audio, logprobs, choice["finish_reason"], answer["usage"]


@given(answers(), st.integers(1, 4))
@example(RICH, 1)
@example(RICH, 100)
@example(EVERYTHING, 2)
def test_in_openais_dialect(events: list[ChatEvent], batch: int) -> None:
    streamed, whole = join(read_chunks(openai, events, batch)), read_whole(openai, events)
    assert put_in_order(streamed) == put_in_order(whole)
    assert streamed["model"] == whole["model"]


@given(answers())
@example(RICH)
def test_a_whole_answer_is_typed_as_the_sdk_wants(events: list[ChatEvent]) -> None:
    ChatCompletion.model_validate(read_whole(openai, events))


@given(answers(), st.integers(1, 4))
@example(RICH, 3)
def test_in_the_shipped_dialect(events: list[ChatEvent], batch: int) -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in read_chunks(shipped, events, batch)]
    (choice,) = read_whole(shipped, events)["choices"]
    message = choice["message"]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    for name in ("annotations", "document_citations"):
        assert [entry for delta in deltas for entry in delta.get(name, ())] == message.get(name, [])
    calls = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    for index, call in enumerate(message.get("tool_calls", ())):
        own = [piece for piece in calls if piece["index"] == index]
        assert own[0]["id"] == call["id"]
        assert "".join(piece["function"]["arguments"] for piece in own) == call["function"]["arguments"]


@pytest.mark.parametrize(
    ("reason", "error"), [("error", LengthFinishReasonError), ("content_filter", ContentFilterFinishReasonError)]
)
def test_an_answer_that_is_not_whole_is_an_error_to_the_sdk(reason: FinishReason, error: type[Exception]) -> None:
    state: Any = ChatCompletionStreamState()
    for chunk in read_chunks(openai, [TextDelta("So"), Finished(reason)], 1):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    with pytest.raises(error):
        state.get_final_completion()


def test_what_the_sdk_gives_back_is_what_was_thought_and_done() -> None:
    """A program sends the message that it got as its next turn's history."""
    for answer in (join(read_chunks(openai, RICH, 1)), read_whole(openai, RICH)):
        (message,) = read_messages([msgspec.convert(answer["choices"][0]["message"], WireMessage)])
        kinds = [type(part).__name__ for part in message.parts]
        assert kinds == ["Reasoning", "ProviderItem", "Reasoning", "Text", "Image"]
        assert message.tool_calls[0].signature == "call seal"


@pytest.mark.parametrize("batch", [1, 100])
def test_the_sdk_reads_the_figures_of_the_last_chunk(batch: int) -> None:
    usage = ChatCompletionChunk.model_validate(read_chunks(openai, RICH, batch)[-1]).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == (2, 9)
    assert usage.model_extra is not None
    assert usage.model_extra["cost"] == 0.00012
