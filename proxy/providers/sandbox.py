"""The sandbox: a stand-in for a provider, for trying things without a key. It says what it is in every answer.

It speaks OpenAI's chat dialect, so that a call to it takes the same path as any other; `proxy/sandbox.py` plays its
answers.
"""

from functools import partial

from proxy.chat import ChatRequest
from proxy.dialects import openai_chat, openai_chat_answer
from proxy.provider import MediaLimits, Provider, Target, UpstreamRequest


def build_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    return openai_chat.build_request(request, target)


PROVIDER = Provider(
    code="sandbox",
    name="Sandbox (a local stand-in, not a model)",
    default_base_url="sandbox://local",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})),
    build_request=build_request,
    open_reader=partial(openai_chat_answer.open_reader, "sandbox"),
    read_refusal=partial(openai_chat_answer.read_refusal, "sandbox"),
    needs_key=False,
)
