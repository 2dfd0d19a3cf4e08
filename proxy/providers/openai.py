"""OpenAI, through its chat completions; any server that speaks them by setting `OPENAI_BASE_URL`."""

from functools import partial

from proxy.chat import ChatRequest
from proxy.dialects import openai_chat, openai_chat_answer
from proxy.provider import MediaLimits, Provider, Target, UpstreamRequest

_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5")
MEBIBYTE = 1024 * 1024


def build_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Reasoning models refuse `temperature`, which the shipped clients always send."""
    reasons = target.provider_model.startswith(_REASONING_MODELS)
    return openai_chat.build_request(request, target, takes_temperature=not reasons)


PROVIDER = Provider(
    code="openai",
    name="OpenAI",
    default_base_url="https://api.openai.com/v1",
    media=MediaLimits(
        image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"}),
        document_types=frozenset({"application/pdf"}),
        max_images=500,
        max_total_image_bytes=50 * MEBIBYTE,
    ),
    build_request=build_request,
    open_reader=partial(openai_chat_answer.open_reader, "openai"),
    read_refusal=partial(openai_chat_answer.read_refusal, "openai"),
)
