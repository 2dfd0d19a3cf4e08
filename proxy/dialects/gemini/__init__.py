"""Google's Gemini API."""

from proxy.dialects.gemini.answer import open_reader
from proxy.dialects.gemini.call import build_request
from proxy.dialects.gemini.errors import read_refusal

__all__ = ["build_request", "open_reader", "read_refusal"]
