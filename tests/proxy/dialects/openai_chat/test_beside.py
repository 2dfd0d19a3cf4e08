"""Sources, pictures, sound and probabilities: told where we know their shape, left out elsewhere."""

import pytest

from proxy.chat import ProviderItem
from proxy.dialects.openai_chat.beside import Sources, read_annotations, read_audio, read_images, read_logprobs
from proxy.events import AudioDelta, ChatEvent, Citation, ImageDelta, Logprobs

ODD_CITATION = [{"type": "url_citation", "url_citation": 1}]
ODD: list[object] = [None, 1, "x", {}, [1], [{}], [{"type": 1}], {"content": 1}, ODD_CITATION]


@pytest.mark.parametrize("odd", ODD)
def test_what_has_another_shape_is_left_out(odd: object) -> None:
    events: list[ChatEvent] = []
    read_annotations(odd, "", events)
    read_images(odd, "", events)
    read_audio(odd, events)
    read_logprobs(odd, events)
    sources = Sources()
    sources.note(odd)
    sources.tell(events)
    assert events in ([], [Citation("x")])


def annotations(*raw: object, format_: str = "f") -> list[ChatEvent]:
    events: list[ChatEvent] = []
    read_annotations(list(raw), format_, events)
    return events


def test_a_cited_page_has_its_place_in_the_text() -> None:
    cited = {"url": "https://a.test", "title": "A", "content": "said", "start_index": 3, "end_index": 9}
    whole = Citation("https://a.test", "A", 3, 9, "said")
    assert annotations({"type": "url_citation", "url_citation": cited}) == [whole]
    assert annotations({"type": "url_citation", **cited}) == [whole]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 3), (-1, 4), (None, 4)])
def test_a_place_that_is_none_is_not_told(start: int | None, end: int) -> None:
    cited = {"url": "https://a.test", "start_index": start, "end_index": end}
    assert annotations({"type": "url_citation", "url_citation": cited}) == [Citation("https://a.test")]


def test_other_annotations_go_back_to_a_server_that_takes_them() -> None:
    read = {"type": "file", "file": {"hash": "h"}}
    assert annotations(read) == [ProviderItem("f", read)]
    assert annotations(read, format_="") == []


def test_sources_are_told_once() -> None:
    sources, events = Sources(), list[ChatEvent]()
    sources.note_told([Citation("https://a.test")])
    for _ in range(3):
        sources.note(["https://a.test", {"url": "https://b.test", "title": "B"}, "https://b.test", ""])
        sources.tell(events)
    assert events == [Citation("https://b.test", "B")]


def test_sources_are_bounded() -> None:
    sources, events = Sources(), list[ChatEvent]()
    sources.note([f"https://{number}.test" for number in range(5000)])
    sources.tell(events)
    assert len(events) == 1000


def test_an_image_is_told_whole_and_an_address_goes_on() -> None:
    events: list[ChatEvent] = []
    remote = {"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}
    read_images([{"image_url": {"url": "data:image/webp;base64,QQ=="}}, remote], "f", events)
    assert events == [ImageDelta("image/webp", "QQ=="), ProviderItem("f", remote)]


def test_a_piece_of_sound_says_what_it_has() -> None:
    events: list[ChatEvent] = []
    read_audio({"id": "audio_1", "data": "QQ==", "transcript": "a", "expires_at": 7}, events)
    read_audio({"transcript": ""}, events)
    assert events == [AudioDelta("QQ==", "a", "audio_1", 7)]


def test_probabilities_of_text_and_of_a_refusal_are_told() -> None:
    events: list[ChatEvent] = []
    read_logprobs({"content": [{"token": "a"}], "refusal": [{"token": "b"}, 1], "tokens": None}, events)
    read_logprobs({"content": [], "refusal": None}, events)
    assert events == [Logprobs(({"token": "a"}, {"token": "b"}))]
