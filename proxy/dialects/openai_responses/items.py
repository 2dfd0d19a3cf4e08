"""The items that an answer of the Responses API is made of, and what of them has been told already.

A stream tells the same thing up to four times: in pieces, when a part is done, when its item is done, and in the whole
answer at the end. Servers leave out some of these. So each part is told where it comes first, and never again.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import uuid4

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import ProviderItem
from proxy.dialects.openai_responses.wire import (
    Content,
    Event,
    Item,
    decode_annotation,
    decode_any,
    decode_content,
    decode_item,
    decode_odd_item,
    decode_text,
)
from proxy.events import (
    ChatEvent,
    Citation,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

MAX_PARTS = 20_000
"""Of all items together: what a model says in an hour has some hundreds."""

_LAST = 0
"""The place of what names none."""
_IMAGE_TYPES: Mapping[str, str] = MappingProxyType({"svg": "image/svg+xml"})


class TooManyParts(Exception):
    """An answer in so many parts that remembering them would fill the memory."""


@dataclass(slots=True, eq=False)
class _Place:
    """What has come of one item. `texts` says where each of its parts begins in the answer's text."""

    type: str = ""
    id: str | None = None
    is_over: bool = False
    texts: dict[int, int] = field(default_factory=dict)
    citations: dict[int, int] = field(default_factory=dict)
    call_index: int | None = None
    is_named: bool = False
    argument_chars: int = 0
    block: int | None = None
    thought: tuple[bool, int] | None = None
    """The part of the reasoning that `block` is."""


