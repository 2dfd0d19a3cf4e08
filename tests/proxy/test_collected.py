"""What the events of a stream add up to."""

from base64 import b64decode, b64encode

from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem, ToolCall
from proxy.collected import Collected, ReasoningBlock
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    Completed,
    Failed,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.transcript import TranscriptFacts, TranscriptSegment, TranscriptWord


def collect(*batches: list[ChatEvent]) -> Collected:
    collected = Collected()
    for batch in batches:
        collected.add(batch)
    return collected


def test_texts_are_joined_each_kind_by_itself() -> None:
    collected = collect(
        [TextDelta("a"), ReasoningDelta("x"), RefusalDelta("n")],
        [],
        [TextDelta("b"), ReasoningDelta("y"), RefusalDelta("o")],
    )
    assert (collected.text, collected.reasoning, collected.refusal) == ("ab", "xy", "no")


def test_nothing_is_an_empty_answer_that_did_not_end() -> None:
    collected = collect()
    assert (collected.text, collected.tool_calls, collected.ended, collected.finish_reason) == ("", [], None, "stop")


def test_calls_are_joined_by_their_index_and_come_in_its_order() -> None:
    collected = collect(
        [ToolCallDelta(1, "call_b", "g"), ToolCallDelta(0, "call_a", "f", "{")],
        [ToolCallDelta(1, arguments="[]"), ToolCallDelta(0, arguments="}")],
    )
    assert collected.tool_calls == [ToolCall("call_a", "f", "{}"), ToolCall("call_b", "g", "[]")]


def test_an_id_or_a_name_that_is_repeated_counts_once() -> None:
    collected = collect([ToolCallDelta(0, "call_a", "f", "1"), ToolCallDelta(0, "call_a", "f", "2")])
    assert collected.tool_calls == [ToolCall("call_a", "f", "12")]


def test_the_seal_of_a_call_is_kept() -> None:
    collected = collect([ToolCallDelta(0, "call_a", "f"), ToolCallDelta(0, signature="s")], [ToolCallDelta(0)])
    assert collected.tool_calls == [ToolCall("call_a", "f", "", "s")]


def test_what_was_said_is_in_the_order_in_which_it_came() -> None:
    assert collect([RefusalDelta("a"), TextDelta("b")], [RefusalDelta("c")]).said == "abc"


def test_thoughts_are_joined_by_their_block_in_the_order_in_which_the_blocks_began() -> None:
    seal = ReasoningSealed(4, "f", signature="s")
    collected = collect(
        [ReasoningDelta("a", 4), ReasoningDelta("x", 1, is_summary=True), ReasoningDelta("b", 4)],
        [seal, ReasoningDelta("c", 1)],
    )
    assert collected.reasoning_blocks == [ReasoningBlock("ab", "", seal), ReasoningBlock("c", "x")]
    assert collected.reasoning == "axbc"


def test_a_block_may_be_its_seal_alone() -> None:
    seal = ReasoningSealed(0, "f", encrypted="e")
    assert collect([seal]).reasoning_blocks == [ReasoningBlock("", "", seal)]


def test_citations_images_and_log_probabilities_are_listed() -> None:
    citation, image = Citation("https://a.org"), ImageDelta("image/png", "aGk=")
    collected = collect([citation, image, Logprobs(({"token": "a"},))], [citation, Logprobs(({"token": "b"},))])
    assert (collected.citations, collected.images) == ([citation, citation], [image])
    assert collected.logprobs == [{"token": "a"}, {"token": "b"}]


def test_items_keep_their_place_among_the_thoughts() -> None:
    first, second = ProviderItem("f", {"a": 1}), ProviderItem("f", {"b": 2})
    collected = collect([first, ReasoningDelta("x"), ReasoningDelta("y"), second, ReasoningDelta("z", 1)])
    assert collected.items == [(first, 0), (second, 1)]


def test_without_sound_there_is_none() -> None:
    assert collect([TextDelta("a")]).audio is None


def test_sound_is_joined() -> None:
    pieces: list[ChatEvent] = [AudioDelta(id="a"), AudioDelta("aGlo", "So"), AudioDelta("aGk=", " be", "a", 5)]
    assert collect(pieces).audio == AudioDelta("aGloaGk=", "So be", "a", 5)


@given(st.lists(st.binary(max_size=5)))
def test_pieces_of_sound_may_be_padded_each_for_itself(pieces: list[bytes]) -> None:
    audio = collect([AudioDelta(b64encode(piece).decode()) for piece in pieces]).audio
    assert (b64decode(audio.data, validate=True) if audio else b"") == b"".join(pieces)


def test_what_is_no_base64_is_strung_together() -> None:
    audio = collect([AudioDelta("="), AudioDelta("é")]).audio
    assert audio is not None
    assert audio.data == "=é"


def test_the_ending_is_kept() -> None:
    completed = Completed(Usage(output_tokens=1), "0.000001", provisional=False)
    assert collect([Finished("length"), Usage(), completed]).ended == completed
    assert collect([Finished("length")]).finish_reason == "length"
    failed = Failed("network_error", "cut", "x")
    assert collect([TextDelta("a"), failed]).ended == failed


def test_an_answer_does_not_show_in_a_repr() -> None:
    events: list[ChatEvent] = [
        TextDelta("secret"),
        RefusalDelta("secret"),
        ToolCallDelta(0, "a", "f", "secret"),
        ReasoningDelta("secret"),
        ReasoningSealed(0, "f", encrypted="secret"),
        Citation("https://secret.org"),
        ImageDelta("image/png", "secret"),
        AudioDelta("secret", "secret"),
        Logprobs(({"token": "secret"},)),
        ProviderItem("f", {"a": "secret"}),
    ]
    collected = collect(events)
    assert "secret" not in repr([collected, *collected.reasoning_blocks])


def test_a_transcript_is_kept_with_all_that_it_has() -> None:
    collected = Collected()
    segment, word = TranscriptSegment({"text": " Hi"}), TranscriptWord({"word": "Hi"})
    facts = TranscriptFacts("english", 1.5)
    collected.add([TextDelta(" Hi"), segment, word, TextDelta("."), facts, Finished("stop")])
    assert (collected.text, collected.segments, collected.words, collected.facts) == (" Hi.", [segment], [word], facts)
