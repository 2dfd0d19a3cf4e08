"""The meter of one call: it has an answer at any moment to what the call has used so far.

The answer is the provider's own usage when it has come, else the prompt's tokens and those counted in what was passed
on.
A call that the provider never took costs nothing; one that it took and that broke before anything came costs nothing
either, if it was the provider that broke it.
"""

from proxy.chat import ChatEvent, Failed, Finished, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, Usage
from proxy.ledger import Outcome, Slot
from proxy.tokens import count_tokens


class Meter:
    """Told what the provider says and what was passed on; asked for the usage. No I/O but the journal's few bytes."""

    def __init__(self, prompt_tokens: int, slot: Slot) -> None:
        self._prompt_tokens = prompt_tokens
        self._slot = slot
        self._accepted = False
        self._reported: Usage | None = None
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self._finished = False
        self._failed = False

    def note_accepted(self) -> None:
        """The provider took the request: from here on the prompt is paid for."""
        self._accepted = True
        self._write_slot()

    def note_read(self, events: list[ChatEvent]) -> None:
        """What the provider has said, whether it is passed on or not."""
        for event in events:
            if isinstance(event, Usage):
                self._reported = _merge(self._reported, event)
                self._write_slot()
            elif isinstance(event, Finished):
                self._finished = True
            elif isinstance(event, Failed):
                self._failed = True

    def note_passed_on(self, events: list[ChatEvent]) -> None:
        """What has reached the client's socket. Counted piece by piece, so that a recount can do the same."""
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                self._output_tokens += count_tokens(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning_tokens += count_tokens(event.text)
            elif isinstance(event, ToolCallDelta):
                self._output_tokens += count_tokens(event.name or "") + count_tokens(event.arguments)
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
        return _join(prompt, completion)

    @property
    def counted_usage(self) -> Usage:
        """What was counted here, whatever the provider says."""
        passed_on = self._output_tokens + self._reasoning_tokens
        if not self._accepted or (self._failed and not passed_on):
            return Usage()
        return Usage(
            input_tokens=self._prompt_tokens, output_tokens=self._output_tokens, reasoning_tokens=self._reasoning_tokens
        )

    @property
    def is_provisional(self) -> bool:
        return self.usage not in (self._reported, Usage())

    @property
    def outcome(self) -> Outcome:
        if self._failed:
            return "failed"
        return "completed" if self._finished else "cancelled"

    def _write_slot(self) -> None:
        usage = self.usage
        self._slot.note(self._accepted, usage == self._reported, usage)


def _merge(earlier: Usage | None, later: Usage) -> Usage:
    """Later figures replace earlier ones, except with zeros: some providers end with a usage that is empty."""
    if earlier is None:
        return later
    return _join(later if later.prompt_tokens else earlier, later if later.completion_tokens else earlier)


def _join(prompt: Usage, completion: Usage) -> Usage:
    """The prompt of the one and the completion of the other."""
    return Usage(
        input_tokens=prompt.input_tokens,
        cache_read_tokens=prompt.cache_read_tokens,
        cache_write_tokens=prompt.cache_write_tokens,
        output_tokens=completion.output_tokens,
        reasoning_tokens=completion.reasoning_tokens,
    )
