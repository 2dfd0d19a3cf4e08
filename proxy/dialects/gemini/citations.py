"""The sources of a Gemini answer, from what it was grounded on and what it recites."""

from typing import Any

import msgspec

from proxy.events import Citation

_MAX_TEXT = 1024 * 1024
"""Of an answer's text are kept to find places in; the longest answers are a third of that."""
_MAX_CITATIONS = 1000


class _Place(msgspec.Struct):
    """A page on the web, a document of a search in files, or a place on a map."""

    uri: str | None = None
    title: str | None = None
    text: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    web: _Place | None = None
    retrieved_context: _Place | None = None
    maps: _Place | None = None


class _Segment(msgspec.Struct, rename="camel"):
    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class _Support(msgspec.Struct, rename="camel"):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class _Grounding(msgspec.Struct, rename="camel"):
    grounding_chunks: list[_Chunk] | None = None
    grounding_supports: list[_Support] | None = None


class CitationSource(msgspec.Struct, rename="camel"):
    start_index: int | None = None
    end_index: int | None = None
    uri: str | None = None


class CitationMetadata(msgspec.Struct, rename="camel"):
    citation_sources: list[CitationSource] | None = None


class Citations:
    """Those of one answer, each once, though a stream may repeat them. Keeps the text that they speak of."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._seen: set[tuple[object, ...]] = set()

    def add_text(self, text: str) -> None:
        self._length += len(text)
        if self._length <= _MAX_TEXT:
            self._pieces.append(text)

    def read_grounding(self, grounding: dict[str, Any]) -> list[Citation]:
        """One for each source, with the first place that it supports."""
        try:
            known = msgspec.convert(grounding, _Grounding, strict=False)
        except msgspec.ValidationError:
            return []
        segments = _first_segments(known.grounding_supports or [])
        text = self._text
        found = []
        for index, chunk in enumerate(known.grounding_chunks or ()):
            place = chunk.web or chunk.retrieved_context or chunk.maps or _Place()
            if self._is_new((index, place.uri, place.title)):
                start, end = _span(text, segments.get(index))
                found.append(Citation(place.uri, place.title, start, end, place.text))
        return found

    def read_recitations(self, metadata: CitationMetadata) -> list[Citation]:
        """https://ai.google.dev/api/generate-content#CitationMetadata."""
        text = self._text
        found = []
        for source in metadata.citation_sources or ():
            if self._is_new((source.uri, source.start_index, source.end_index)):
                segment = _Segment(source.start_index, source.end_index)
                start, end = _span(text, segment)
                found.append(Citation(source.uri, start=start, end=end))
        return found

    @property
    def _text(self) -> str | None:
        """None if it is too long, or not all of it was kept."""
        return "".join(self._pieces) if self._length <= _MAX_TEXT else None

    def _is_new(self, key: tuple[object, ...]) -> bool:
        if key in self._seen or len(self._seen) >= _MAX_CITATIONS:
            return False
        self._seen.add(key)
        return True


def _first_segments(supports: list[_Support]) -> dict[int, _Segment]:
    segments: dict[int, _Segment] = {}
    for support in supports:
        for index in support.grounding_chunk_indices or ():
            if support.segment is not None:
                segments.setdefault(index, support.segment)
    return segments


def _span(text: str | None, segment: _Segment | None) -> tuple[int | None, int | None]:
    """Google counts bytes of UTF-8, from the start of a part that a stream cuts into pieces; its own copy of the text
    says whether we look at the right place. An index that is 0 is left out.
    """
    if text is None or segment is None or segment.end_index is None:
        return None, None
    start, end = _characters(text, segment.start_index or 0, segment.end_index)
    if segment.text and (start is None or text[start:end] != segment.text):
        start = text.find(segment.text)
        return (start, start + len(segment.text)) if start >= 0 else (None, None)
    return start, end


def _characters(text: str, start: int, end: int) -> tuple[int | None, int | None]:
    """Places in bytes to places in characters; None where there is no such place."""
    encoded = text.encode("utf-8", "surrogatepass")
    if not 0 <= start <= end <= len(encoded):
        return None, None
    before = len(encoded[:start].decode("utf-8", "ignore"))
    return before, before + len(encoded[start:end].decode("utf-8", "ignore"))
