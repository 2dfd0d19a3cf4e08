"""Sound to text, by OpenAI's own SDK and by the shipped clients' requests, through the server to a fake of OpenAI."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import httpx2
import openai
import pytest
import trio

from tests.end_to_end.caller import read_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_openai_sdk import make_client
from tests.end_to_end.uploading import Upload, open_uploader
from tests.fake_google_files import open_google_files
from tests.fake_openai_audio import PIECES, SRT, TEXT, VTT, answer_sound, read_fields
from tests.fake_upstream import FakeUpstream, RecordedRequest, Step, WaitForClose, open_fake_upstream, upto_chunks
from tests.fakes import openai_error
from tests.media_files import SOUNDS, make_sound
from tests.proxy.forms import read_sent_form

SECONDS = 2.5
WHISPER, NEWER, DIARIZE = "openai/whisper-1", "openai/gpt-4o-transcribe", "openai/gpt-4o-transcribe-diarize"
WHISPER_USD = Decimal("0.000300")
"""Three seconds begun at 0.006 dollars a minute."""
NEWER_USD = Decimal("0.000200")
"""25 tokens at 6 and 5 at 10 dollars a million."""
DIARIZE_USD = Decimal("0.000112")
"""The same at 2.50 and 10, and half a millionth goes to the even one."""
GOOGLES, GOOGLES_USD = "google/gemini-3-flash-preview-transcribe", Decimal("0.000422")
SHIPPED = "/api/audio/transcriptions"

Script = Callable[[RecordedRequest], Any]


@asynccontextmanager
async def open_house(
    stores: Stores, script: Any = answer_sound
) -> AsyncIterator[tuple[FakeUpstream, Cloche, Customer]]:
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        yield upstream, cloche, await cloche.make_customer()


async def use_sdk(cloche: Cloche, customer: Customer, use: Callable[[Any], Any]) -> Any:
    def run() -> Any:
        with make_client(cloche, customer.token, customer.device_headers) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


def make_file(format: str = "mp3") -> tuple[str, bytes]:
    return f"meeting.{format}", make_sound(format, SECONDS)


async def post(
    cloche: Cloche, customer: Customer, path: str = SHIPPED, file: Any = None, **fields: str
) -> httpx2.Response:
    """As the shipped clients do."""
    async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=20) as client:
        sound = file or ("audio.m4a", make_sound("m4a", SECONDS), "audio/mp4")
        return await client.post(path, data={"model": NEWER, **fields}, files={"file": sound})


FORMATS: Sequence[tuple[str, str, Decimal, Callable[[Any], bool]]] = [
    (WHISPER, "json", WHISPER_USD, lambda told: told.text == TEXT and told.usage.seconds == 3),
    (WHISPER, "text", WHISPER_USD, lambda told: told == TEXT),
    (WHISPER, "srt", WHISPER_USD, lambda told: told == SRT),
    (WHISPER, "vtt", WHISPER_USD, lambda told: told == VTT),
    (WHISPER, "verbose_json", WHISPER_USD, lambda told: told.segments[0].tokens == [1] and told.duration == 2.5),
    (NEWER, "json", NEWER_USD, lambda told: told.text == TEXT and told.usage.input_tokens == 25),
    (NEWER, "text", NEWER_USD, lambda told: told == TEXT),
    (DIARIZE, "json", DIARIZE_USD, lambda told: told.text == TEXT),
    (DIARIZE, "diarized_json", DIARIZE_USD, lambda told: told.segments[0].speaker == "A"),
]


def transcribe(asked: Mapping[str, Any], client: Any) -> Any:
    return client.audio.transcriptions.create(**asked)


async def test_openais_sdk_gets_every_format_and_pays_for_it(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, _):
        for model, format_, cost_usd, is_right in FORMATS:
            customer = await cloche.make_customer()
            asked = {"model": model, "file": make_file(), "response_format": format_}
            told = await use_sdk(cloche, customer, partial(transcribe, asked))
            assert is_right(told), (model, format_, told)
            assert cloche.balance(customer) == (10 - cost_usd, 0), (model, format_)
            (file,) = [part for part in read_sent_form(upstream.requests[-1]) if part.file_name]
            assert (file.name, file.file_name, file.media_type) == ("file", "audio.mp3", "audio/mpeg")
            assert file.value == make_sound("mp3", SECONDS)
            assert upstream.requests[-1].path == "/audio/transcriptions"
        cloche.check_accounts()


async def test_everything_that_the_sdk_can_ask_for_reaches_the_provider(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):

        def transcribe(client: Any) -> None:
            create, file = client.audio.transcriptions.create, make_file("wav")
            create(
                model=WHISPER,
                file=file,
                response_format="verbose_json",
                language="de",
                prompt="Cloche, Trio",
                temperature=0.2,
                timestamp_granularities=["word", "segment"],
            )
            create(
                model=DIARIZE,
                file=file,
                response_format="diarized_json",
                chunking_strategy={"type": "server_vad", "threshold": 0.5},
                known_speaker_names=["Ann"],
                known_speaker_references=["data:audio/wav;base64,AAAA"],
            )
            create(model=NEWER, file=file, include=["logprobs"])

        await use_sdk(cloche, customer, transcribe)
        forms = [[(part.name, part.value.decode()) for part in read_sent_form(one)[:-1]] for one in upstream.requests]
        assert forms == [
            [
                ("model", "whisper-1"),
                ("response_format", "verbose_json"),
                ("language", "de"),
                ("prompt", "Cloche, Trio"),
                ("temperature", "0.2"),
                ("timestamp_granularities[]", "word"),
                ("timestamp_granularities[]", "segment"),
            ],
            [
                ("model", "gpt-4o-transcribe-diarize"),
                ("response_format", "diarized_json"),
                ("chunking_strategy", '{"type":"server_vad","threshold":0.5}'),
                ("known_speaker_names[]", "Ann"),
                ("known_speaker_references[]", "data:audio/wav;base64,AAAA"),
            ],
            [("model", "gpt-4o-transcribe"), ("response_format", "json"), ("include[]", "logprobs")],
        ]


async def test_what_a_file_is_is_found_in_it_and_so_is_how_long_it_lasts(stores: Stores) -> None:
    """It calls itself something else, and subtitles tell no usage: what is charged is what was measured."""
    async with open_house(stores) as (upstream, cloche, _):
        for format_ in SOUNDS.keys() - {"aac", "aiff", "amr", "mka"}:  # which OpenAI does not take
            customer = await cloche.make_customer()
            file = ("film.avi", make_sound(format_, SECONDS), "application/octet-stream")
            asked = {"model": WHISPER, "response_format": "srt"}
            answer = await post(cloche, customer, "/v1/audio/transcriptions", file, **asked)
            assert answer.text == SRT, format_
            assert cloche.balance(customer) == (10 - WHISPER_USD, 0), format_
            assert read_sent_form(upstream.requests[-1])[-1].media_type == SOUNDS[format_].media_type


async def test_the_sdk_streams_deltas_and_what_was_used(stores: Stores) -> None:
    async with open_house(stores) as (_, cloche, customer):

        def transcribe(client: Any) -> Any:
            return list(client.audio.transcriptions.create(model=NEWER, file=make_file(), stream=True))

        *deltas, done = await use_sdk(cloche, customer, transcribe)
        assert [event.delta for event in deltas] == list(PIECES)
        assert (done.type, done.text, done.usage.total_tokens) == ("transcript.text.done", TEXT, 30)
        assert cloche.balance(customer) == (10 - NEWER_USD, 0)


async def test_the_sdk_streams_who_says_what(stores: Stores) -> None:
    async with open_house(stores) as (_, cloche, customer):

        def transcribe(client: Any) -> Any:
            create = client.audio.transcriptions.create
            return list(create(model=DIARIZE, file=make_file(), response_format="diarized_json", stream=True))

        segment, done = await use_sdk(cloche, customer, transcribe)
        assert (segment.speaker, segment.text, segment.start, segment.end) == ("A", f" {TEXT}", 0.0, 2.0)
        assert done.text == TEXT
        assert cloche.balance(customer) == (10 - DIARIZE_USD, 0)


async def test_a_model_that_does_not_stream_is_streamed_in_one_piece(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):

        def transcribe(client: Any) -> Any:
            return list(client.audio.transcriptions.create(model=WHISPER, file=make_file(), stream=True))

        delta, done = await use_sdk(cloche, customer, transcribe)
        assert (delta.delta, done.text) == (TEXT, TEXT)
        assert "stream" not in read_fields(upstream.requests[0])


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # so the SDK calls it, for its model retires
async def test_the_sdk_translates(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):

        def translate(client: Any) -> Any:
            return client.audio.translations.create(model=WHISPER, file=make_file(), prompt="A greeting")

        assert (await use_sdk(cloche, customer, translate)).text == TEXT
        assert upstream.requests[0].path == "/audio/translations"
        assert cloche.balance(customer) == (10 - WHISPER_USD, 0)


REFUSED: Sequence[tuple[Mapping[str, Any], str]] = [
    ({"model": NEWER, "response_format": "srt"}, "response_format"),
    ({"model": WHISPER, "response_format": "diarized_json"}, "response_format"),
    ({"model": DIARIZE, "prompt": "Names: Ann"}, "prompt"),
    ({"model": WHISPER, "language": "klingon"}, "language"),
    ({"model": WHISPER, "temperature": 1.5}, "temperature"),
    ({"model": "openai/gpt-4.1-mini"}, "model"),
]
NO_SOUND = {
    "text": b"hello " * 500,
    "a playlist": b"#EXTM3U\nfile:///etc/passwd\n" * 100,
    "cut off in its head": make_sound("wav")[:60],
    "empty": b"",
}


async def test_what_a_model_cannot_do_is_refused_by_name_before_anything_is_held(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):

        def transcribe(client: Any) -> None:
            for asked, named in REFUSED:
                with pytest.raises(openai.BadRequestError, match=named):
                    client.audio.transcriptions.create(file=make_file(), **asked)

        await use_sdk(cloche, customer, transcribe)
        assert (upstream.requests, cloche.query("SELECT 1 FROM holds")) == ([], [])


async def test_what_is_no_sound_is_refused_whatever_it_calls_itself(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):
        for kind, data in NO_SOUND.items():
            answer = await post(cloche, customer, file=("a.mp3", data, "audio/mpeg"))
            assert (answer.status_code, answer.json()["error_type"]) == (400, "validation_error"), kind
        assert upstream.requests == []


async def test_the_forms_of_the_shipped_clients_are_taken(stores: Stores) -> None:
    """iOS's, and the desktop's with its own name for the type, a duration that counts for nothing and a country."""
    async with open_house(stores) as (upstream, cloche, customer):
        phone = await post(cloche, customer)
        desktop_file = ("note.m4a", make_sound("m4a", SECONDS), "audio/x-m4a")
        desktop = await post(cloche, customer, file=desktop_file, language="en-US", durationMs="1", temperature="0")
        for answer in (phone, desktop):
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert (told["text"], Decimal(str(told["cost"]))) == (TEXT, NEWER_USD)
            assert told["duration"] == pytest.approx(SECONDS, abs=0.2)
        assert read_fields(upstream.requests[1])["language"] == "en"
        assert cloche.balance(customer) == (10 - 2 * NEWER_USD, 0)
        rows = cloche.query("SELECT outcome, task_type, provisional FROM usage")
        assert rows == [("completed", "voice_transcription", False)] * 2


async def test_the_shipped_stream_is_ascii_and_says_done(stores: Stores) -> None:
    async with open_house(stores) as (_, cloche, customer):
        answer = await post(cloche, customer, f"{SHIPPED}/stream")
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.content.isascii()
        frames = [json.loads(frame.removeprefix("data: ")) for frame in answer.text.strip().split("\n\n")]
        assert frames[:2] == [{"text": piece, "done": False} for piece in PIECES]
        assert (frames[2]["text"], frames[2]["done"]) == ("", True)
        assert cloche.balance(customer) == (10 - NEWER_USD, 0)


async def test_googles_models_transcribe_too_whole_and_streamed(stores: Stores) -> None:
    """420 tokens at 1 and 6 at 0.40 dollars a million, as the stand-in says."""
    async with open_google_files() as google:
        named = {"GOOGLE_BASE_URL": google.base_url, "GOOGLE_API_KEY": google.keys[0]}
        async with open_cloche(stores, settings=named) as cloche:
            customer = await cloche.make_customer()
            file = ("note.mp3", make_sound("mp3", SECONDS), "audio/mpeg")
            for path in (SHIPPED, f"{SHIPPED}/stream", "/v1/audio/transcriptions"):
                answer = await post(cloche, customer, path, file, model=GOOGLES, language="de", prompt="Cloche")
                assert answer.status_code == 200, answer.text
                assert "field" in answer.text
            assert [asked.inline_bytes for asked in google.generated] == [len(file[1])] * 3
            assert cloche.balance(customer) == (10 - 3 * GOOGLES_USD, 0)
            cloche.check_accounts()


async def test_an_unknown_model_is_not_found_and_an_empty_purse_is_told(stores: Stores) -> None:
    async with open_house(stores) as (upstream, cloche, customer):
        assert (await post(cloche, customer, model="openai/none")).status_code == 404
        assert (await post(cloche, customer, model="")).status_code == 404
        poor = await post(cloche, await cloche.make_customer("0"))
        assert (poor.status_code, poor.json()["error_type"]) == (402, "credit_insufficient")
        assert upstream.requests == []


async def test_a_refusal_of_the_provider_is_told_and_costs_nothing(stores: Stores) -> None:
    refusal = openai_error(400, "invalid_request_error", "invalid_value", "Audio file might be corrupted")
    async with open_house(stores, refusal) as (_, cloche, customer):

        def transcribe(client: Any) -> None:
            with pytest.raises(openai.BadRequestError, match="might be corrupted"):
                client.audio.transcriptions.create(model=NEWER, file=make_file())

        await use_sdk(cloche, customer, transcribe)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10, 0)


def stop_after(chunks: int) -> Script:
    """The beginning of a stream, and then nothing."""

    def respond(request: RecordedRequest) -> list[Step]:
        return [*upto_chunks(answer_sound(request), chunks), WaitForClose()]

    return respond


async def test_who_leaves_in_mid_stream_pays_for_the_sound_and_what_came(stores: Stores) -> None:
    """30 tokens of sound at 6, two of text at 10 dollars a million; and the provider's connection closes at once."""
    async with open_house(stores, stop_after(1)) as (upstream, cloche, customer):
        sound = make_sound("mp3", SECONDS)
        upload = Upload(f"{SHIPPED}/stream", "file", sound, len(sound), {"model": NEWER})
        async with open_uploader(cloche) as uploader:
            await uploader.upload(upload, customer)
            await uploader.read_until(b"done")
            assert read_events(uploader.text)[0][1] == {"text": PIECES[0], "done": False}
            uploader.leave()
            with trio.fail_after(1):
                await upstream.connections[0].closed_by_client.wait()
        await cloche.wait_settled()
        balance, held = cloche.balance(customer)
        tokens = cloche.query("SELECT input_tokens + input_audio_tokens, output_tokens FROM usage")
        assert (tokens[0][0], held) == (30, 0)
        assert 10 - balance == (30 * Decimal(6) + tokens[0][1] * Decimal(10)) / 1_000_000
        assert 1 <= tokens[0][1] <= 3
        cloche.check_accounts()


async def test_who_leaves_before_the_answer_closes_the_providers_connection(stores: Stores) -> None:
    async with open_house(stores, [WaitForClose()]) as (upstream, cloche, customer):
        sound = make_sound("mp3", SECONDS)
        async with open_uploader(cloche) as uploader:
            await uploader.upload(Upload(SHIPPED, "file", sound, len(sound), {"model": NEWER}), customer)
            with trio.fail_after(5):
                await upstream.requested.wait()
            uploader.reset()
            with trio.fail_after(1):
                await upstream.connections[0].closed_by_client.wait()
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10, 0)
