"""The meter of one call: it has an answer at any moment to what the call has used so far.

The answer is the provider's own usage when it has come, else the prompt's tokens and those counted in what was passed
on, and the searches that the provider told of.
A call that the provider never took costs nothing; one that it took and that broke before anything came costs nothing
either, if it was the provider that broke it.
"""

from collections.abc import Mapping

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
from proxy.ledger import Outcome, Slot
from proxy.tokens import DEFAULT, TOKENS_PER_MADE_IMAGE, Tokenizer, spoken_tokens
from proxy.transcript import TranscriptSegment

TOKENS_PER_SEGMENT_SECOND = 45
"""Of a segment that says who speaks, with all that a model writes to tell it: 43 to 49 on every recorded answer, and
the text is an eighth of that.
"""
MAX_SEGMENT_SECONDS = 86_400


class Meter:
    """Told what the provider says and what was passed on; asked for the usage. No I/O but the journal's few bytes."""

    def __init__(self, prompt_tokens: int, slot: Slot, tokenizer: Tokenizer = DEFAULT) -> None:
        """`tokenizer` is that of the model, with which its prompt was counted too."""
        self._prompt_tokens = prompt_tokens
        self._slot = slot
        self._tokenizer = tokenizer
        self._accepted = False
        self._reported: Usage | None = None
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self._sound_characters = 0
        self._images = 0
        self._searches = 0
        self._finished = False
        self._failed = False

    def note_accepted(self) -> None:
        """The provider took the request: from here on the prompt is paid for."""
        self._accepted = True
        self._write_slot()

    def note_refused(self) -> None:
        """Nothing came of it after all, and another provider may be asked: for this one nothing is owed."""
        self._accepted = False
        self._reported = None
        self._write_slot()

    def note_read(self, events: list[ChatEvent]) -> None:
        """What the provider has said, whether it is passed on or not."""
        for event in events:
            if isinstance(event, Usage):
                self._reported = merge_usage(self._reported, event)
                self._write_slot()
            elif isinstance(event, Finished):
                self._finished = True
            elif isinstance(event, Failed):
                self._failed = True
            elif isinstance(event, ProviderItem):
                self._searches += is_search(event)

    def note_passed_on(self, events: list[ChatEvent]) -> None:
        """What has reached the client's socket. Counted piece by piece, so that a recount can do the same."""
        count = self._tokenizer.count
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                self._output_tokens += count(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning_tokens += count(event.text)
            elif isinstance(event, ToolCallDelta):
                self._output_tokens += count(event.name or "") + count(event.arguments)
            elif isinstance(event, AudioDelta):
                self._output_tokens += count(event.transcript)
                self._sound_characters += len(event.data)
            elif isinstance(event, ImageDelta):
                self._images += 1
            elif isinstance(event, TranscriptSegment):
                self._output_tokens += self._beside_text(event.item)
        self._write_slot()

    @property
    def usage(self) -> Usage:
        """The provider's word, where it is one: zeros say nothing, and of an answer without its end it may be old."""
        counted, reported = self.counted_usage, self._reported
        if reported is None:
            return counted
        is_old = not self._finished and counted.completion_tokens > reported.completion_tokens
        prompt = reported if reported.prompt_tokens else counted
        completion = reported if reported.completion_tokens and not is_old else counted
        searches = reported.searches if self._finished else max(reported.searches, counted.searches)
        return _join(prompt, completion, searches)

    @property
    def counted_usage(self) -> Usage:
        """What was counted here, whatever the provider says."""
        passed_on = self._output_tokens + self._reasoning_tokens + self._sound_characters + self._images
        if not self._accepted or (self._failed and not passed_on):
            return Usage()
        return Usage(
            input_tokens=self._prompt_tokens,
            output_tokens=self._tokenizer.estimate(self._output_tokens),
            reasoning_tokens=self._tokenizer.estimate(self._reasoning_tokens),
            output_audio_tokens=spoken_tokens(self._sound_characters),
            output_image_tokens=self._images * TOKENS_PER_MADE_IMAGE,
            searches=self._searches,
        )

    @property
    def is_provisional(self) -> bool:
        return self.usage not in (self._reported, Usage())

    @property
    def outcome(self) -> Outcome:
        if self._failed:
            return "failed"
        return "completed" if self._finished else "cancelled"

    def _beside_text(self, item: Mapping[str, object]) -> int:
        """What a segment has cost beyond its text, which comes as text too and is counted there."""
        text, start, end = item.get("text"), item.get("start"), item.get("end")
        if not isinstance(item.get("speaker"), str) or not isinstance(start, int | float):
            return 0
        seconds = end - start if isinstance(end, int | float) else 0
        if not 0 < seconds <= MAX_SEGMENT_SECONDS:
            return 0
        said = self._tokenizer.count(text) if isinstance(text, str) else 0
        return max(0, round(seconds * TOKENS_PER_SEGMENT_SECOND) - said)

    def _write_slot(self) -> None:
        usage = self.usage
        self._slot.note(self._accepted, usage == self._reported, usage)


def is_search(item: ProviderItem) -> bool:
    """Whether this item tells of one search that the provider made and charges: Anthropic's `server_tool_use`, and
    OpenAI's and xAI's `web_search_call`, unless it only opened a page. Google reports what it charges with its usage.
    https://platform.openai.com/docs/guides/tools-web-search, https://platform.claude.com/docs/en/api/messages
    """
    match item.item:
        case {"type": "server_tool_use", "name": "web_search"}:
            return True
        case {"type": "web_search_call", "action": {"type": str(action)}}:
            return action == "search"
        case {"type": "web_search_call"}:
            return True
    return False


def merge_usage(earlier: Usage | None, later: Usage) -> Usage:
    """Later figures replace earlier ones, except with zeros: some providers end with a usage that is empty."""
    if earlier is None:
        return later
    prompt = later if later.prompt_tokens else earlier
    completion = later if later.completion_tokens else earlier
    return _join(prompt, completion, max(earlier.searches, later.searches))


def _join(prompt: Usage, completion: Usage, searches: int) -> Usage:
    """The prompt of the one and the completion of the other: buckets of a side come from one count alone."""
    return Usage(
        input_tokens=prompt.input_tokens,
        cache_read_tokens=prompt.cache_read_tokens,
        cache_write_tokens=prompt.cache_write_tokens,
        cache_write_1h_tokens=prompt.cache_write_1h_tokens,
        input_audio_tokens=prompt.input_audio_tokens,
        output_tokens=completion.output_tokens,
        reasoning_tokens=completion.reasoning_tokens,
        output_audio_tokens=completion.output_audio_tokens,
        output_image_tokens=completion.output_image_tokens,
        searches=searches,
    )
