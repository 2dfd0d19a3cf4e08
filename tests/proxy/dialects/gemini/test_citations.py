"""Where an answer's sources are cited: Google counts bytes, we count characters."""

from typing import Any

import msgspec
import pytest

from proxy.dialects.gemini.citations import CitationMetadata, Citations
from proxy.events import Citation

SUPPORTS = [
    {"segment": {"startIndex": 6, "endIndex": 14, "text": "änd sö"}, "groundingChunkIndices": [0, 9]},
    {"segment": {"endIndex": 3, "text": "elsewhere"}, "groundingChunkIndices": [1, 0]},
    {"segment": {"startIndex": 900, "endIndex": 999}, "groundingChunkIndices": [2]},
    {"groundingChunkIndices": [3]},
]
GROUNDING: dict[str, Any] = {
    "groundingChunks": [
        {"web": {"uri": "https://example.org/1", "title": "One"}},
        {"retrievedContext": {"title": "Two", "text": "said there"}},
        {"maps": {"uri": "https://example.org/3"}},
        {"unknown": {}},
    ],
    "groundingSupports": SUPPORTS,
}


def heard(*pieces: str) -> Citations:
    citations = Citations()
    for piece in pieces:
        citations.add_text(piece)
    return citations


def place(citations: Citations, start: int, end: int, text: str | None = None) -> tuple[int | None, int | None]:
    segment = {"startIndex": start, "endIndex": end, "text": text}
    supports = [{"segment": segment, "groundingChunkIndices": [0]}]
    [citation] = citations.read_grounding({"groundingChunks": [{"web": {}}], "groundingSupports": supports})
    return citation.start, citation.end


def test_each_source_has_the_first_place_that_it_supports() -> None:
    assert heard("Grün ", "änd ", "sö").read_grounding(GROUNDING) == [
        Citation("https://example.org/1", "One", 5, 11),
        Citation(None, "Two", cited_text="said there"),
        Citation("https://example.org/3"),
        Citation(),
    ]


def test_sources_that_are_repeated_count_once() -> None:
    citations = heard("x")
    assert len(citations.read_grounding(GROUNDING)) == 4
    assert citations.read_grounding(GROUNDING) == []


@pytest.mark.parametrize(
    ("start", "end", "text", "span"),
    [
        (0, 3, None, (0, 2)),
        (3, 8, "ö 🐸", (2, 5)),
        (0, 5, "🐸 ö", (None, None)),
        (0, 4, "🐸", (4, 5)),
        (5, 3, None, (None, None)),
        (-2, 3, None, (None, None)),
        (0, 99, None, (None, None)),
    ],
)
def test_bytes_are_told_as_characters(start: int, end: int, text: str | None, span: tuple[int, int]) -> None:
    assert place(heard("aüö", " 🐸"), start, end, text) == span


def test_a_place_in_a_text_that_was_not_kept_is_not_told() -> None:
    long = heard("x" * 1024 * 1024, "y")
    assert place(long, 0, 1) == (None, None)


@pytest.mark.parametrize("supports", [5, [5], [{"segment": 5}], [{"groundingChunkIndices": ["x"]}]])
def test_sources_of_an_odd_form_do_no_harm(supports: object) -> None:
    assert heard("x").read_grounding({"groundingChunks": [{"web": {}}], "groundingSupports": supports}) == []


def test_recited_sources_need_no_address() -> None:
    sources = [{"startIndex": 2, "endIndex": 4, "uri": "https://example.org"}, {"startIndex": 3, "endIndex": 9}]
    metadata = msgspec.convert({"citationSources": sources}, CitationMetadata)
    citations = heard("üöä")
    assert citations.read_recitations(metadata) == [Citation("https://example.org", start=1, end=2), Citation()]
    assert citations.read_recitations(metadata) == []


def test_sources_without_end_do_not_fill_the_memory() -> None:
    chunks = [{"web": {"uri": f"https://example.org/{number}"}} for number in range(1500)]
    assert len(heard("x").read_grounding({"groundingChunks": chunks})) == 1000
