"""What an answer holds besides text: each kind in a stream's delta and in a whole message."""

from typing import Any

import pytest

from proxy.chat import ProviderItem
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    Finished,
    ImageDelta,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from server.dialects.pieces import DeltaWriter, message_pieces, tool_call_delta
from tests.server.dialects.answers import RICH, collect

CLAUDE, RESPONSES = "anthropic-claude-v1", "openai-responses-v1"


def stream(*events: ChatEvent) -> list[Any]:
    writer = DeltaWriter()
    return [writer.build(event) for event in events]


def whole(*events: ChatEvent) -> Any:
    return message_pieces(collect(events))


# Tool calls


def test_a_tool_call_is_named_in_its_first_piece_alone() -> None:
    first = tool_call_delta(ToolCallDelta(1, "c1", "look", ""))
    function = {"name": "look", "arguments": ""}
    assert first == {"tool_calls": [{"index": 1, "id": "c1", "type": "function", "function": function}]}
    next_ = tool_call_delta(ToolCallDelta(1, arguments='{"a'))
    assert next_ == {"tool_calls": [{"index": 1, "function": {"arguments": '{"a'}}]}


def test_a_call_carries_its_seal_where_geminis_clients_look_for_it() -> None:
    events: list[ChatEvent] = [ToolCallDelta(0, "c", "f", "{}"), ToolCallDelta(0, signature="s")]
    seal = {"google": {"thought_signature": "s"}}
    assert stream(*events)[1] == {"tool_calls": [{"index": 0, "function": {"arguments": ""}, "extra_content": seal}]}
    function = {"name": "f", "arguments": "{}"}
    assert whole(*events) == {
        "tool_calls": [{"id": "c", "type": "function", "function": function, "extra_content": seal}]
    }


# Reasoning


