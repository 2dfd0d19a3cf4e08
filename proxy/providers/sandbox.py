"""The sandbox: a stand-in for a provider, for trying things without a key. It says what it is in every answer.

It speaks OpenAI's dialects for chat and for sound, so that a call to it takes the same path as any other;
`proxy/sandbox.py` plays its answers. It takes whatever a client may ask of a real one, and does nothing about it.
"""

from typing import get_args

from proxy.chat import ChatRequest
from proxy.dialects import openai_audio, openai_chat
from proxy.dialects.openai_audio.quirks import AudioQuirks
from proxy.dialects.openai_chat.quirks import ChatQuirks
from proxy.features import Feature
from proxy.provider import MediaLimits, Provider, ProviderCall, Target, Transcriber
from proxy.transcript import TranscriptFormat, TranscriptRequest

QUIRKS = ChatQuirks(
    code="sandbox", name="Sandbox (a local stand-in, not a model)", takes=frozenset(get_args(Feature))
)

SOUND_QUIRKS = AudioQuirks(
    code=QUIRKS.code,
    name=QUIRKS.name,
    formats=frozenset(get_args(TranscriptFormat)),
    streams=True,
    translates=True,
    diarizes=True,
    takes_hints=True,
    tells_logprobs=True,
)


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    return openai_chat.build_call(request, target, QUIRKS)


def build_transcription(request: TranscriptRequest, target: Target) -> ProviderCall:
    return openai_audio.build_call(request, target, SOUND_QUIRKS)


PROVIDER = Provider(
    code=QUIRKS.code,
    name=QUIRKS.name,
    default_base_url="sandbox://local",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})),
    build_call=build_call,
    needs_key=False,
    transcriber=Transcriber(
        build_transcription,
        openai_audio.MAX_BYTES,
        openai_audio.TOKENS_PER_SECOND,
        openai_audio.output_tokens_per_second,
    ),
)
