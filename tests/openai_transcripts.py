"""Scripts for a FakeUpstream that writes recordings down, in OpenAI's dialect:
https://platform.openai.com/docs/api-reference/audio.
"""

import json
from collections.abc import Sequence

from tests.fake_upstream import END_OF_CHUNKS, SendChunk, Step, response, sse_chunk, stream_head


def transcript(text: str, usage: object = None, **more: object) -> list[Step]:
    """A whole answer."""
    told = {} if usage is None else {"usage": usage}
    return response(200, json.dumps({"text": text, **more, **told}).encode())


def subtitles(text: str) -> list[Step]:
    return response(200, text.encode(), {"content-type": "text/plain; charset=utf-8"})


def transcript_stream(deltas: Sequence[str], usage: object = None) -> list[Step]:
    """Chunk N carries the N-th delta."""
    chunks = [sse_chunk({"type": "transcript.text.delta", "delta": text}) for text in deltas]
    return [stream_head(), *chunks, *_end_stream("".join(deltas), usage)]


def diarized_stream(segments: Sequence[tuple[str, str, float, float]], usage: object = None) -> list[Step]:
    """Chunk N carries the N-th segment: who says what, from when to when."""
    chunks = [
        sse_chunk({"type": "transcript.text.segment", "speaker": who, "text": text, "start": start, "end": end})
        for who, text, start, end in segments
    ]
    return [stream_head(), *chunks, *_end_stream("".join(text for _, text, *_ in segments).lstrip(), usage)]


def tokens(heard: int, written: int, read: int = 0) -> dict[str, object]:
    """Usage by tokens: of sound, of text, of a prompt."""
    details = {"text_tokens": read, "audio_tokens": heard}
    total = heard + read
    usage = {"input_tokens": total, "output_tokens": written, "total_tokens": total + written}
    return {"type": "tokens", **usage, "input_token_details": details}


def seconds(count: float) -> dict[str, object]:
    return {"type": "duration", "seconds": count}


def _end_stream(text: str, usage: object) -> list[Step]:
    told = {} if usage is None else {"usage": usage}
    done = sse_chunk({"type": "transcript.text.done", "text": text, **told})
    return [done, SendChunk(b"data: [DONE]\n\n"), END_OF_CHUNKS]
