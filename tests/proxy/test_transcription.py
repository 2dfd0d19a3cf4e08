"""What is held for a recording, and who may write it down."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proxy.admission import EXPECTED_OUTPUT_TOKENS, Admission
from proxy.chat import Attached
from proxy.errors import ModelUnknown, ProviderNotConfigured, RequestNotSupported
from proxy.events import Usage
from proxy.media import MediaRefused
from proxy.pricing import cost_usd
from proxy.provider import load_providers
from proxy.routing import Model, Upstream
from proxy.tokens import count_tokens
from proxy.transcript import KnownSpeaker
from proxy.transcription import admit_transcription
from tests.proxy.calls import MODEL, USER
from tests.proxy.transcriptions import DIARIZE, MODELS, PLAIN, SOUND, WHISPER, to
from tests.sounds import FileInMemory

PROVIDERS = load_providers()
UPSTREAMS = {code: Upstream(one, "https://api.test/v1", ("sk-1",)) for code, one in PROVIDERS.items()}
SPEAKER = KnownSpeaker("Ann", "data:audio/wav;base64,UklGRg==")


def admit(model: Model, upstreams: Mapping[str, Upstream] = UPSTREAMS, **asked: Any) -> Admission:
    return admit_transcription({**MODELS, MODEL.id: MODEL}, upstreams, USER, to(model, **asked))


def test_the_seconds_that_have_begun_are_held_for_with_what_may_be_said_in_them() -> None:
    hold = admit(PLAIN).hold
    assert hold.prompt_tokens == 7 * 10
    assert hold.amount_usd == Decimal(7 * 10 * 6 + (7 * 15 + 100) * 10) / 1_000_000


def test_an_hour_is_held_for_as_an_hour() -> None:
    hold = admit(WHISPER, audio=Attached("audio/mpeg", SOUND, 3600.0)).hold
    assert hold.amount_usd == Decimal("0.36")


@pytest.mark.parametrize("format_", ["json", "diarized_json"])
def test_a_model_that_tells_speakers_apart_writes_more_whether_it_is_asked_for_them_or_not(format_: str) -> None:
    hold = admit(DIARIZE, format=format_).hold
    assert hold.amount_usd == (Decimal(70) * DIARIZE.price.base.input + (7 * 50 + 100) * 10) / 1_000_000


def test_samples_of_voices_are_held_for() -> None:
    hold = admit(DIARIZE, speakers=(SPEAKER,) * 2).hold
    assert hold.prompt_tokens == 70 + 2 * (100 + count_tokens("Ann"))


def test_a_prompt_is_held_for_unless_seconds_are_paid() -> None:
    assert admit(PLAIN, prompt="Some names").hold.prompt_tokens == 70 + count_tokens("Some names")
    assert admit(WHISPER, prompt="Some names").hold.prompt_tokens == 70
    assert admit(MODELS["openai/gpt-transcribe"], keywords=("Cloche",)).hold.prompt_tokens == 70


@pytest.mark.parametrize("model_id", MODELS)
def test_what_is_reserved_is_what_is_heard_and_what_an_answer_mostly_is(model_id: str) -> None:
    admission = admit(MODELS[model_id], audio=Attached("audio/mpeg", SOUND, 7200.0))
    assert admission.estimated_tokens == admission.hold.prompt_tokens + EXPECTED_OUTPUT_TOKENS


def test_the_request_is_translated_before_anything_is_held() -> None:
    admission = admit(PLAIN)
    assert admission.call is not None
    assert admission.call.request.tail is not None
    assert admission.call.request.tail.file is SOUND


def test_a_call_for_another_key_carries_that_key() -> None:
    two = {"openai": replace(UPSTREAMS["openai"], api_keys=("sk-1", "sk-2"))}
    admission = admit(PLAIN, two)
    [route] = admission.routes
    other = admission.build_call(route, route.targets[1])
    assert ("Authorization", "Bearer sk-2") in other.request.headers


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"prompt": "ü" * 501}, "^prompt: more than the 1000 bytes"),
        ({"format": "srt"}, "^response_format"),
        ({"task": "translate"}, "^model"),
    ],
)
def test_what_the_model_cannot_do_is_refused(asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestNotSupported, match=complaint):
        admit(PLAIN, **asked)


def test_a_prompt_of_just_the_length_is_taken() -> None:
    assert admit(PLAIN, prompt="ü" * 500).hold.prompt_tokens > 70


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(MediaRefused, match=rf"^file: {25 * 2**20 + 1} bytes, more than the {25 * 2**20} that OpenAI"):
        admit(PLAIN, audio=Attached("audio/mpeg", FileInMemory(bytes(25 * 2**20 + 1)), 5.0))


def test_a_model_that_chats_does_not_transcribe() -> None:
    with pytest.raises(RequestNotSupported, match=r"^model: openai/gpt-4o-mini does not transcribe"):
        admit(MODEL)


def test_a_provider_that_does_not_transcribe_is_not_asked() -> None:
    silent = {"openai": replace(UPSTREAMS["openai"], provider=replace(PROVIDERS["openai"], transcriber=None))}
    with pytest.raises(RequestNotSupported, match=r"^model: the provider of"):
        admit(PLAIN, silent)


def test_a_model_that_is_not_there_and_a_provider_without_a_key_are_told() -> None:
    with pytest.raises(ModelUnknown):
        admit(replace(PLAIN, id="openai/nothing"))
    with pytest.raises(ProviderNotConfigured):
        admit(PLAIN, {"openai": replace(UPSTREAMS["openai"], api_keys=())})


@pytest.mark.parametrize("model", [PLAIN, WHISPER, DIARIZE], ids=lambda model: model.id)
def test_a_hold_covers_what_is_charged_where_nothing_is_told(model: Model) -> None:
    hold = admit(model).hold
    assert hold.amount_usd >= cost_usd(model.price, Usage(input_tokens=hold.prompt_tokens, output_tokens=7 * 15))
