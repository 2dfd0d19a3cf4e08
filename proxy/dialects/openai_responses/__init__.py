"""OpenAI's Responses API, which xAI speaks too."""

from proxy.dialects.openai_responses.answer import open_reader, read_refusal
from proxy.dialects.openai_responses.background import build_background
from proxy.dialects.openai_responses.call import build_call, is_background

__all__ = ["build_background", "build_call", "is_background", "open_reader", "read_refusal"]
