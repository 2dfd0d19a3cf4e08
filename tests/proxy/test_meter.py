"""The meter has an answer at any moment."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import (
    ChatEvent,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.meter import Meter
from proxy.tokens import count_tokens

FAILED = Failed("network_error", "cut", "openai")
REPORTED = Usage(input_tokens=7, cache_read_tokens=3, output_tokens=5)


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
