"""Sound to text: for the shipped clients, and for OpenAI's libraries. One path inside, two ways to tell."""

from quart import Blueprint, Response

from proxy.chat import Attached
from proxy.gateway import Chat
from proxy.transcript import TranscriptRequest
from server.answering import (
    check_may_ask,
    collect_answer,
    open_transcription,
    read_idempotency_key,
    receive_upload,
    stream_answer,
)
from server.dialects.media_forms import SoundForm, SoundTranscript, Transcript, TranscriptionForm, TranslationForm
from server.dialects.transcript_wishes import Task, read_transcript_request
from server.dialects.transcripts import (
    TEXT_FORMATS,
    OpenAiTranscriptEncoder,
    ShippedTranscriptEncoder,
    encode_openai,
    encode_shipped,
)
from server.guard import access
from server.operations import EVENT_STREAM, IDEMPOTENCY, JSON, Content, operation
from server.services import services
from server.uploads.inspection import inspect_sound

blueprint = Blueprint("transcriptions", __name__)

PLAIN_TEXT = "text/plain"
OPENAI_ANSWERS = {200: (Content(Transcript), Content(media_type=PLAIN_TEXT), Content(media_type=EVENT_STREAM))}


@blueprint.post("/api/audio/transcriptions")
@access(budget="llm_requests", takes_upload=True)
@operation("Write down what is said", form=SoundForm, answers={200: Content(SoundTranscript)}, headers=IDEMPOTENCY)
async def transcribe_shipped() -> Response:
    """What sort of file it is and how long it lasts is found in the file. Models whose provider counts tokens are
    charged by them, the others by the second.
    """
    request = await _receive()
    chat = await open_transcription(request)
    collected = await collect_answer(chat)
    return Response(encode_shipped(request, collected, str(chat.request_id)), content_type=JSON)


@blueprint.post("/api/audio/transcriptions/stream")
@access(budget="llm_requests", takes_upload=True)
@operation(
    "Write down what is said, piece by piece",
    form=SoundForm,
    answers={200: Content(media_type=EVENT_STREAM)},
    headers=IDEMPOTENCY,
)
async def stream_transcript_shipped() -> Response:
    """Events without names: `{"text", "done": false}`, and at the good end `{"text": "", "done": true}` with what was
    used and charged. A failure in mid-stream is `{"error": {"code", "message"}}`, and then the end. All of it is ASCII.

    Whoever closes the connection ends the call at once, and pays for what has come until then.
    """
    chat = await open_transcription(await _receive(streams=True))
    return await stream_answer(chat, ShippedTranscriptEncoder(), at_once=False)


@blueprint.post("/v1/audio/transcriptions")
@access(budget="llm_requests", takes_upload=True)
@operation(
    "Write down what is said, as OpenAI's libraries ask for it",
    form=TranscriptionForm,
    answers=OPENAI_ANSWERS,
    headers=IDEMPOTENCY,
)
async def transcribe_openai() -> Response:
    """Answers in the `response_format` that is asked for, or with `stream` as events: `transcript.text.delta`, or
    `transcript.text.segment` for `diarized_json`, then `transcript.text.done` and `[DONE]`.
    """
    return await _answer_openai(await _receive())


@blueprint.post("/v1/audio/translations")
@access(budget="llm_requests", takes_upload=True)
@operation(
    "Write down in English what is said, as OpenAI's libraries ask for it",
    form=TranslationForm,
    answers={200: OPENAI_ANSWERS[200][:2]},
    headers=IDEMPOTENCY,
)
async def translate_openai() -> Response:
    """Answers in the `response_format` that is asked for."""
    return await _answer_openai(await _receive("translate"))


async def _receive(task: Task = "transcribe", *, streams: bool = False) -> TranscriptRequest:
    """The upload, on disk until the request ends, and what is wanted of it."""
    await check_may_ask()
    key = read_idempotency_key()
    fields, file = await receive_upload("file", services().config.max_audio_bytes)
    sound = await inspect_sound(file)
    audio = Attached(sound.media_type, file, sound.seconds)
    return read_transcript_request(fields, audio, task, key, streams=streams)


async def _answer_openai(request: TranscriptRequest) -> Response:
    chat = await open_transcription(request)
    by_duration = _is_billed_by_seconds(chat)
    if request.stream:
        return await stream_answer(chat, OpenAiTranscriptEncoder(request, by_duration=by_duration), at_once=False)
    body = encode_openai(request, await collect_answer(chat), by_duration=by_duration)
    plain = f"{PLAIN_TEXT}; charset=utf-8"
    return Response(body, content_type=plain if request.format in TEXT_FORMATS else JSON)


def _is_billed_by_seconds(chat: Chat) -> bool:
    return chat.model.capabilities.get("billed_by_seconds") is True
