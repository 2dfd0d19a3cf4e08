"""What a model thinks, as servers of OpenAI's chat dialect tell it: a plain text, or OpenRouter's entries.

OpenRouter sends both: `reasoning` is to be shown, `reasoning_details` are to be sent back, and hold the same text
(https://openrouter.ai/docs/use-cases/reasoning-tokens). It is told once.

What OpenAI and xAI seal, only the account can open that it was sealed for: sealed for OpenRouter's, it would be refused
when the conversation goes on at OpenAI itself, and the other way round. So its format says where it was sealed.
"""

from collections.abc import Sequence

import msgspec

from proxy.chat import ProviderItem
from proxy.events import ChatEvent, ReasoningDelta, ReasoningSealed

ACCOUNT_BOUND = frozenset({"openai-responses-v1", "xai-responses-v1"})
SEALED_HERE = "@openrouter"

_MAX_OPEN_BLOCKS = 1000


class WireDetail(msgspec.Struct):
    type: str = ""
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    format: str | None = None
    id: str | None = None
    index: int | None = None

    @property
    def shown(self) -> str:
        return self.text or self.summary or ""


class ReasoningBlocks:
    """The blocks of one answer so far: a server's index names a block until it is sealed, then the next one."""

    def __init__(self) -> None:
        self._open: dict[int | None, int] = {}
        self._count = 0

    def read(self, plain: str, details: object, events: list[ChatEvent]) -> None:
        """`plain` is what is to be shown; `details` is decoded JSON, usually None."""
        entries = _read_details(details)
        shown = "".join(entry.shown for entry, _ in entries)
        if plain and plain != shown:
            events.append(ReasoningDelta(plain, self._block(entries[0][0].index if entries else None)))
        for entry, raw in entries:
            if entry.shown and not plain:
                # Kept from the reader by the server, as between the runs of its own tools: it only goes back.
                events.append(ProviderItem(entry.format or "", raw))
                continue
            if entry.shown and plain == shown:
                events.append(ReasoningDelta(entry.shown, self._block(entry.index), entry.type == "reasoning.summary"))
            self._seal(entry, events)

    def seal(self, format_: str, signature: str, events: list[ChatEvent]) -> None:
        """A signature that stands beside the text."""
        self._seal(WireDetail(format=format_, signature=signature), events)

    def _seal(self, entry: WireDetail, events: list[ChatEvent]) -> None:
        if entry.signature or entry.data:
            block = self._block(entry.index)
            del self._open[entry.index]
            events.append(ReasoningSealed(block, _origin(entry), entry.id, entry.signature, entry.data))

    def _block(self, index: int | None) -> int:
        block = self._open.get(index)
        if block is None:
            if len(self._open) >= _MAX_OPEN_BLOCKS:
                self._open.clear()
            block = self._open[index] = self._count
            self._count += 1
        return block


def _origin(entry: WireDetail) -> str:
    format_ = entry.format or ""
    return format_ + SEALED_HERE if format_ in ACCOUNT_BOUND else format_


def _read_details(details: object) -> Sequence[tuple[WireDetail, dict[str, object]]]:
    if not isinstance(details, list):
        return ()
    read = []
    for raw in details:
        try:
            read.append((msgspec.convert(raw, WireDetail, strict=False), raw))
        except msgspec.ValidationError:
            continue
    return read
