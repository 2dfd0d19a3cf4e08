"""The content blocks of an Anthropic answer, one at a time: opened, filled by deltas, closed.

https://platform.claude.com/docs/en/build-with-claude/streaming#content-block-delta-types
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import ProviderItem
from proxy.dialects.anthropic.turns import FORMAT
from proxy.events import Citation, ReasoningSealed, ToolCallDelta

_EMPTY_OBJECT = "{}"


class WireCitation(msgspec.Struct):
    """Of any kind: `web_search_result_location`, `char_location`, `page_location`, `content_block_location`,
    `search_result_location`. Where in the document it is, no client has asked for yet.
    """

    url: str | None = None
    source: str | None = None
    title: str | None = None
    document_title: str | None = None
    document_index: int | None = None
    cited_text: str | None = None


class WireBlock(msgspec.Struct):
    """What the kinds of blocks that we know are made of; in a stream most of it comes in deltas."""

    type: str = ""
    text: str | None = None
    citations: list[WireCitation] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(slots=True)
class TextBlock:
    """What a block cites belongs to all of its text, so it is told when the text is complete."""

    start: int
    citations: list[WireCitation] = field(default_factory=list)

    def close(self, end: int) -> list[Citation]:
        return [_read_citation(wire, self.start, end) for wire in self.citations]


@dataclass(slots=True)
class ThinkingBlock:
    index: int
    place: str | None = None
    signature: str | None = None
    encrypted: str | None = None

    def close(self) -> list[ReasoningSealed]:
        if self.signature is None and self.encrypted is None:
            return []
        return [ReasoningSealed(self.index, FORMAT, self.place, self.signature, self.encrypted)]


@dataclass(slots=True)
class ToolBlock:
    """A call of a client's tool. Its arguments come in pieces, or all at once where it began, or not at all."""

    index: int
    arguments: str
    has_pieces: bool = False

    def close(self) -> list[ToolCallDelta]:
        return [] if self.has_pieces else [ToolCallDelta(self.index, arguments=self.arguments)]


@dataclass(slots=True)
class ItemBlock:
    """Anything else: what a tool of Anthropic's was asked and what it found, and blocks yet to be invented."""

    item: dict[str, Any]
    pieces: list[str] = field(default_factory=list)

    def close(self) -> list[ProviderItem]:
        """Input that was cut off is left out: it could not be sent back."""
        if self.pieces:
            try:
                self.item["input"] = msgspec.json.decode("".join(self.pieces))
            except NOT_JSON:
                self.pieces.clear()
        return [ProviderItem(FORMAT, self.item)]


OpenBlock = TextBlock | ThinkingBlock | ToolBlock | ItemBlock

_decode_item: Callable[[msgspec.Raw], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


def read_item(raw: msgspec.Raw) -> ItemBlock:
    """Raises one of NOT_JSON."""
    return ItemBlock(_decode_item(raw))


def read_arguments(block: WireBlock) -> str:
    """As they were written, but without white space between them."""
    raw = bytes(block.input)
    return msgspec.json.format(raw, indent=-1).decode() if raw.startswith(b"{") else _EMPTY_OBJECT


def call_id(block: WireBlock) -> str:
    return block.id or f"toolu_{uuid4().hex}"


def _read_citation(wire: WireCitation, start: int, end: int) -> Citation:
    return Citation(
        url=wire.url or wire.source,
        title=wire.title or wire.document_title,
        start=start,
        end=end,
        cited_text=wire.cited_text,
        document_index=wire.document_index,
    )
