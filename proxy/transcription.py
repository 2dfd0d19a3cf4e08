"""What is decided before a recording is written down: who does it, how they are asked, the worst case. Pure."""

from collections.abc import Mapping
from functools import partial
from math import ceil
from uuid import UUID

from proxy.admission import EXPECTED_OUTPUT_TOKENS, Admission, build_hold
from proxy.errors import RequestNotSupported
from proxy.media import MediaRefused
from proxy.pricing import Extra, worst_cost_usd
from proxy.provider import ProviderCall, Target, Transcriber
from proxy.routing import Model, Route, Upstream, find_routes
from proxy.tokens import Tokenizer, find_tokenizer
from proxy.transcript import TranscriptRequest

MAX_SAMPLE_SECONDS = 10
"""Of a speaker's voice: https://platform.openai.com/docs/api-reference/audio/createTranscription"""
_EXTRAS: frozenset[Extra] = frozenset({"input_audio_tokens"})


def admit_transcription(
    models: Mapping[str, Model],
    upstreams: Mapping[str, Upstream],
    user_id: UUID,
    request: TranscriptRequest,
    api_key_id: UUID | None = None,
) -> Admission:
    """Validate and translate completely, and compute the worst case. Raises what `Gateway.open_transcription` says."""
    routes = _find_routes(models, upstreams, user_id, request.model)
    route, model = routes[0], routes[0].model
    _check_prompt(request, model)
    call = _build_call(request, route, route.targets[0])
    tokenizer = find_tokenizer(route.targets[0].provider_model)
    prompt_tokens, output_tokens = _worst_tokens(request, model, _transcriber(route), tokenizer)
    amount_usd = worst_cost_usd(model.price, prompt_tokens, output_tokens, extras=_EXTRAS)
    hold = build_hold(route, request, amount_usd, prompt_tokens, user_id=user_id, api_key_id=api_key_id)
    estimated_tokens = prompt_tokens + min(output_tokens, EXPECTED_OUTPUT_TOKENS)
    return Admission(routes, partial(_build_call, request), call, tokenizer, hold, estimated_tokens)


def _find_routes(
    models: Mapping[str, Model], upstreams: Mapping[str, Upstream], user_id: UUID, model_id: str
) -> tuple[Route, ...]:
    """Those that transcribe."""
    routes = find_routes(models, upstreams, model_id, user_id)
    if routes[0].model.model_type != "transcription":
        raise RequestNotSupported(f"model: {model_id} does not transcribe")
    able = tuple(route for route in routes if route.provider.transcriber is not None)
    if not able:
        raise RequestNotSupported(f"model: the provider of {model_id} does not transcribe")
    return able


def _transcriber(route: Route) -> Transcriber:
    if route.provider.transcriber is None:
        raise RuntimeError("only routes that transcribe were taken")
    return route.provider.transcriber


def _build_call(request: TranscriptRequest, route: Route, target: Target) -> ProviderCall:
    transcriber, size_bytes = _transcriber(route), request.audio.file.size_bytes
    if size_bytes > transcriber.max_bytes:
        raise MediaRefused(
            f"file: {size_bytes} bytes, more than the {transcriber.max_bytes} that {route.provider.name} takes"
        )
    return transcriber.build_call(request, target)


def _check_prompt(request: TranscriptRequest, model: Model) -> None:
    """In bytes, as the catalogue has it (`max_prompt_length`)."""
    limit = model.capabilities.get("max_prompt_length")
    if request.prompt and isinstance(limit, int) and len(request.prompt.encode()) > limit:
        raise RequestNotSupported(f"prompt: more than the {limit} bytes that {model.id} takes")


def _worst_tokens(
    request: TranscriptRequest, model: Model, transcriber: Transcriber, tokenizer: Tokenizer
) -> tuple[int, int]:
    """Of the recording with what is told beside it, and of what is written down. What tells speakers apart does so
    whether it is asked to say it or not; what is billed by the second (`billed_by_seconds`) reads for nothing.
    """
    seconds = ceil(request.audio.seconds)
    told = 0 if model.capabilities.get("billed_by_seconds") is True else _told_tokens(request, transcriber, tokenizer)
    written = "diarized_json" if model.capabilities.get("diarizes") is True else request.format
    output = seconds * transcriber.output_tokens_per_second(written)
    return seconds * transcriber.tokens_per_second + told, output + transcriber.output_tokens_besides


def _told_tokens(request: TranscriptRequest, transcriber: Transcriber, tokenizer: Tokenizer) -> int:
    """Of the prompt, the keywords, the names and samples of voices, and what the provider's file says itself."""
    texts = (request.prompt or "", *request.keywords, *(speaker.name for speaker in request.speakers))
    samples = len(request.speakers) * MAX_SAMPLE_SECONDS * transcriber.tokens_per_second
    told = tokenizer.estimate(sum(tokenizer.count(text) for text in texts)) + samples
    return told + transcriber.prompt_tokens_besides
