"""The sandbox as a provider: OpenAI's dialect, and no key."""

import json

from proxy.chat import Attached, ChatRequest, Message, Sampling, Text, WebSearch
from proxy.provider import Target
from proxy.providers.sandbox import PROVIDER
from proxy.sandbox import SCHEME
from proxy.transcript import KnownSpeaker, TranscriptRequest
from tests.proxy.forms import read_form
from tests.sounds import SILENCE

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 5, Sampling(temperature=0.5))


def test_it_needs_no_key_and_no_network() -> None:
    assert not PROVIDER.needs_key
    assert PROVIDER.default_base_url.startswith(SCHEME)


def test_it_speaks_openais_dialect() -> None:
    body = json.loads(PROVIDER.build_call(REQUEST, Target(PROVIDER.default_base_url, "", "echo")).request.body)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert body["max_completion_tokens"] == 5


def test_it_takes_whatever_a_client_may_ask_of_a_real_one() -> None:
    sampling = Sampling(0.5, 0.9, 0.1, 0.2, 7, ("END",), "low", True, 2, 40, 100, "auto", "low", {"1": 1})
    request = ChatRequest("x", REQUEST.messages, 5, sampling, web_search=WebSearch(), metadata={"a": "b"})
    PROVIDER.build_call(request, Target(PROVIDER.default_base_url, "", "echo"))


def test_it_says_that_it_is_no_model() -> None:
    assert "not a model" in PROVIDER.name


def test_it_writes_down_what_it_hears_in_openais_dialect() -> None:
    audio = Attached("audio/webm", SILENCE, 2.0)
    speakers = (KnownSpeaker("Ann", "data:audio/wav;base64,UklGRg=="),)
    request = TranscriptRequest("x", audio, format="diarized_json", prompt="Names", keywords=("a",), speakers=speakers)
    assert PROVIDER.transcriber is not None
    built = PROVIDER.transcriber.build_call(request, Target(PROVIDER.default_base_url, "", "transcribe")).request
    assert built.url == "sandbox://local/audio/transcriptions"
    assert read_form(built)[-1].size_bytes == SILENCE.size_bytes
