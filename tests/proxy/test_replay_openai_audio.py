"""Every recorded transcription of OpenAI's: what its answer says, and that we can ask for the same."""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.chat import Attached
from proxy.collected import Collected
from proxy.dialects import openai_audio
from proxy.dialects.openai_audio.answer import Reading, open_reader
from proxy.dialects.openai_audio.quirks import read_quirks
from proxy.dialects.openai_chat.errors import read_refusal
from proxy.events import ChatEvent, Failed, Finished, Usage
from proxy.meter import Meter
from proxy.provider import Target
from proxy.tokens import count_tokens
from proxy.transcript import KnownSpeaker, TranscriptRequest
from storage.seed.reading import read_seed
from tests.fake_ledger import FakeJournal
from tests.proxy.calls import USER
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.forms import Part, read_form
from tests.proxy.replay import OpenReader, assert_harmless, feed, mutate, splits
from tests.sounds import FileInMemory

PROVIDER = "openai-audio"
COUNT, FORMS, DIARIZED = 31, 26, 10
MEDIA_TYPES = {"mp3": "audio/mpeg", "m4a": "audio/mp4", "wav": "audio/wav", "webm": "audio/webm"}
SENT_BESIDE = {"response_format": "always said: a default is somebody else's to change"}
"""Fields that we send though a recorded request has none, and why. A file's name is ours: a client's is nobody's
business, and OpenAI looks at its end alone.
"""
MODELS: Mapping[str, Mapping[str, object]] = {
    model.mappings["openai"]: model.capabilities for model in read_seed().models if "openai" in model.mappings
}
"""What our own catalogue says of OpenAI's models, by its names for them."""


def read_all(folder: Path) -> list[RecordedExchange]:
    return [one for place in ("transcriptions", "translations") for one in _read(folder, f"audio.{place}")]


def _read(folder: Path, endpoint: str) -> list[RecordedExchange]:
    return read_exchanges(folder, PROVIDER, endpoint)


MADE_ONES = read_all(MADE)
made = pytest.mark.parametrize("exchange", MADE_ONES, ids=[one.id for one in MADE_ONES])


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says, however it came."""

    text: str
    usage: Usage | None
    segments: tuple[Mapping[str, object], ...]
    words: tuple[Mapping[str, object], ...]
    logprobs: tuple[Mapping[str, object], ...]
    language: str | None
    duration: float | None
    finished: int
    failed: bool


def reader_of(exchange: RecordedExchange) -> OpenReader:
    [format_] = [part["value"] for part in exchange.parts if part["name"] == "response_format"] or ["json"]
    return partial(open_reader, "openai", reading=Reading(format_))


def summarize(events: list[ChatEvent]) -> Told:
    collected = Collected()
    collected.add(events)
    return Told(
        collected.text,
        next((event for event in events if isinstance(event, Usage)), None),
        tuple(segment.item for segment in collected.segments),
        tuple(word.item for word in collected.words),
        tuple(collected.logprobs),
        collected.facts.language,
        collected.facts.duration_seconds,
        sum(isinstance(event, Finished) for event in events),
        any(isinstance(event, Failed) for event in events),
    )


def expected(exchange: RecordedExchange) -> Told:
    """From the recording's own words, and from its body for what they leave out."""
    bodies = raw_bodies(exchange)
    whole: dict[str, Any] = bodies[-1] if bodies else {}
    items = [body for body in bodies if body.get("type") == "transcript.text.segment"] or whole.get("segments", [])
    assert exchange.expect.get("segments", len(items)) == len(items)
    failed = exchange.expect["error"] is not None
    return Told(
        exchange.expect["text"],
        expected_usage(exchange),
        tuple(items),
        tuple(whole.get("words", [])),
        tuple(one for body in bodies if body.get("type") != "transcript.text.done" for one in body.get("logprobs", [])),
        whole.get("language"),
        whole.get("duration"),
        0 if failed else 1,
        failed,
    )


def raw_bodies(exchange: RecordedExchange) -> list[dict[str, Any]]:
    """The JSON of an answer: the whole, or every event."""
    if exchange.is_stream:
        return [json.loads(line[6:]) for line in exchange.body.splitlines() if line.startswith(b"data: {")]
    return [json.loads(exchange.body)] if "json" in exchange.media_type else []


def expected_usage(exchange: RecordedExchange) -> Usage | None:
    usage, raw = exchange.expect["usage"], exchange.expect["usage_raw"] or {}
    if usage is not None:
        details = raw["input_token_details"]
        assert details["text_tokens"] + details["audio_tokens"] == usage["input"]
        return Usage(details["text_tokens"], output_tokens=usage["output"], input_audio_tokens=details["audio_tokens"])
    if raw.get("type") == "duration":
        return Usage(raw["seconds"] * 10, output_tokens=count_tokens(exchange.expect["text"]))
    return None


def assert_is_told(exchange: RecordedExchange) -> None:
    if exchange.status != 200:
        assert_error_is_told(read_refusal("openai", exchange.status, exchange.headers, exchange.body), exchange)
        return
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for pieces in splits(exchange, dice):
        events = feed(reader_of(exchange)(exchange.media_type), pieces)
        assert summarize(events) == expected(exchange), exchange.id
        if exchange.expect["error"]:
            assert_error_is_told(events[-1], exchange)


