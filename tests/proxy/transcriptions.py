"""What tests of transcriptions share: our catalogue's models, a recording, and how it is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from proxy.chat import Attached
from proxy.events import ChatEvent
from proxy.pricing import read_price
from proxy.routing import Model
from proxy.transcript import TranscriptRequest
from storage.seed.reading import read_seed
from tests.proxy.calls import USER, Bench, read_all
from tests.sounds import FileInMemory

MODELS: Mapping[str, Model] = {
    entry.id: Model(
        entry.id,
        entry.name,
        entry.provider,
        entry.context_window,
        entry.max_output_tokens,
        read_price(entry.pricing),
        sees_images=False,
        provider_models=entry.mappings,
        capabilities=entry.capabilities,
        model_type=entry.model_type,
    )
    for entry in read_seed().models
    if entry.model_type == "transcription"
}
WHISPER, PLAIN, DIARIZE = (
    MODELS[f"openai/{name}"] for name in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize")
)
SOUND = FileInMemory(bytes(range(256)) * 3000)
SECONDS, TOKENS_OF_SOUND = 6.4, 70
REQUEST = TranscriptRequest(PLAIN.id, Attached("audio/mpeg", SOUND, SECONDS))


def to(model: Model, **asked: object) -> TranscriptRequest:
    return replace(REQUEST, model=model.id, **asked)  # type: ignore[arg-type] # the members of a request


async def transcribe(bench: Bench, request: TranscriptRequest) -> list[ChatEvent]:
    """The whole answer."""
    async with bench.gateway.open_transcription(USER, request) as chat:
        return await read_all(chat)


def price_usd(model: Model, heard: int, written: int) -> str:
    """By the catalogue's rates, worked out by hand."""
    rates = model.price.base
    exact = (heard * rates.input + written * rates.output) / Decimal(1_000_000)
    return str(exact.quantize(Decimal("0.000001")))
