"""What an answer holds besides text, as `/v1` writes it: the same entries in a stream's deltas and in a whole message.

OpenAI's shapes where they have one; else those of OpenRouter (`reasoning_details`, `images`) and of Gemini's OpenAI
dialect (`extra_content`); `provider_items` and `document_citations` are our own. The entries of a list are numbered
from 0 by `index`, without gaps: OpenAI's Python SDK joins them by it, and raises if it is not there.
"""

from proxy.chat import ProviderItem, ToolCall
from proxy.collected import Collected, ReasoningBlock
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    ImageDelta,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    ToolCallDelta,
)

Json = dict[str, object]


class DeltaWriter:
    """Turns the events of one stream into deltas. Remembers how many entries of each list there were."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._kinds: dict[int, str] = {}
        self._counts: dict[str, int] = {}
        self._told_of_audio: set[str] = set()

    def build(self, event: ChatEvent) -> Json | None:
        """None for an event that is no part of a message."""
        match event:
            case ReasoningDelta(text):
                return {"reasoning_content": text, "reasoning_details": [self._build_reasoning(event)]}
            case ReasoningSealed():
                return {"reasoning_details": [self._build_seal(event)]}
            case RefusalDelta(text):
                return {"refusal": text}
            case ToolCallDelta():
                return tool_call_delta(event)
            case AudioDelta():
                return {"audio": self._build_audio(event)}
        return self._build_entry(event)

    def _build_entry(self, event: ChatEvent) -> Json | None:
        match event:
            case Citation():
                name, entry = _citation(event)
            case ImageDelta():
                name, entry = "images", _image(event)
            case ProviderItem():
                name, entry = "provider_items", _item(event, len(self._blocks))
            case _:
                return None
        index = self._counts[name] = self._counts.get(name, -1) + 1
        return {name: [{"index": index, **entry}]}

    def _build_reasoning(self, event: ReasoningDelta) -> Json:
        kind = "summary" if event.is_summary else "text"
        self._kinds[event.index] = kind
        return {"index": self._number(event.index), "type": f"reasoning.{kind}", kind: event.text}

    def _build_seal(self, event: ReasoningSealed) -> Json:
        kind = "encrypted" if event.encrypted is not None else self._kinds.get(event.index, "text")
        seal = _present(data=event.encrypted, signature=event.signature)
        return {"index": self._number(event.index), "type": f"reasoning.{kind}"} | seal | _origin(event)

    def _build_audio(self, event: AudioDelta) -> Json:
        """Id and expiry once: the SDK would add what comes twice to what it has."""
        once = _present(id=event.id or None, expires_at=event.expires_at or None)
        told = {name: value for name, value in once.items() if name not in self._told_of_audio}
        self._told_of_audio.update(told)
        return told | _present(data=event.data or None, transcript=event.transcript or None)

    def _number(self, index: int) -> int:
        """Readers number blocks as their provider does, perhaps with gaps."""
        return self._blocks.setdefault(index, len(self._blocks))


def message_pieces(collected: Collected) -> Json:
    """The members of a whole message; only those that say something."""
    lists: dict[str, list[Json]] = {"reasoning_details": [], "annotations": [], "document_citations": []}
    for number, block in enumerate(collected.reasoning_blocks):
        lists["reasoning_details"] += _block_entries(number, block)
    for citation in collected.citations:
        name, entry = _citation(citation)
        lists[name].append({"index": len(lists[name]), **entry})
    lists["images"] = [{"index": number, **_image(image)} for number, image in enumerate(collected.images)]
    items = enumerate(collected.items)
    lists["provider_items"] = [{"index": number, **_item(item, after)} for number, (item, after) in items]
    lists["tool_calls"] = [_tool_call(call) for call in collected.tool_calls]
    pieces: Json = {name: entries for name, entries in lists.items() if entries}
    if collected.reasoning:
        pieces["reasoning_content"] = collected.reasoning
    if collected.audio is not None:
        pieces["audio"] = _audio(collected.audio)
    return pieces


def tool_call_delta(call: ToolCallDelta) -> Json:
    """A delta for one piece of a tool call; id, type and name come with the first alone."""
    function: Json = {"arguments": call.arguments}
    piece: Json = {"index": call.index, "function": function}
    if call.name is not None:
        function["name"] = call.name
    if call.id is not None:
        piece |= {"id": call.id, "type": "function"}
    return {"tool_calls": [piece | _extra_content(call.signature)]}


def _tool_call(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function} | _extra_content(call.signature)


def _extra_content(signature: str | None) -> Json:
    return {} if signature is None else {"extra_content": {"google": {"thought_signature": signature}}}


def _block_entries(number: int, block: ReasoningBlock) -> list[Json]:
    """One entry for most blocks; one for each kind of what it holds, for a kind has a member of its own."""
    seal = block.seal or ReasoningSealed()
    origin = _origin(seal)
    entries: list[Json] = []
    if block.summary:
        entries.append({"type": "reasoning.summary", "summary": block.summary})
    if block.text or (seal.signature is not None and seal.encrypted is None):
        signature = _present(signature=seal.signature)
        entries.append({"type": "reasoning.text", "text": block.text, **signature})
    if seal.encrypted is not None:
        signature = {} if block.text else _present(signature=seal.signature)
        entries.append({"type": "reasoning.encrypted", "data": seal.encrypted, **signature})
    return [{"index": number, **entry, **origin} for entry in entries or [{"type": "reasoning.text"}]]


def _origin(seal: ReasoningSealed) -> Json:
    return _present(id=seal.id, format=seal.format or None)


def _citation(citation: Citation) -> tuple[str, Json]:
    """The list that it belongs to, and its entry: the SDKs type `annotations` as pages with these four members."""
    if citation.url is not None:
        page: Json = {"url": citation.url, "title": citation.title or ""}
        place: Json = {"start_index": citation.start or 0, "end_index": citation.end or 0}
        cited = page | place | _present(content=citation.cited_text)
        return "annotations", {"type": "url_citation", "url_citation": cited}
    source = _present(document_index=citation.document_index, title=citation.title, cited_text=citation.cited_text)
    span = _present(start_index=citation.start, end_index=citation.end)
    return "document_citations", {"type": "document_citation"} | source | span


def _image(image: ImageDelta) -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{image.data}"}}


def _item(item: ProviderItem, after_reasoning: int) -> Json:
    return {"format": item.format, "item": item.item, "after_reasoning": after_reasoning}


def _audio(audio: AudioDelta) -> Json:
    """Whole, it has all four members."""
    return {
        "id": audio.id or "",
        "data": audio.data,
        "transcript": audio.transcript,
        "expires_at": audio.expires_at or 0,
    }


def _present(**members: object) -> Json:
    return {name: value for name, value in members.items() if value is not None}
