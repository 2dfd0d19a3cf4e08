"""The meter has an answer at any moment."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import ProviderItem
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Failed,
    Finished,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.meter import Meter
from proxy.tokens import TOKENS_PER_MADE_IMAGE, count_tokens, find_tokenizer
from proxy.transcript import TranscriptSegment

FAILED = Failed("network_error", "cut", "openai")
REPORTED = Usage(input_tokens=7, cache_read_tokens=3, output_tokens=5)
EVERYTHING = Usage(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
SEARCHES = [
    {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
    {"type": "web_search_call"},
]
NO_SEARCHES: list[dict[str, object]] = [
    {"type": "server_tool_use", "name": "code_execution"},
    {"type": "web_search_tool_result"},
    {"type": "web_search_call", "action": {"type": "open_page"}},
    {"type": 5},
    {},
]


@dataclass(slots=True)
class NotingSlot:
    """Keeps what was noted."""

    notes: list[tuple[bool, bool, Usage]] = field(default_factory=list)

    def note(self, accepted: bool, reported: bool, usage: Usage) -> None:
        self.notes.append((accepted, reported, usage))

    def clear(self) -> None:
        self.notes.clear()

    def leave(self) -> None:
        return


def build_meter(slot: NotingSlot | None = None) -> Meter:
    return Meter(100, slot or NotingSlot())


def build_accepted() -> Meter:
    meter = build_meter()
    meter.note_accepted()
    return meter


def test_a_call_that_the_provider_never_took_costs_nothing() -> None:
    meter = build_meter()
    assert (meter.usage, meter.is_provisional, meter.outcome) == (Usage(), False, "cancelled")


def test_a_call_that_the_provider_took_costs_its_prompt() -> None:
    meter = build_accepted()
    assert (meter.usage, meter.is_provisional) == (Usage(input_tokens=100), True)


def test_what_is_passed_on_is_counted_piece_by_piece() -> None:
    meter = build_accepted()
    meter.note_passed_on([TextDelta("un"), TextDelta("believable"), RefusalDelta("no")])
    meter.note_passed_on([ReasoningDelta("well"), ToolCallDelta(0, "call_1", "get_weather", '{"city":')])
    output = ["un", "believable", "no", "get_weather", '{"city":']
    assert meter.usage == Usage(100, 0, 0, sum(map(count_tokens, output)), count_tokens("well"))


def test_what_is_only_read_is_not_counted() -> None:
    meter = build_accepted()
    meter.note_read([TextDelta("never passed on")])
    assert meter.usage == Usage(input_tokens=100)


def test_what_the_provider_reports_wins_and_the_last_report_is_the_one() -> None:
    meter = build_accepted()
    meter.note_passed_on([TextDelta("Hello")])
    meter.note_read([Usage(input_tokens=1), TextDelta("x"), REPORTED])
    meter.note_passed_on([TextDelta("more")])
    assert (meter.usage, meter.is_provisional) == (REPORTED, False)
    assert meter.counted_usage != REPORTED


def test_a_failure_before_anything_came_costs_nothing() -> None:
    meter = build_accepted()
    meter.note_read([FAILED])
    assert (meter.usage, meter.is_provisional, meter.outcome) == (Usage(), False, "failed")


@pytest.mark.parametrize("event", [TextDelta("Hello"), ReasoningDelta("Hello"), ToolCallDelta(0, name="Hello")])
def test_a_failure_after_something_came_costs_what_came(event: ChatEvent) -> None:
    meter = build_accepted()
    meter.note_passed_on([event])
    meter.note_read([FAILED])
    assert meter.usage.prompt_tokens == 100
    assert meter.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([], "cancelled"),
        ([TextDelta("Hello")], "cancelled"),
        ([Finished("stop")], "completed"),
        ([Finished("stop"), REPORTED], "completed"),
        ([FAILED], "failed"),
        ([Finished("stop"), FAILED], "failed"),
    ],
)
def test_the_outcome_is_what_was_read_last(events: list[ChatEvent], outcome: str) -> None:
    meter = build_accepted()
    meter.note_read(events)
    assert meter.outcome == outcome


def test_the_journal_is_told_at_every_step() -> None:
    slot = NotingSlot()
    meter = build_meter(slot)
    meter.note_accepted()
    meter.note_passed_on([TextDelta("Hello")])
    meter.note_read([REPORTED])
    assert slot.notes == [
        (True, False, Usage(input_tokens=100)),
        (True, False, Usage(input_tokens=100, output_tokens=1)),
        (True, True, REPORTED),
    ]


EVENTS = st.lists(
    st.builds(TextDelta, st.text(max_size=9))
    | st.builds(ReasoningDelta, st.text(max_size=9))
    | st.builds(ToolCallDelta, st.integers(0, 3), st.none(), st.none() | st.text(max_size=5), st.text(max_size=9))
    | st.just(Finished("stop"))
)


@given(EVENTS, st.integers(0, 30))
def test_batches_make_no_difference(events: list[ChatEvent], cut: int) -> None:
    at_once, in_two = build_accepted(), build_accepted()
    at_once.note_passed_on(events)
    in_two.note_passed_on(events[:cut])
    in_two.note_passed_on(events[cut:])
    assert at_once.usage == in_two.usage


def test_a_report_of_nothing_says_nothing() -> None:
    meter = build_accepted()
    meter.note_passed_on([TextDelta("Hello")])
    meter.note_read([Usage(), Finished("stop")])
    assert (meter.usage, meter.is_provisional) == (Usage(input_tokens=100, output_tokens=1), True)


def test_a_report_of_nothing_does_not_undo_an_earlier_one() -> None:
    meter = build_accepted()
    meter.note_read([REPORTED, Usage(), Finished("stop")])
    assert (meter.usage, meter.is_provisional) == (REPORTED, False)


@pytest.mark.parametrize(("ending", "output_tokens"), [([], 3), ([Finished("stop")], 1)])
def test_a_report_in_mid_stream_is_old_if_more_was_passed_on(ending: list[ChatEvent], output_tokens: int) -> None:
    """Some providers report with every piece; once the answer has its end the report is the last word."""
    meter = build_accepted()
    meter.note_read([Usage(input_tokens=7, output_tokens=1)])
    meter.note_passed_on([TextDelta("Hello")] * 3)
    meter.note_read(ending)
    assert meter.usage == Usage(input_tokens=7, output_tokens=output_tokens)


def test_all_buckets_of_a_report_are_kept() -> None:
    slot = NotingSlot()
    meter = build_meter(slot)
    meter.note_accepted()
    meter.note_read([EVERYTHING, Usage(), Finished("stop")])
    assert (meter.usage, meter.is_provisional) == (EVERYTHING, False)
    assert slot.notes[-1] == (True, True, EVERYTHING)


def test_the_sides_of_a_usage_come_from_one_report_each_and_the_most_searches_count() -> None:
    """As in a stream that tells the prompt first and the answer at its end."""
    prompt = Usage(input_tokens=1, cache_write_1h_tokens=6, input_audio_tokens=7, searches=2)
    completion = Usage(output_tokens=4, reasoning_tokens=5, output_audio_tokens=8, output_image_tokens=9, searches=1)
    meter = build_accepted()
    meter.note_read([prompt, completion, Finished("stop")])
    assert meter.usage == Usage(1, 0, 0, 4, 5, 6, 7, 8, 9, 2)


def test_a_later_side_replaces_the_earlier_one_with_all_its_buckets() -> None:
    meter = build_accepted()
    later = Usage(input_audio_tokens=1, output_image_tokens=1)
    meter.note_read([EVERYTHING, later, Finished("stop")])
    assert meter.usage == Usage(input_audio_tokens=1, output_image_tokens=1, searches=10)


@pytest.mark.parametrize("item", SEARCHES)
def test_a_search_that_was_told_of_is_charged_without_a_report(item: dict[str, object]) -> None:
    meter = build_accepted()
    meter.note_read([ProviderItem("f", item)] * 2)
    assert meter.usage == Usage(input_tokens=100, searches=2)
    meter.note_read([Usage(input_tokens=7, output_tokens=1, searches=1)])
    assert meter.usage.searches == 2, "the report is from before the second"
    meter.note_read([Finished("stop")])
    assert meter.usage.searches == 1, "the last word"


@pytest.mark.parametrize("item", NO_SEARCHES)
def test_other_items_are_no_searches(item: dict[str, object]) -> None:
    meter = build_accepted()
    meter.note_read([ProviderItem("f", item)])
    assert meter.usage == Usage(input_tokens=100)


def test_sound_and_images_that_were_passed_on_are_estimated() -> None:
    """48,000 bytes are a second, and a second is 20 tokens."""
    meter = build_accepted()
    meter.note_passed_on([AudioDelta(data="A" * 64_000), AudioDelta(data="A" * 64_000, transcript="Hello")])
    meter.note_passed_on([ImageDelta("image/png", "AAAA")])
    expected = Usage(100, output_tokens=1, output_audio_tokens=40, output_image_tokens=TOKENS_PER_MADE_IMAGE)
    assert meter.usage == expected


@pytest.mark.parametrize("event", [AudioDelta(data="A" * 40), ImageDelta("image/png", "AAAA")])
def test_a_failure_after_sound_or_an_image_costs_what_came(event: ChatEvent) -> None:
    meter = build_accepted()
    meter.note_passed_on([event])
    meter.note_read([FAILED])
    assert meter.usage.prompt_tokens == 100
    assert meter.usage.completion_tokens > 0


def test_pieces_are_counted_as_the_model_does_and_rounded_once() -> None:
    tokenizer = find_tokenizer("claude-sonnet-4-5")
    meter = Meter(100, NotingSlot(), tokenizer)
    meter.note_accepted()
    meter.note_passed_on([TextDelta("Hello"), ReasoningDelta("Hello")] * 100)
    assert meter.usage == Usage(100, output_tokens=116, reasoning_tokens=116)


SEGMENT = {"text": " Thanks for calling.", "speaker": "A", "start": 1.0, "end": 2.5}


def segment_tokens(*events: ChatEvent) -> int:
    meter = build_meter()
    meter.note_accepted()
    meter.note_passed_on(list(events))
    return meter.usage.output_tokens


def test_a_segment_with_its_text_counts_by_how_long_somebody_speaks() -> None:
    assert segment_tokens(TextDelta(" Thanks for calling."), TranscriptSegment(SEGMENT)) == round(1.5 * 45)


def test_a_segment_without_a_speaker_costs_no_more_than_its_text() -> None:
    plain = {name: value for name, value in SEGMENT.items() if name != "speaker"}
    said = count_tokens(" Thanks for calling.")
    assert segment_tokens(TextDelta(" Thanks for calling."), TranscriptSegment(plain)) == said


@pytest.mark.parametrize(
    "times",
    [
        {"start": 2.5, "end": 1.0},
        {"start": 0, "end": 1e300},
        {"start": "0", "end": 1},
        {"start": 0, "end": "1"},
        {"start": 0, "end": 10**400},
        {"start": None, "end": None},
    ],
)
def test_times_that_cannot_be_count_nothing(times: dict[str, object]) -> None:
    assert segment_tokens(TranscriptSegment({**SEGMENT, **times})) == 0


def test_a_segment_is_not_counted_beside_what_the_provider_reports() -> None:
    meter = build_meter()
    meter.note_accepted()
    meter.note_passed_on([TextDelta("Hi"), TranscriptSegment(SEGMENT)])
    meter.note_read([REPORTED, Finished("stop")])
    assert meter.usage == REPORTED
    assert not meter.is_provisional
