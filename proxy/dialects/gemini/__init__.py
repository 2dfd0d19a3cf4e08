"""Google's Gemini API."""

from proxy.dialects.gemini.answer import open_reader
from proxy.dialects.gemini.attached import MAX_BYTES
from proxy.dialects.gemini.call import build_request
from proxy.dialects.gemini.errors import read_refusal
from proxy.dialects.gemini.files import build_remote_files, build_upload
from proxy.dialects.gemini.transcripts import (
    INSTRUCTION_TOKENS,
    OUTPUT_TOKENS_BESIDES,
    TOKENS_PER_SECOND,
    build_chat,
    output_tokens_per_second,
)

__all__ = [
    "INSTRUCTION_TOKENS",
    "MAX_BYTES",
    "OUTPUT_TOKENS_BESIDES",
    "TOKENS_PER_SECOND",
    "build_chat",
    "build_remote_files",
    "build_request",
    "build_upload",
    "open_reader",
    "output_tokens_per_second",
    "read_refusal",
]
