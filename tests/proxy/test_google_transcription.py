"""Recordings that Gemini writes down, through the gateway and over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proxy.chat import Attached
from proxy.collected import Collected
from proxy.dialects.gemini import attached
from proxy.errors import RequestNotSupported
from proxy.events import Completed, Usage
from proxy.pricing import Price, Rates
from proxy.transcript import TranscriptRequest
from tests.fake_google_files import Ways
from tests.proxy.calls import USER
from tests.proxy.file_calls import MODEL, FileBench, MemoryFile, make_file, open_file_bench

TRANSCRIBER = replace(
    MODEL,
    id="google/gemini-3-flash-preview-transcribe",
    model_type="transcription",
    price=Price(Rates(Decimal(1), Decimal("0.4"), Decimal(1), Decimal(1))),
    provider_models={"google": "gemini-3-flash-preview"},
    capabilities={"transcription": True, "max_prompt_length": 100},
)
USAGE = {
    "promptTokenCount": 330,
    "candidatesTokenCount": 12,
    "thoughtsTokenCount": 3,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 74}, {"modality": "AUDIO", "tokenCount": 256}],
}


def asking(file: MemoryFile, **changes: Any) -> TranscriptRequest:
    return replace(TranscriptRequest(TRANSCRIBER.id, Attached("audio/mp4", file, 7.5)), **changes)


@asynccontextmanager
async def open_scribe() -> AsyncIterator[FileBench]:
    async with open_file_bench(Ways(answer=("Good", " mórning", "."), usage=USAGE), model=TRANSCRIBER) as bench:
        yield bench


async def write_down(bench: FileBench, request: TranscriptRequest) -> Collected:
    async with bench.gateway.open_transcription(USER, request) as chat:
        return await chat.collect()


async def test_what_is_said_comes_as_text_and_costs_what_google_says() -> None:
    async with open_scribe() as bench:
        file = make_file(500)
        collected = await write_down(bench, asking(file, language="en", prompt="Cloche"))
        assert collected.said == "Good mórning."
        assert isinstance(collected.ended, Completed)
        assert collected.ended.usage == Usage(
            input_tokens=74, input_audio_tokens=256, output_tokens=12, reasoning_tokens=3
        )
        [generated] = bench.google.generated
        assert (generated.model, generated.inline_sha256) == ("gemini-3-flash-preview", file.sha256)
        assert generated.body["contents"][0]["parts"][0] == {"inlineData": {"mimeType": "audio/mp4"}}
        bench.assert_charged("0.000336")


async def test_the_hold_covers_all_that_it_may_write_and_think() -> None:
    """8 seconds of 32 tokens and 150 of ours at 1 dollar a million, 8 of 15 and 1024 besides at 0.40: 0.0008636."""
    async with open_scribe() as bench:
        await write_down(bench, asking(make_file(500)))
        [hold] = bench.ledger.taken
        assert hold.prompt_tokens == 8 * 32 + 150
        assert hold.amount_usd == Decimal("0.000864")
        assert bench.google.generated[0].body["generationConfig"]["maxOutputTokens"] == 8 * 15 + 1024


async def test_a_long_recording_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "INLINE_BYTES", 500)
    async with open_scribe() as bench:
        file = make_file(500)
        assert (await write_down(bench, asking(file))).said == "Good mórning."
        assert bench.google.steps == ["start", "upload", "get", "generate", "delete"]
        [stored] = bench.google.removed.values()
        assert (stored.media_type, stored.sha256) == ("audio/mp4", file.sha256)
        bench.assert_charged("0.000336")


async def test_what_google_cannot_do_is_refused_before_money_is_held() -> None:
    async with open_scribe() as bench:
        with pytest.raises(RequestNotSupported, match="response_format srt"):
            await write_down(bench, asking(make_file(500), format="srt"))
        assert (bench.ledger.taken, bench.google.asked) == ([], [])