def assert_error_is_told(failed: object, exchange: RecordedExchange) -> None:
    assert isinstance(failed, Failed)
    error = exchange.expect["error"]
    assert failed.status in {0, error["status"]}
    assert failed.provider_error_type == str(error["type"] or error["code"] or "")
    assert failed.message == re.sub(r"\b(org|proj|sk)-[\w*-]+", "…", error["message"])


@made
def test_an_answer_says_the_same_however_it_is_split(exchange: RecordedExchange) -> None:
    assert_is_told(exchange)


@made
def test_a_mutilated_answer_is_harmless(exchange: RecordedExchange) -> None:
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for _ in range(100):
        assert_harmless(reader_of(exchange), exchange, mutate(exchange.body, dice), dice)
        read_refusal("openai", 500, {}, mutate(exchange.body, dice))


def test_every_recorded_answer_is_told(recordings: Path, count_replayed: Callable[[str, int], None]) -> None:
    exchanges = read_all(recordings)
    for exchange in exchanges:
        assert_is_told(exchange)
    assert len(exchanges) == COUNT
    count_replayed(f"answers of {PROVIDER}", len(exchanges))


def test_mutilated_recorded_answers_are_harmless(recordings: Path) -> None:
    dice = random.Random(2)  # noqa: S311 - not for secrets
    for exchange in read_all(recordings):
        for _ in range(20):
            assert_harmless(reader_of(exchange), exchange, mutate(exchange.body, dice), dice)


def read_request(exchange: RecordedExchange) -> TranscriptRequest:
    """What a caller would have asked us for."""
    values: dict[str, list[str]] = {}
    for part in exchange.parts:
        values.setdefault(part["name"], []).append(part.get("value", ""))
    [file] = [part for part in exchange.parts if part["name"] == "file"]
    media_type = MEDIA_TYPES[file["filename"].rpartition(".")[2]]
    one: dict[str, Any] = {name: found[0] for name, found in values.items()}
    chunking = one.get("chunking_strategy")
    names, samples = values.get("known_speaker_names[]", []), values.get("known_speaker_references[]", [])
    timestamps: Any = values.get("timestamp_granularities[]", [])
    return TranscriptRequest(
        model=one["model"],
        audio=Attached(media_type, FileInMemory(bytes(file["bytes"])), 6.0),
        format=one.get("response_format", "json"),
        task="translate" if exchange.path.endswith("translations") else "transcribe",
        language=one.get("language"),
        prompt=one.get("prompt"),
        temperature=float(one["temperature"]) if "temperature" in one else None,
        stream=one.get("stream") == "true",
        timestamps=tuple(timestamps),
        logprobs="include[]" in one,
        chunking=json.loads(chunking) if chunking and chunking.startswith("{") else chunking,
        speakers=tuple(KnownSpeaker(*pair) for pair in zip(names, samples, strict=True)),
        languages=tuple(values.get("languages[]", [])),
        keywords=tuple(values.get("keywords[]", [])),
    )


def assert_is_asked(exchange: RecordedExchange) -> None:
    """The same place, the same fields with the same values, and a file of the same length."""
    request = read_request(exchange)
    quirks = read_quirks("openai", "OpenAI", MODELS[request.model])
    built = openai_audio.build_call(request, Target("https://api.test/v1", "sk-1", request.model), quirks).request
    assert built.url.removeprefix("https://api.test") == exchange.path
    recorded = sorted((part["name"], part["value"]) for part in exchange.parts if part["name"] != "file")
    form = read_form(built)
    file = form.pop()
    sent = sorted((part.name, part.value.decode()) for part in form)
    beside = {name for name, _ in sent} - {name for name, _ in recorded}
    assert beside <= set(SENT_BESIDE), exchange.id
    assert [field for field in sent if field[0] not in beside] == recorded, exchange.id
    assert_is_the_file(file, exchange)


def assert_is_the_file(file: Part, exchange: RecordedExchange) -> None:
    [recorded] = [part for part in exchange.parts if part["name"] == "file"]
    assert (file.name, file.size_bytes) == ("file", recorded["bytes"])
    assert file.file_name == f"audio.{recorded['filename'].rpartition('.')[2]}"
    assert recorded["content_type"] in {None, "application/octet-stream", "audio/mpeg", file.media_type}


@made
def test_we_send_what_a_client_would_have_sent(exchange: RecordedExchange) -> None:
    assert_is_asked(exchange)


def test_every_recorded_request_can_be_sent(recordings: Path, count_replayed: Callable[[str, int], None]) -> None:
    forms = [exchange for exchange in read_all(recordings) if exchange.parts]
    for exchange in forms:
        assert_is_asked(exchange)
    assert len(forms) == FORMS, "of five recordings the form was not kept"
    count_replayed(f"requests to {PROVIDER}", len(forms))


def test_what_a_client_has_got_is_counted_as_openai_counts_it(recordings: Path) -> None:
    """Of recordings that tell who speaks, whose text is an eighth of what they cost, all within a tenth."""
    told = [one for one in read_all(recordings) if b'"speaker"' in one.body]
    for exchange in told:
        meter = Meter(0, FakeJournal().open_slot(USER))
        meter.note_accepted()
        meter.note_passed_on(feed(reader_of(exchange)(exchange.media_type), [exchange.body]))
        assert meter.usage.output_tokens == pytest.approx(exchange.expect["usage"]["output"], rel=0.1), exchange.id
    assert len(told) == DIARIZED
