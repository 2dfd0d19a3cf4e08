"""A form with a file, as https://www.rfc-editor.org/rfc/rfc7578 has it: everything but the file is written at once."""

from collections.abc import Sequence
from secrets import token_hex

from proxy.chat import Attached
from proxy.errors import RequestNotSupported
from proxy.media_file import BodyTail

_FILE_NAMES = {
    "audio/flac": "audio.flac",
    "audio/x-flac": "audio.flac",
    "audio/mpeg": "audio.mp3",
    "audio/mp3": "audio.mp3",
    "audio/mp4": "audio.m4a",
    "audio/m4a": "audio.m4a",
    "audio/x-m4a": "audio.m4a",
    "audio/ogg": "audio.ogg",
    "audio/opus": "audio.ogg",
    "audio/wav": "audio.wav",
    "audio/x-wav": "audio.wav",
    "audio/webm": "audio.webm",
    "video/mp4": "audio.mp4",
    "video/mpeg": "audio.mpeg",
    "video/webm": "audio.webm",
}
"""What OpenAI takes, told by the end of the name: https://developers.openai.com/api/docs/guides/speech-to-text"""


def build_form(fields: Sequence[tuple[str, str]], audio: Attached, provider: str) -> tuple[str, bytes, BodyTail]:
    """Content type, body and tail. Names are ours and plain; values can be any text, for nobody can know the boundary.

    Raises RequestNotSupported for a kind of file that the provider does not take.
    """
    media_type = audio.media_type.partition(";")[0].strip().lower()
    name = _FILE_NAMES.get(media_type)
    if name is None:
        raise RequestNotSupported(f"file: {provider} takes mp3, m4a, wav, webm, ogg and flac, and no {media_type}")
    boundary = token_hex(24)
    parts = [_field(boundary, *field) for field in fields]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    tail = BodyTail(audio.file, f"\r\n--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + head.encode(), tail


def _field(boundary: str, name: str, value: str) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + value.encode("utf-8", "replace") + b"\r\n"
