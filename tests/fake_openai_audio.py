"""OpenAI's audio endpoints as a script for a fake upstream: they answer by the fields of the form that they get."""

from collections.abc import Iterable

from tests.fake_upstream import RecordedRequest, Step
from tests.openai_transcripts import diarized_stream, seconds, subtitles, tokens, transcript, transcript_stream
from tests.proxy.forms import read_sent_form

TEXT = "Grüße!"
PIECES = ("Grü", "ße!")
SRT = "1\n00:00:00,000 --> 00:00:02,000\nGrüße!\n\n\n"
VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nGrüße!\n\n"
SEGMENT = {"id": 0, "seek": 0, "start": 0.0, "end": 2.0, "text": " Grüße!", "tokens": [1], "temperature": 0.0}
SEGMENT |= {"avg_logprob": -0.5, "compression_ratio": 0.8, "no_speech_prob": 0.002}
WORD = {"word": "Grüße", "start": 0.0, "end": 2.0}
SPOKEN = {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "start": 0.0, "end": 2.0, "text": " Grüße!"}


def read_fields(request: RecordedRequest) -> dict[str, str]:
    return {part.name: part.value.decode() for part in read_sent_form(request) if part.file_name is None}


def answer_sound(request: RecordedRequest) -> Iterable[Step]:
    fields = read_fields(request)
    format_ = fields.get("response_format", "json")
    usage = seconds(3) if fields["model"] == "whisper-1" else tokens(25, 5)
    if fields.get("stream") == "true":
        who_says_what = [("A", " Grüße!", 0.0, 2.0)]
        return diarized_stream(who_says_what, usage) if format_ == "diarized_json" else transcript_stream(PIECES, usage)
    match format_:
        case "srt" | "vtt":
            return subtitles(SRT if format_ == "srt" else VTT)
        case "verbose_json":
            found = {"task": "transcribe", "language": "german", "duration": 2.5}
            return transcript(TEXT, usage, segments=[SEGMENT], words=[WORD], **found)
        case "diarized_json":
            return transcript(TEXT, usage, task="transcribe", duration=2.5, segments=[SPOKEN])
    return transcript(TEXT, usage)
