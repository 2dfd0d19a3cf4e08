"""What clients ask for when they upload a video."""

import json

import pytest

from proxy.chat import Attached, ChatRequest, Message, Sampling, Text
from proxy.collected import Collected
from proxy.events import Completed, Finished, TextDelta, Usage
from server.dialects.media_forms import VideoAnalysis
from server.dialects.video_wishes import encode_analysis, read_video_request
from server.errors import ArgumentInvalid, ChoiceUnknown
from tests.proxy.calls import MODEL
from tests.server.dialects.test_completions import check
from tests.sounds import SILENCE

MODELS = {"google/gemini-2.5-pro": MODEL}
VIDEO = Attached("video/quicktime", SILENCE, 12.5)
ASKED = {"prompt": "What happens?", "durationMs": "12000"}


def read(**fields: str | None) -> ChatRequest:
    return read_of(VIDEO, **fields)


def read_of(video: Attached, **fields: str | None) -> ChatRequest:
    listed = {name: [value] for name, value in (ASKED | fields).items() if value is not None}
    return read_video_request(listed, video, MODELS)


def find_video(request: ChatRequest) -> Attached:
    part = request.messages[-1].parts[0]
    assert isinstance(part, Attached)
    return part


def test_a_video_is_a_chat_with_it_attached() -> None:
    attached = Attached("video/quicktime", SILENCE, 12.5, 1.0)
    assert read() == ChatRequest(
        model="google/gemini-2.5-pro",
        messages=(Message("user", (attached, Text("What happens?"))),),
        sampling=Sampling(temperature=0.4),
        task_type="video_analysis",
    )


def test_everything_that_the_desktop_sends_is_read() -> None:
    found = read(
        model="google/gemini-2.5-pro",
        temperature="0.7",
        systemPrompt="You see everything.",
        framerate="5",
        requestId="job_1",
        durationMs="15000.4",
        thinkingBudget="128",
        maxOutputTokens="900",
    )
    assert found.messages[0] == Message("system", (Text("You see everything."),))
    assert (found.sampling.temperature, found.sampling.reasoning_tokens, found.max_output_tokens) == (0.7, 128, 900)
    assert find_video(found).frames_per_second == 5
    assert find_video(found).seconds == 15.0


def test_a_file_that_lasts_longer_than_its_client_says_counts() -> None:
    assert find_video(read(durationMs="1")).seconds == 12.5


def test_a_file_that_says_nothing_lasts_as_long_as_its_client_says() -> None:
    assert find_video(read_of(Attached("video/webm", SILENCE, 0.0))).seconds == 12.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", "   "),
        ("durationMs", None),
        ("durationMs", "0"),
        ("durationMs", "-5"),
        ("durationMs", "0.4"),
        ("durationMs", "long"),
        ("durationMs", "NaN"),
        ("durationMs", "Infinity"),
        ("temperature", "hot"),
        ("temperature", "2.1"),
        ("framerate", "0"),
        ("framerate", "25"),
        ("framerate", "fast"),
        ("maxOutputTokens", "0"),
        ("maxOutputTokens", "1.5"),
        ("thinkingBudget", "-1"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_with_the_fields_name(field: str, value: str | None) -> None:
    with pytest.raises(ArgumentInvalid, match=field):
        read(**{field: value})


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "openai/gpt-4.1", "google/a/b", "google/none"])
def test_a_model_that_is_none_of_googles_or_not_offered_is_a_bad_request(model: str) -> None:
    with pytest.raises(ChoiceUnknown, match="model"):
        read(model=model)


def test_an_analysis_has_what_the_desktop_needs() -> None:
    collected = Collected()
    usage = Usage(input_tokens=3000, input_audio_tokens=384, output_tokens=40, reasoning_tokens=60, cache_read_tokens=5)
    collected.add([TextDelta("A cat "), TextDelta("sleeps."), Finished("stop"), Completed(usage, "0.004230", False)])
    body = encode_analysis(collected, "00000000-0000-4000-8000-000000000000")
    check(VideoAnalysis, body)
    told = json.loads(body)
    assert told["analysis"] == "A cat sleeps."
    assert told["usage"] == {"promptTokens": 3389, "completionTokens": 100, "totalTokens": 3489, "cachedTokens": 5}
    assert told["cost"] == 0.00423