def test_a_signed_thought_is_one_entry() -> None:
    events: list[ChatEvent] = [ReasoningDelta("a"), ReasoningDelta("b"), ReasoningSealed(0, CLAUDE, signature="s")]
    assert stream(*events) == [
        {"reasoning_content": "a", "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "a"}]},
        {"reasoning_content": "b", "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "b"}]},
        {"reasoning_details": [{"index": 0, "type": "reasoning.text", "signature": "s", "format": CLAUDE}]},
    ]
    entry = {"index": 0, "type": "reasoning.text", "text": "ab", "signature": "s", "format": CLAUDE}
    assert whole(*events) == {"reasoning_content": "ab", "reasoning_details": [entry]}


def test_a_summary_and_what_is_sealed_behind_it_are_two_entries_of_one_block() -> None:
    events: list[ChatEvent] = [ReasoningDelta("a", is_summary=True), ReasoningSealed(0, RESPONSES, "rs", encrypted="e")]
    origin = {"id": "rs", "format": RESPONSES}
    assert stream(*events) == [
        {"reasoning_content": "a", "reasoning_details": [{"index": 0, "type": "reasoning.summary", "summary": "a"}]},
        {"reasoning_details": [{"index": 0, "type": "reasoning.encrypted", "data": "e", **origin}]},
    ]
    assert whole(*events)["reasoning_details"] == [
        {"index": 0, "type": "reasoning.summary", "summary": "a", **origin},
        {"index": 0, "type": "reasoning.encrypted", "data": "e", **origin},
    ]


def test_a_seal_without_words_keeps_the_kind_of_its_block() -> None:
    events: list[ChatEvent] = [ReasoningDelta("a", is_summary=True), ReasoningSealed(0, RESPONSES, "rs")]
    assert stream(*events)[1] == {
        "reasoning_details": [{"index": 0, "type": "reasoning.summary", "id": "rs", "format": RESPONSES}]
    }
    assert len(whole(*events)["reasoning_details"]) == 1


def test_a_thought_that_is_not_shown_is_there_for_its_signature() -> None:
    (entry,) = whole(ReasoningSealed(0, CLAUDE, signature="s"))["reasoning_details"]
    assert entry == {"index": 0, "type": "reasoning.text", "text": "", "signature": "s", "format": CLAUDE}


def test_blocks_are_numbered_without_gaps() -> None:
    events: list[ChatEvent] = [ReasoningDelta("a", 5), ReasoningDelta("b", 2), ReasoningDelta("c", 5)]
    assert [delta["reasoning_details"][0]["index"] for delta in stream(*events)] == [0, 1, 0]
    assert [(entry["index"], entry["text"]) for entry in whole(*events)["reasoning_details"]] == [(0, "ac"), (1, "b")]


# Citations


def test_a_page_has_the_members_that_sdks_require() -> None:
    page = {"url": "https://a.org", "title": "", "start_index": 0, "end_index": 0}
    annotations = [{"index": 0, "type": "url_citation", "url_citation": page}]
    assert stream(Citation("https://a.org")) == [{"annotations": annotations}]
    assert whole(Citation("https://a.org")) == {"annotations": annotations}


def test_a_page_tells_what_was_cited_and_where() -> None:
    (delta,) = stream(Citation("https://a.org", "A", 3, 9, "Said"))
    page = {"url": "https://a.org", "title": "A", "start_index": 3, "end_index": 9, "content": "Said"}
    assert delta["annotations"][0]["url_citation"] == page


def test_documents_have_a_list_of_their_own_for_sdks_take_annotations_for_pages() -> None:
    citation = Citation(title="Rules", cited_text="Thou", document_index=2, start=0)
    entry = {"index": 0, "type": "document_citation", "document_index": 2, "title": "Rules", "cited_text": "Thou"}
    assert stream(citation) == [{"document_citations": [{**entry, "start_index": 0}]}]
    assert whole(Citation("https://a.org"), citation)["document_citations"] == [{**entry, "start_index": 0}]


# Media


def test_an_image_is_an_address_of_data() -> None:
    entry = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    image = ImageDelta("image/png", "aGk=")
    assert stream(image, image) == [{"images": [{"index": number, **entry}]} for number in range(2)]
    assert whole(image, image) == {"images": [{"index": number, **entry} for number in range(2)]}


def test_the_id_and_the_expiry_of_sound_come_once() -> None:
    piece = AudioDelta("aGk=", "Hi", "audio_1", 5)
    assert stream(piece, piece, AudioDelta()) == [
        {"audio": {"id": "audio_1", "expires_at": 5, "data": "aGk=", "transcript": "Hi"}},
        {"audio": {"data": "aGk=", "transcript": "Hi"}},
        {"audio": {}},
    ]


def test_whole_sound_has_all_four_members() -> None:
    assert whole(AudioDelta(transcript="Hi"))["audio"] == {"id": "", "data": "", "transcript": "Hi", "expires_at": 0}


# Items


def test_an_item_goes_out_untouched_with_its_place_among_the_thoughts() -> None:
    item = {"type": "web_search_call", "action": {"query": "x"}}
    events: list[ChatEvent] = [ProviderItem("f", item), ReasoningDelta("a"), ProviderItem("f", item)]
    entries = [{"index": number, "format": "f", "item": item, "after_reasoning": number} for number in range(2)]
    assert [delta for delta in stream(*events) if "provider_items" in delta] == [
        {"provider_items": [entry]} for entry in entries
    ]
    assert whole(*events)["provider_items"] == entries


# The rest


@pytest.mark.parametrize("event", [TextDelta("x"), Usage(1), Finished("stop")])
def test_what_is_no_piece_is_none(event: ChatEvent) -> None:
    assert stream(event) == [None]


def test_a_refusal_is_a_delta_of_its_own() -> None:
    assert stream(RefusalDelta("no")) == [{"refusal": "no"}]


def test_an_answer_of_text_alone_has_no_pieces() -> None:
    assert whole(TextDelta("x"), RefusalDelta("no"), Usage(1), Finished("stop")) == {}


def test_a_rich_answer_has_them_all() -> None:
    assert whole(*RICH).keys() == {
        "reasoning_content",
        "reasoning_details",
        "annotations",
        "document_citations",
        "images",
        "audio",
        "provider_items",
        "tool_calls",
    }
