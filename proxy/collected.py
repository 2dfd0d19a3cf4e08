"""An answer collected: what the events of a stream add up to."""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.chat import ProviderItem, ToolCall
from proxy.events import (
    AudioDelta,
    Cancelled,
    ChatEvent,
    Citation,
    Completed,
    Failed,
    Finished,
    FinishReason,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from proxy.transcript import TranscriptFacts, TranscriptSegment, TranscriptWord


@dataclass(frozen=True, slots=True)
class ReasoningBlock:
    """One block of what the model thought: as it is, as a summary, sealed, or several of these."""

    text: str = field(default="", repr=False)
    summary: str = field(default="", repr=False)
    seal: ReasoningSealed | None = None


@dataclass(slots=True)
class Collected:
    """Feed it a stream's events; afterwards it is the whole answer. `ended` is the last event."""

    ended: Completed | Failed | Cancelled | None = None
    finish_reason: FinishReason = "stop"
    citations: list[Citation] = field(default_factory=list, repr=False)
    images: list[ImageDelta] = field(default_factory=list, repr=False)
    logprobs: list[Mapping[str, object]] = field(default_factory=list, repr=False)
    items: list[tuple[ProviderItem, int]] = field(default_factory=list, repr=False)
    """What the provider made or ran itself, each with the number of reasoning blocks that had begun before it."""
    segments: list[TranscriptSegment] = field(default_factory=list, repr=False)
    words: list[TranscriptWord] = field(default_factory=list, repr=False)
    facts: TranscriptFacts = field(default_factory=TranscriptFacts)
    _said: list[str] = field(default_factory=list, repr=False)
    _text: list[str] = field(default_factory=list, repr=False)
    _reasoning: list[str] = field(default_factory=list, repr=False)
    _refusal: list[str] = field(default_factory=list, repr=False)
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict, repr=False)
    _blocks: dict[int, list[ReasoningDelta | ReasoningSealed]] = field(default_factory=dict, repr=False)
    _audio: list[AudioDelta] = field(default_factory=list, repr=False)

    def add(self, events: list[ChatEvent]) -> None:
        for event in events:
            match event:
                case TextDelta(text):
                    self._text.append(text)
                    self._said.append(text)
                case RefusalDelta(text):
                    self._refusal.append(text)
                    self._said.append(text)
                case ToolCallDelta():
                    self._calls.setdefault(event.index, []).append(event)
                case Finished(reason):
                    self.finish_reason = reason
                case Completed() | Failed() | Cancelled():
                    self.ended = event
                case ReasoningDelta() | ReasoningSealed():
                    self._add_reasoning(event)
                case _:
                    self._add_other(event)

    def _add_reasoning(self, event: ReasoningDelta | ReasoningSealed) -> None:
        self._blocks.setdefault(event.index, []).append(event)
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)

    def _add_other(self, event: ChatEvent) -> None:
        match event:
            case Citation():
                self.citations.append(event)
            case ImageDelta():
                self.images.append(event)
            case AudioDelta():
                self._audio.append(event)
            case Logprobs(content):
                self.logprobs.extend(content)
            case TranscriptSegment():
                self.segments.append(event)
            case TranscriptWord():
                self.words.append(event)
            case TranscriptFacts():
                self.facts = event
            case ProviderItem():
                self.items.append((event, len(self._blocks)))

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """Every piece in the order in which it came."""
        return "".join(self._reasoning)

    @property
    def reasoning_blocks(self) -> list[ReasoningBlock]:
        """In the order in which they began."""
        return [_join_block(pieces) for pieces in self._blocks.values()]

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    @property
    def said(self) -> str:
        """Text and refusal in the order in which they came, for clients that know but one."""
        return "".join(self._said)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """In the order of their index; a piece of an id or a name comes once."""
        return [_join_call(pieces) for _, pieces in sorted(self._calls.items())]

    @property
    def audio(self) -> AudioDelta | None:
        """The spoken answer in one piece, None if nothing was said aloud."""
        if not self._audio:
            return None
        return AudioDelta(
            _join_base64([piece.data for piece in self._audio]),
            "".join(piece.transcript for piece in self._audio),
            next((piece.id for piece in self._audio if piece.id), None),
            next((piece.expires_at for piece in self._audio if piece.expires_at), None),
        )


def _join_call(pieces: list[ToolCallDelta]) -> ToolCall:
    id_ = next((piece.id for piece in pieces if piece.id), "")
    name = next((piece.name for piece in pieces if piece.name), "")
    signature = next((piece.signature for piece in pieces if piece.signature), None)
    return ToolCall(id_, name, "".join(piece.arguments for piece in pieces), signature)


def _join_block(pieces: list[ReasoningDelta | ReasoningSealed]) -> ReasoningBlock:
    deltas = [piece for piece in pieces if isinstance(piece, ReasoningDelta)]
    return ReasoningBlock(
        "".join(piece.text for piece in deltas if not piece.is_summary),
        "".join(piece.text for piece in deltas if piece.is_summary),
        next((piece for piece in pieces if isinstance(piece, ReasoningSealed)), None),
    )


def _join_base64(pieces: Sequence[str]) -> str:
    """Pieces that were padded each for itself are no base64 when they are strung together."""
    pieces = [piece for piece in pieces if piece]
    if not any(piece.endswith("=") for piece in pieces[:-1]):
        return "".join(pieces)
    try:
        return b64encode(b"".join(b64decode(piece) for piece in pieces)).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)
