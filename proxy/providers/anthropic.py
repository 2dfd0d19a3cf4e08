"""Anthropic, through its Messages API; any server that speaks it by setting `ANTHROPIC_BASE_URL`."""

from functools import partial

from proxy.chat import ChatRequest
from proxy.dialects import anthropic
from proxy.provider import MEBIBYTE, MediaLimits, Provider, ProviderCall, Target

open_reader = partial(anthropic.open_reader, "anthropic")
read_refusal = partial(anthropic.read_refusal, "anthropic")


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    return ProviderCall(anthropic.build_request(request, target), open_reader, read_refusal)


PROVIDER = Provider(
    code="anthropic",
    name="Anthropic",
    default_base_url="https://api.anthropic.com/v1",
    media=MediaLimits(
        image_types=frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"}),
        document_types=frozenset({"application/pdf", "text/plain"}),
        max_images=100,
        max_total_image_bytes=32 * MEBIBYTE,
        max_document_bytes=32 * MEBIBYTE,
        max_total_document_bytes=32 * MEBIBYTE,
    ),
    build_call=build_call,
)
