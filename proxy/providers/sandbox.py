"""The sandbox: a stand-in for a provider, for trying things without a key. It says what it is in every answer.

It speaks OpenAI's chat dialect, so that a call to it takes the same path as any other; `proxy/sandbox.py` plays its
answers. It takes whatever a client may ask of a real one, and does nothing about it.
"""

from typing import get_args

from proxy.chat import ChatRequest
from proxy.dialects import openai_chat
from proxy.dialects.openai_chat.quirks import ChatQuirks
from proxy.features import Feature
from proxy.provider import MediaLimits, Provider, ProviderCall, Target

QUIRKS = ChatQuirks(
    code="sandbox", name="Sandbox (a local stand-in, not a model)", takes=frozenset(get_args(Feature))
)


def build_call(request: ChatRequest, target: Target) -> ProviderCall:
    return openai_chat.build_call(request, target, QUIRKS)


PROVIDER = Provider(
    code=QUIRKS.code,
    name=QUIRKS.name,
    default_base_url="sandbox://local",
    media=MediaLimits(image_types=frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})),
    build_call=build_call,
    needs_key=False,
)
