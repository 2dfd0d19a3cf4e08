"""An answer collected: what the events of a stream add up to."""

from dataclasses import dataclass, field

from proxy.chat import (
    ChatEvent,
    Completed,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)


@dataclass(slots=True)
class Collected:
    """Feed it a stream's events; afterwards it is the whole answer. `ended` is the last event."""

    ended: Completed | Failed | None = None
    finish_reason: FinishReason = "stop"
    _text: list[str] = field(default_factory=list, repr=False)
    _reasoning: list[str] = field(default_factory=list, repr=False)
    _refusal: list[str] = field(default_factory=list, repr=False)
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict, repr=False)

    def add(self, events: list[ChatEvent]) -> None:
        for event in events:
            match event:
                case TextDelta(text):
                    self._text.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case RefusalDelta(text):
                    self._refusal.append(text)
                case ToolCallDelta():
                    self._calls.setdefault(event.index, []).append(event)
                case Finished(reason):
                    self.finish_reason = reason
                case Completed() | Failed():
                    self.ended = event

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """In the order of their index; a piece of an id or a name comes once."""
        return [_join(pieces) for _, pieces in sorted(self._calls.items())]


def _join(pieces: list[ToolCallDelta]) -> ToolCall:
    id_ = next((piece.id for piece in pieces if piece.id), "")
    name = next((piece.name for piece in pieces if piece.name), "")
    return ToolCall(id_, name, "".join(piece.arguments for piece in pieces))
