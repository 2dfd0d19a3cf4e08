"""OpenAI's chat completions, which many servers speak, each with quirks of its own."""

from proxy.dialects.openai_chat.answer import open_reader, read_refusal
from proxy.dialects.openai_chat.call import build_call

__all__ = ["build_call", "open_reader", "read_refusal"]
