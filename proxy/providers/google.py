"""Google, through the Gemini API. Reads of a model's capabilities: `thinking` (it thinks without being asked), `video`
and `audio` (it takes files of them), `transcription` (it takes sound).
"""

from functools import partial

from proxy.chat import ChatRequest
from proxy.dialects import gemini
from proxy.provider import MEBIBYTE, MediaLimits, Provider, ProviderCall, Target, Transcriber
from proxy.transcript import TranscriptRequest

open_reader = partial(gemini.open_reader, "google")
read_refusal = partial(gemini.read_refusal, "google")


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    reader = partial(open_reader, max_calls=1) if request.parallel_tool_calls is False else open_reader
    built = gemini.build_request(request, target, "Google")
    upload = gemini.build_upload(request, target)
    return ProviderCall(built, reader, read_refusal, answers_late=upload is not None, upload=upload)


def build_transcription(request: TranscriptRequest, target: Target) -> ProviderCall:
    return build_call(gemini.build_chat(request, target), target)


PROVIDER = Provider(
    code="google",
    name="Google",
    default_base_url="https://generativelanguage.googleapis.com/v1beta",
    media=MediaLimits(
        image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/heic", "image/heif"}),
        document_types=frozenset({"application/pdf"}),
        max_total_image_bytes=20 * MEBIBYTE,
        max_document_bytes=20 * MEBIBYTE,
        max_total_document_bytes=20 * MEBIBYTE,
    ),
    build_call=build_call,
    build_remote_files=gemini.build_remote_files,
    transcriber=Transcriber(
        build_transcription,
        gemini.MAX_BYTES,
        gemini.TOKENS_PER_SECOND,
        gemini.output_tokens_per_second,
        gemini.OUTPUT_TOKENS_BESIDES,
        gemini.INSTRUCTION_TOKENS,
    ),
)