class OutputItems:
    """All items of one answer. Its methods append to `events`, and raise TooManyParts."""

    def __init__(self, item_format: str) -> None:
        self.searches = 0
        self._format = item_format
        self._places: dict[int | str, _Place] = {}
        self._all: list[_Place] = []
        self._parts = 0
        self._text_chars = 0
        self._blocks = 0
        self._calls = 0
        self._call_ids: set[str] = set()
        self._unanswered: set[str] = set()

    @property
    def waits_for_client(self) -> bool:
        """Whether there are calls that the client has to answer: of functions, or of other tools that it runs."""
        return bool(self._calls or self._unanswered)

    @property
    def has_text(self) -> bool:
        return self._text_chars > 0

    def open_item(self, event: Event, events: list[ChatEvent]) -> None:
        item = _read_item(event.item)
        if item is None:
            return
        place = self._find_place(event, item)
        place.id = item.id
        if item.type == "function_call":
            self._open_call(place, item, events)

    def add_text(self, event: Event, delta: str, events: list[ChatEvent]) -> None:
        place, part = self._place(event), event.content_index or 0
        if part not in place.texts:
            self._begin_part(place, part)
        self._text_chars += len(delta)
        events.append(TextDelta(delta))
        if event.logprobs:
            events.append(Logprobs(tuple(event.logprobs)))

    def add_refusal(self, event: Event, delta: str, events: list[ChatEvent]) -> None:
        place, part = self._place(event), event.content_index or 0
        if part not in place.texts:
            self._begin_part(place, part)
        events.append(RefusalDelta(delta))

    def add_arguments(self, event: Event, delta: str, events: list[ChatEvent]) -> None:
        place = self._place(event)
        place.argument_chars += len(delta)
        events.append(ToolCallDelta(self._call_index(place), arguments=delta))

    def add_reasoning(self, event: Event, delta: str, *, is_summary: bool, events: list[ChatEvent]) -> None:
        place = self._place(event)
        part = (event.summary_index if is_summary else event.content_index) or 0
        block = self._open_block(place, (is_summary, part), events)
        events.append(ReasoningDelta(delta, block, is_summary))

    def add_citation(self, event: Event, events: list[ChatEvent]) -> None:
        place, part = self._place(event), event.content_index or 0
        place.citations[part] = place.citations.get(part, 0) + 1
        self._cite(event.annotation, place.texts.get(part, self._text_chars), events)

    def end_part(self, event: Event, events: list[ChatEvent]) -> None:
        """`content_part.done`, or one of the kinds of `….done` that tell only its text."""
        part = Content(text=event.text, refusal=event.refusal, logprobs=event.logprobs)
        if event.part:
            try:
                part = decode_content(event.part)
            except NOT_JSON:
                return
        if part.type != "reasoning_text":
            self._end_part(self._place(event), event.content_index or 0, part, events)

    def end_reasoning(self, event: Event, *, is_summary: bool, events: list[ChatEvent]) -> None:
        place = self._place(event)
        if place.block is None and event.text:
            self.add_reasoning(event, event.text, is_summary=is_summary, events=events)

    def end_arguments(self, event: Event, events: list[ChatEvent]) -> None:
        self._add_rest(self._place(event), event.arguments or "", events)

    def end_item(self, event: Event, events: list[ChatEvent]) -> None:
        item = _read_item(event.item)
        if item is not None:
            self._end_item(self._find_place(event, item), item, event.item, events)

    def end_all(self, output: list[msgspec.Raw], events: list[ChatEvent]) -> None:
        """The whole answer."""
        items = [_read_item(raw) or Item() for raw in output]
        for raw, item, place in zip(output, items, self._match(items), strict=True):
            self._end_item(place, item, raw, events)

    def _match(self, items: list[Item]) -> Iterator[_Place]:
        """Which of them were told before. Not every server keeps the places and ids that it told: what stands at its
        place is the same, and of the rest the first of a kind is the first of that kind.
        """
        same = [self._place_at(position, item) for position, item in enumerate(items)]
        taken, left = set(same), defaultdict[str, deque[_Place]](deque)
        for place in self._all:
            if place not in taken:
                left[place.type].append(place)
        for position, item in enumerate(items):
            found = same[position]
            if found is None and left[item.type]:
                found = left[item.type].popleft()
            yield self._new_place((f"end {position}",), item.type, item.id) if found is None else found

    def _place_at(self, position: int, item: Item) -> _Place | None:
        """Where nothing is counted a place has its item's id for a key."""
        places = (self._places.get(key) for key in (item.id, position) if key is not None)
        return next((place for place in places if place is not None and place.type in {"", item.type}), None)

    def _place(self, event: Event) -> _Place:
        key = _key(event)
        place = self._places.get(key)
        return self._new_place((key,), "", event.item_id) if place is None else place

    def _find_place(self, event: Event, item: Item) -> _Place:
        """A place that is taken by another item is given anew: some servers count nothing and say 0 always. Where none
        is counted an item is found by its id, or is the last one.
        """
        counts = event.output_index is not None
        keys = (_key(event),) if counts or not item.id else (item.id, _LAST)
        place = next((self._places[key] for key in keys if key in self._places), None)
        is_taken = place is not None and place.id != item.id and (place.is_over or not (counts or place.id is None))
        if place is None or place.type not in {"", item.type} or is_taken:
            place = self._new_place(keys, item.type, item.id)
        place.type = item.type
        return place

    def _new_place(self, keys: tuple[int | str, ...], type_: str, id_: str | None) -> _Place:
        self._count_part()
        place = _Place(type_, id_)
        self._places.update(dict.fromkeys(keys, place))
        self._all.append(place)
        return place

    def _begin_part(self, place: _Place, part: int) -> None:
        self._count_part()
        place.type = place.type or "message"
        place.texts[part] = self._text_chars

    def _count_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooManyParts

    def _end_item(self, place: _Place, item: Item, raw: msgspec.Raw, events: list[ChatEvent]) -> None:
        if place.is_over:
            return
        place.is_over = True
        match item.type:
            case "message":
                for number, part in enumerate(item.content or ()):
                    self._end_part(place, number, part, events)
            case "function_call":
                self._open_call(place, item, events)
                self._add_rest(place, _read_arguments(item.arguments), events)
            case "reasoning":
                self._end_reasoning(place, item, events)
            case _:
                self._tell_provider_item(item, raw, events)

    def _end_part(self, place: _Place, number: int, part: Content, events: list[ChatEvent]) -> None:
        if number not in place.texts and (part.text or part.refusal):
            self._begin_part(place, number)
            if part.text:
                self._text_chars += len(part.text)
                events.append(TextDelta(part.text))
                if part.logprobs:
                    events.append(Logprobs(tuple(part.logprobs)))
            if part.refusal:
                events.append(RefusalDelta(part.refusal))
        told = place.citations.get(number, 0)
        for annotation in (part.annotations or ())[told:]:
            self._cite(annotation, place.texts.get(number, self._text_chars), events)
        place.citations[number] = max(told, len(part.annotations or ()))

    def _cite(self, raw: msgspec.Raw, begin: int, events: list[ChatEvent]) -> None:
        """Files of a search or of a container have a name and no address. A position is one within its part."""
        try:
            cited = decode_annotation(raw)
        except NOT_JSON:
            return
        start = cited.index if cited.start_index is None else cited.start_index
        end = cited.index if cited.end_index is None else cited.end_index
        title = cited.title or cited.filename
        events.append(Citation(cited.url, title, _moved(start, begin), _moved(end, begin)))

    def _open_call(self, place: _Place, item: Item, events: list[ChatEvent]) -> None:
        index = self._call_index(place)
        if not place.is_named and (item.name or place.is_over):
            place.is_named = True
            events.append(ToolCallDelta(index, self._new_call_id(item), item.name))

    def _call_index(self, place: _Place) -> int:
        if place.call_index is None:
            place.type, place.call_index = "function_call", self._calls
            self._calls += 1
        return place.call_index

    def _new_call_id(self, item: Item) -> str:
        id_ = item.call_id or item.id
        if not id_ or id_ in self._call_ids:
            id_ = f"call_{uuid4().hex}"
        self._call_ids.add(id_)
        return id_

    def _add_rest(self, place: _Place, arguments: str, events: list[ChatEvent]) -> None:
        rest = arguments[place.argument_chars :]
        if rest:
            place.argument_chars += len(rest)
            events.append(ToolCallDelta(self._call_index(place), arguments=rest))

    def _open_block(self, place: _Place, part: tuple[bool, int], events: list[ChatEvent]) -> int:
        """A block for each part. What seals the item comes with its last; the id says that they belong together."""
        if place.block is not None and place.thought == part:
            return place.block
        if place.block is not None and place.id:
            events.append(ReasoningSealed(place.block, self._format, place.id))
        self._count_part()
        place.type, place.block, place.thought = "reasoning", self._blocks, part
        self._blocks += 1
        return place.block

    def _end_reasoning(self, place: _Place, item: Item, events: list[ChatEvent]) -> None:
        place.id = place.id or item.id
        if place.block is None:
            self._tell_thoughts(place, item.summary, is_summary=True, events=events)
            self._tell_thoughts(place, item.content, is_summary=False, events=events)
        if place.block is None and item.encrypted_content:
            self._open_block(place, (True, 0), events)
        if place.block is not None and (place.id or item.encrypted_content):
            item_format = item.format or self._format
            events.append(ReasoningSealed(place.block, item_format, place.id, encrypted=item.encrypted_content))

    def _tell_thoughts(
        self, place: _Place, parts: list[Content] | None, *, is_summary: bool, events: list[ChatEvent]
    ) -> None:
        for number, part in enumerate(parts or ()):
            if part.text:
                block = self._open_block(place, (is_summary, number), events)
                events.append(ReasoningDelta(part.text, block, is_summary))

    def _tell_provider_item(self, item: Item, raw: msgspec.Raw, events: list[ChatEvent]) -> None:
        try:
            untouched = decode_any(raw)
        except NOT_JSON:
            return
        events.append(ProviderItem(self._format, untouched))
        if item.type == "web_search_call" and (item.action is None or item.action.type in {None, "search"}):
            self.searches += 1
        if item.type == "image_generation_call" and item.result:
            kind = item.output_format or "png"
            events.append(ImageDelta(_IMAGE_TYPES.get(kind, f"image/{kind}"), item.result))
        if item.call_id and item.type.endswith("_output"):
            self._unanswered.discard(item.call_id)
        elif item.call_id and item.type.endswith("_call"):
            self._unanswered.add(item.call_id)


def _moved(position: int | None, begin: int) -> int | None:
    return None if position is None else begin + position


def _key(event: Event) -> int | str:
    """Some servers do not count their items."""
    return (event.item_id or _LAST) if event.output_index is None else event.output_index


def _read_item(raw: msgspec.Raw) -> Item | None:
    """An item whose members mean something else is known by its type alone."""
    try:
        return decode_item(raw)
    except NOT_JSON:
        pass
    try:
        odd = decode_odd_item(raw)
    except NOT_JSON:
        return None
    return Item(type=odd.type, id=odd.id, call_id=odd.call_id)


def _read_arguments(raw: msgspec.Raw) -> str:
    """A text that holds JSON, or from some servers the JSON itself."""
    try:
        return decode_text(raw) or ""
    except NOT_JSON:
        return bytes(raw).decode("utf-8", "replace")
