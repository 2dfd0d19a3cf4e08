"""How transcriptions end, over real sockets: what the provider gets, the charge, the connection, what is left."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import MockClock

from proxy.chat import Attached
from proxy.errors import RequestNotSupported
from proxy.events import Completed, Failed, Finished, TextDelta, Usage
from proxy.media import MediaRefused
from proxy.pump import Patience
from proxy.tokens import count_tokens
from proxy.transcript import TranscriptRequest, TranscriptSegment
from tests.fakes import (
    Close,
    Pause,
    RecordedRequest,
    Reset,
    Step,
    WaitForClose,
    openai_error,
    response,
    upto_chunks,
)
from tests.openai_transcripts import diarized_stream, seconds, subtitles, tokens, transcript, transcript_stream
from tests.proxy.calls import MODEL, USER, open_bench, read_texts
from tests.proxy.forms import read_sent_form
from tests.proxy.transcriptions import (
    DIARIZE,
    PLAIN,
    REQUEST,
    SECONDS,
    SOUND,
    TOKENS_OF_SOUND,
    WHISPER,
    price_usd,
    to,
    transcribe,
)
from tests.proxy.upstreams import ScriptByTurn

WORDS = ["Thanks", " for", " calling", "."]
SRT = "1\n00:00:00,000 --> 00:00:02,000\nThanks for calling.\n\n\n"
SEGMENTS = [("A", " Thanks for calling.", 0.0, 1.2), ("B", " Hello.", 1.5, 2.0)]
RETRYING = Patience(first_token_seconds=600, total_seconds=1740, retry_seconds=30)
ONE_GIBIBYTE = 1024**3


def assert_got_the_file(request: RecordedRequest) -> None:
    file = read_sent_form(request)[-1]
    assert (file.name, file.file_name, file.media_type) == ("file", "audio.mp3", "audio/mpeg")
    assert file.value == SOUND.data


async def test_a_transcript_is_charged_by_the_tokens_that_the_provider_reports() -> None:
    async with open_bench(transcript("Thanks.", tokens(64, 25)), model=PLAIN) as bench:
        events = await transcribe(bench, REQUEST)
        usage = Usage(output_tokens=25, input_audio_tokens=64)
        cost = price_usd(PLAIN, 64, 25)
        assert events == [TextDelta("Thanks."), usage, Finished("stop"), Completed(usage, cost, provisional=False)]
        assert bench.settlement.outcome == "completed"
        bench.assert_charged(cost)
        [request] = bench.upstream.requests
        assert request.path == "/v1/audio/transcriptions"
        assert_got_the_file(request)


async def test_a_model_that_is_billed_by_the_second_is_charged_by_it() -> None:
    async with open_bench(transcript("Thanks.", seconds(6.4)), model=WHISPER) as bench:
        completed = (await transcribe(bench, to(WHISPER, prompt="Names")))[-1]
        assert isinstance(completed, Completed)
        assert not completed.provisional
        assert completed.usage.prompt_tokens == TOKENS_OF_SOUND
        assert completed.usage.completion_tokens > 0, "for the reports: it costs nothing"
        bench.assert_charged("0.000700")


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        (subtitles(SRT), {"format": "srt"}),
        (subtitles("WEBVTT\n\n"), {"format": "vtt"}),
        (transcript("Thanks."), {"task": "translate"}),
        (transcript(""), {"format": "text"}),
    ],
)
async def test_where_the_provider_tells_nothing_the_seconds_of_the_recording_are_charged(
    script: Sequence[Step], asked: dict[str, object]
) -> None:
    """And the prompt, which costs nothing there, is not."""
    async with open_bench(script, model=WHISPER) as bench:
        completed = (await transcribe(bench, to(WHISPER, prompt="Names and more names", **asked)))[-1]
        assert isinstance(completed, Completed)
        assert completed.provisional
        assert completed.usage.prompt_tokens == TOKENS_OF_SOUND
        assert bench.settlement.outcome == "completed"
        bench.assert_charged("0.000700")


async def test_a_prompt_that_costs_tokens_is_counted_where_the_provider_tells_nothing() -> None:
    async with open_bench(transcript("Thanks."), model=PLAIN) as bench:
        await transcribe(bench, replace(REQUEST, prompt="Names and more names"))
        heard = TOKENS_OF_SOUND + count_tokens("Names and more names")
        bench.assert_charged(price_usd(PLAIN, heard, count_tokens("Thanks.")))


async def test_a_stream_is_charged_by_its_end() -> None:
    async with open_bench(transcript_stream(WORDS, tokens(64, 9)), model=PLAIN) as bench:
        events = await transcribe(bench, replace(REQUEST, stream=True))
        assert [event.text for event in events if isinstance(event, TextDelta)] == WORDS
        bench.assert_charged(price_usd(PLAIN, 64, 9))
        fields = {part.name: part.value for part in read_sent_form(bench.upstream.requests[0])}
        assert fields["stream"] == b"true"


async def test_a_client_that_leaves_in_mid_stream_pays_for_the_recording_and_what_it_has_got() -> None:
    script = [*upto_chunks(transcript_stream(WORDS), 3), WaitForClose()]
    async with open_bench(script, model=PLAIN) as bench:
        async with bench.gateway.open_transcription(USER, replace(REQUEST, stream=True)) as chat:
            await read_texts(chat, 3)
        await bench.assert_closed()
        assert bench.settlement.outcome == "cancelled"
        written = sum(count_tokens(text) for text in WORDS[:3])
        bench.assert_charged(price_usd(PLAIN, TOKENS_OF_SOUND, written))


async def test_a_client_that_leaves_between_speakers_pays_for_what_the_first_one_said() -> None:
    script = [*upto_chunks(diarized_stream(SEGMENTS), 1), WaitForClose()]
    async with open_bench(script, model=DIARIZE) as bench:
        request = to(DIARIZE, format="diarized_json", stream=True)
        async with bench.gateway.open_transcription(USER, request) as chat:
            assert [type(event) for event in await chat.next_events()] == [TextDelta, TranscriptSegment]
            with trio.move_on_after(0.01):
                await chat.next_events()
        await bench.assert_closed()
        bench.assert_charged(price_usd(DIARIZE, TOKENS_OF_SOUND, round(1.2 * 45)))


@dataclass(frozen=True, slots=True)
class HalfAFile:
    """Its second half does not come."""

    size_bytes: int = 1_000_000
    is_under_way: trio.Event = field(default_factory=trio.Event)

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        if offset:
            self.is_under_way.set()
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return bytes(min(most_bytes, 500_000))


async def test_a_client_that_leaves_while_its_recording_is_sent_on_pays_nothing() -> None:
    half = HalfAFile()
    async with open_bench([WaitForClose()], model=PLAIN) as bench:
        async with bench.gateway.open_transcription(USER, to(PLAIN, audio=Attached("audio/mpeg", half, SECONDS))):
            await half.is_under_way.wait()
            assert bench.upstream.open_connections == 1
        await bench.assert_closed()
        assert bench.upstream.requests == []
        assert bench.settlement.outcome == "cancelled"
        bench.assert_charged("0")


async def test_a_client_that_leaves_before_the_answer_pays_nothing() -> None:
    async with open_bench([WaitForClose()], model=PLAIN) as bench:
        async with bench.gateway.open_transcription(USER, REQUEST):
            await bench.upstream.requested.wait()
        await bench.assert_closed()
        bench.assert_charged("0")


async def test_an_answer_may_take_as_long_as_the_whole_call(autojump_clock: MockClock) -> None:
    hasty = Patience(first_token_seconds=5, total_seconds=100, retry_seconds=0)
    script = [Pause(8), *transcript("Thanks.", tokens(64, 25))]
    async with open_bench(script, model=PLAIN, patience=hasty) as bench:
        assert isinstance((await transcribe(bench, REQUEST))[-1], Completed)


async def test_a_provider_that_breaks_in_mid_stream_is_paid_for_what_came() -> None:
    script = [*upto_chunks(transcript_stream(WORDS), 2), Reset()]
    async with open_bench(script, model=PLAIN) as bench:
        events = await transcribe(bench, replace(REQUEST, stream=True))
        assert isinstance(events[-1], Failed)
        assert bench.settlement.outcome == "failed"
        bench.assert_charged(price_usd(PLAIN, TOKENS_OF_SOUND, sum(count_tokens(text) for text in WORDS[:2])))


@pytest.mark.parametrize("script", [[Close()], [Reset()], response(200, b"<html>")])
async def test_a_provider_that_breaks_before_anything_came_is_not_paid(script: Iterable[Step]) -> None:
    async with open_bench(script, model=PLAIN) as bench:
        [failed] = await transcribe(bench, REQUEST)
        assert isinstance(failed, Failed)
        bench.assert_charged("0")


async def test_a_refusal_is_told_and_not_repeated() -> None:
    script = openai_error(400, "invalid_request_error", "audio_too_short", "Audio file is too short.")
    async with open_bench(script, model=PLAIN, patience=RETRYING) as bench:
        [failed] = await transcribe(bench, REQUEST)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.message) == ("bad_request", "Audio file is too short.")
        assert len(bench.upstream.requests) == 1
        bench.assert_charged("0")


async def test_what_is_asked_again_is_sent_again_from_the_beginning(autojump_clock: MockClock) -> None:
    script = ScriptByTurn([openai_error(429, "requests", "rate_limit_exceeded", "Slow down"), transcript("Thanks.")])
    async with open_bench(script, model=PLAIN, patience=RETRYING) as bench:
        assert isinstance((await transcribe(bench, REQUEST))[-1], Completed)
        first, second = bench.upstream.requests
        assert_got_the_file(first)
        assert first.body == second.body


async def test_another_key_gets_the_whole_recording_too() -> None:
    script = ScriptByTurn([openai_error(401, "invalid_request_error", "invalid_api_key", "no"), transcript("Thanks.")])
    async with open_bench(script, model=PLAIN, keys=("sk-1", "sk-2")) as bench:
        assert isinstance((await transcribe(bench, REQUEST))[-1], Completed)
        first, second = bench.upstream.requests
        assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer sk-1", "Bearer sk-2")
        assert_got_the_file(second)


@dataclass(frozen=True, slots=True)
class BrokenFile:
    size_bytes: int = 1_000_000

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        raise OSError(5, "the disk is gone")


async def test_a_recording_that_cannot_be_read_is_our_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with open_bench(transcript("Thanks."), model=PLAIN, patience=RETRYING) as bench:
        [failed] = await transcribe(bench, to(PLAIN, audio=Attached("audio/mpeg", BrokenFile(), SECONDS)))
        assert isinstance(failed, Failed)
        assert failed.code == "internal_error"
        errors = [one.message for one in caplog.records if one.levelno == logging.ERROR]
        assert errors == ["a call failed in our own code"]
        assert len(bench.upstream.connections) == 1, "it is not asked again"
        assert bench.breakers.failures == []
        bench.assert_charged("0")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(REQUEST, format="srt"), "response_format"),
        (replace(REQUEST, audio=Attached("audio/aac", SOUND, SECONDS)), "file"),
        (replace(REQUEST, prompt="x" * 1001), "prompt"),
    ],
)
async def test_what_the_model_cannot_do_is_refused_before_money_is_held(
    request_: TranscriptRequest, field: str
) -> None:
    async with open_bench(model=PLAIN) as bench:
        with pytest.raises(RequestNotSupported, match=rf"^{field}"):
            await transcribe(bench, request_)
        bench.assert_untouched()


@dataclass(frozen=True, slots=True)
class LargeFile:
    size_bytes: int = ONE_GIBIBYTE

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        raise AssertionError("nobody reads what is not sent")


async def test_a_recording_that_is_too_large_is_refused_before_money_is_held() -> None:
    async with open_bench(model=PLAIN) as bench:
        with pytest.raises(MediaRefused, match=r"^file: "):
            await transcribe(bench, to(PLAIN, audio=Attached("audio/mpeg", LargeFile(), SECONDS)))
        bench.assert_untouched()


async def test_a_model_that_chats_does_not_transcribe() -> None:
    async with open_bench(model=MODEL) as bench:
        with pytest.raises(RequestNotSupported, match=r"^model"):
            await transcribe(bench, to(MODEL))
        bench.assert_untouched()
