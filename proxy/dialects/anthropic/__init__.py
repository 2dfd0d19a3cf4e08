"""Anthropic's Messages API."""

from proxy.dialects.anthropic.answer import open_reader, read_refusal
from proxy.dialects.anthropic.call import build_request

__all__ = ["build_request", "open_reader", "read_refusal"]
