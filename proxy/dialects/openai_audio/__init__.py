"""OpenAI's transcription of recordings, which some other servers speak too."""

from proxy.dialects.openai_audio.answer import open_reader
from proxy.dialects.openai_audio.call import MAX_BYTES, TOKENS_PER_SECOND, build_call, output_tokens_per_second

__all__ = ["MAX_BYTES", "TOKENS_PER_SECOND", "build_call", "open_reader", "output_tokens_per_second"]
