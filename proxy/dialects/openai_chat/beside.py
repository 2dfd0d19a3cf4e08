"""What stands beside the text of an answer in OpenAI's chat dialect: sources, pictures, sound, probabilities.

None of it is worth losing an answer: what has another shape than we know is left out. Everything here takes decoded
JSON.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from proxy.chat import ProviderItem
from proxy.events import AudioDelta, ChatEvent, Citation, ImageDelta, Logprobs

_MAX_SOURCES = 1000

T = TypeVar("T")


class _UrlCitation(msgspec.Struct):
    url: str | None = None
    title: str | None = None
    content: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class _Annotation(msgspec.Struct):
    type: str = ""
    url_citation: _UrlCitation | None = None


class _Source(msgspec.Struct):
    url: str
    title: str | None = None


class _Audio(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None
    id: str | None = None
    expires_at: int | None = None


def read_annotations(annotations: object, format_: str, events: list[ChatEvent]) -> None:
    """Pages that were cited (https://platform.openai.com/docs/guides/tools-web-search), and what OpenRouter read in a
    file, which saves reading it again (https://openrouter.ai/docs/features/multimodal/pdfs).
    """
    for raw in _objects(annotations):
        annotation = _as(raw, _Annotation)
        if annotation is None:
            continue
        if annotation.type == "url_citation":
            cited = annotation.url_citation or _as(raw, _UrlCitation)
            if cited is not None and cited.url:
                events.append(_citation(cited))
        elif format_:
            events.append(ProviderItem(format_, raw))


def _citation(cited: _UrlCitation) -> Citation:
    """Equal places are OpenRouter's way of naming none."""
    start, end = cited.start_index, cited.end_index
    if start is None or end is None or not 0 <= start < end:
        start = end = None
    return Citation(cited.url, cited.title, start, end, cited.content)


class Sources:
    """The pages that a server lists for the whole answer, again in every chunk: told once, at the end, without those
    that were cited in their places.
    """

    def __init__(self) -> None:
        self._listed: object = None
        self._told: set[str] = set()

    def note(self, listed: object) -> None:
        self._listed = listed

    def note_told(self, events: list[ChatEvent]) -> None:
        for event in events:
            if isinstance(event, Citation) and event.url and len(self._told) < _MAX_SOURCES:
                self._told.add(event.url)

    def tell(self, events: list[ChatEvent]) -> None:
        if not isinstance(self._listed, list):
            return
        for raw in self._listed[:_MAX_SOURCES]:
            source = _Source(raw) if isinstance(raw, str) else _as(raw, _Source)
            if source is not None and source.url and source.url not in self._told:
                self._told.add(source.url)
                events.append(Citation(source.url, source.title))
        self._listed = None


def read_images(images: object, format_: str, events: list[ChatEvent]) -> None:
    """`[{"type": "image_url", "image_url": {"url": "data:…"}}]`:
    https://openrouter.ai/docs/features/multimodal/image-generation. An address goes on as it is.
    """
    for raw in _objects(images):
        match raw:
            case {"image_url": {"url": str(url)}} | {"image_url": str(url)} if url.startswith("data:"):
                head, _, data = url.partition(",")
                events.append(ImageDelta(head.removeprefix("data:").partition(";")[0], data))
            case {"image_url": _}:
                events.append(ProviderItem(format_, raw))


def read_audio(audio: object, events: list[ChatEvent]) -> None:
    """https://platform.openai.com/docs/guides/audio"""
    known = _as(audio, _Audio)
    if known is not None and (known.data or known.transcript or known.id or known.expires_at):
        events.append(AudioDelta(known.data or "", known.transcript or "", known.id, known.expires_at))


def read_logprobs(logprobs: object, events: list[ChatEvent]) -> None:
    if isinstance(logprobs, dict):
        entries = (*_objects(logprobs.get("content")), *_objects(logprobs.get("refusal")))
        if entries:
            events.append(Logprobs(entries))


def _objects(value: object) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())


def _as(value: object, type_: type[T]) -> T | None:
    if not isinstance(value, Mapping):
        return None
    try:
        return msgspec.convert(value, type_, strict=False)
    except (msgspec.ValidationError, RecursionError):
        return None
