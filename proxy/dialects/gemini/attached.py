"""A file of sound or video in a request to Gemini: within it, or uploaded before it.

https://ai.google.dev/gemini-api/docs/file-input-methods. Its bytes never pass through JSON: a place is kept for them,
and what is to stand there is filled in afterwards.
"""

from dataclasses import replace
from typing import Any

import msgspec

from proxy.chat import Attached, ChatRequest
from proxy.errors import RequestNotSupported
from proxy.media_file import BodyTail
from proxy.provider import MEBIBYTE, Target, UpstreamRequest

INLINE_BYTES = 19 * MEBIBYTE
"""From here on a file is uploaded. Google takes requests of 100 MB since 2026 and took 20 MB before
(https://blog.google/innovation-and-ai/technology/developers-tools/gemini-api-new-file-limits); as base64 this is 27 MB,
which leaves ample room for the rest. A request that breaks off is sent anew as a whole, an upload is taken up again.
"""
MAX_BYTES = 2 * 1024 * MEBIBYTE
"""https://ai.google.dev/gemini-api/docs/files"""
MAX_FRAMES_PER_SECOND = 24
"""https://ai.google.dev/api/caching#VideoMetadata"""

_PLACE = b"\x00"
"""Keeps a place within an encoded body. No JSON holds this byte, so nothing that a client wrote can look like it."""
_KEPT = msgspec.Raw(b'"' + _PLACE + b'"')

VIDEO_TYPES = {
    "video/mp4": "video/mp4",
    "video/x-m4v": "video/mp4",
    "video/mpeg": "video/mpeg",
    "video/mpg": "video/mpg",
    "video/quicktime": "video/mov",
    "video/mov": "video/mov",
    "video/x-msvideo": "video/avi",
    "video/avi": "video/avi",
    "video/x-flv": "video/x-flv",
    "video/webm": "video/webm",
    "video/x-matroska": "video/webm",
    "video/x-ms-wmv": "video/wmv",
    "video/wmv": "video/wmv",
    "video/3gpp": "video/3gpp",
}
"""What others call a format, and what Google does: https://ai.google.dev/gemini-api/docs/video-understanding.

WebM is a kind of Matroska, and there is no other name that Google knows for it: what it cannot read it refuses.
"""
AUDIO_TYPES = {
    "audio/wav": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/mpeg": "audio/mp3",
    "audio/mp3": "audio/mp3",
    "audio/aiff": "audio/aiff",
    "audio/x-aiff": "audio/aiff",
    "audio/aac": "audio/aac",
    "audio/ogg": "audio/ogg",
    "audio/opus": "audio/ogg",
    "audio/flac": "audio/flac",
    "audio/x-flac": "audio/flac",
    "audio/mp4": "audio/mp4",
    "audio/m4a": "audio/m4a",
    "audio/x-m4a": "audio/m4a",
    "audio/webm": "audio/webm",
    "audio/x-matroska": "audio/webm",
}
"""https://ai.google.dev/gemini-api/docs/audio#supported-formats; the last ones only
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/audio-understanding has.
"""


def find_attached(request: ChatRequest) -> Attached | None:
    """Raises RequestNotSupported for more than one."""
    found = [part for message in request.messages for part in message.parts if isinstance(part, Attached)]
    if len(found) > 1:
        raise RequestNotSupported("messages: only one file of sound or video goes into a request")
    return found[0] if found else None


def check_attached(attached: Attached, target: Target) -> None:
    """Raises RequestNotSupported for what this model, or Google, does not take."""
    is_video = attached.media_type in VIDEO_TYPES
    types = VIDEO_TYPES if is_video or attached.media_type.startswith("video/") else AUDIO_TYPES
    kind, needed = ("video", {"video"}) if types is VIDEO_TYPES else ("sound", {"audio", "transcription"})
    if not any(target.capabilities.get(name) is True for name in needed):
        raise RequestNotSupported(f"file: this model takes no {kind}")
    if attached.media_type not in types:
        takes = ", ".join(sorted(set(types.values())))
        raise RequestNotSupported(f"file: {attached.media_type[:50]!r} is not taken by Google, which takes {takes}")
    size_bytes = attached.file.size_bytes
    if size_bytes > MAX_BYTES:
        raise RequestNotSupported(f"file: {size_bytes} bytes, more than the {MAX_BYTES} that Google takes")
    rate = attached.frames_per_second
    if rate is not None and not 0 < rate <= MAX_FRAMES_PER_SECOND:
        raise RequestNotSupported(f"framerate: Google takes more than 0 and at most {MAX_FRAMES_PER_SECOND}")


def goes_inline(attached: Attached) -> bool:
    return attached.file.size_bytes < INLINE_BYTES


def build_attached(attached: Attached) -> dict[str, Any]:
    """A part with a place for the file, or for its address."""
    media_type = find_type(attached)
    part: dict[str, Any] = (
        {"inlineData": {"mimeType": media_type, "data": _KEPT}}
        if goes_inline(attached)
        else {"fileData": {"mimeType": media_type, "fileUri": _KEPT}}
    )
    if attached.media_type in VIDEO_TYPES and attached.frames_per_second is not None:
        part["videoMetadata"] = {"fps": attached.frames_per_second}
    return part


def find_type(attached: Attached) -> str:
    """Google's name for it."""
    known = VIDEO_TYPES | AUDIO_TYPES
    return known[attached.media_type]


def put_file(request: UpstreamRequest, attached: Attached) -> UpstreamRequest:
    """The request with the file within it."""
    before, _, after = request.body.partition(_PLACE)
    return replace(request, body=before, tail=BodyTail(attached.file, after, is_base64=True))


def put_address(request: UpstreamRequest, uri: str) -> UpstreamRequest:
    """The request that speaks of an uploaded file."""
    return replace(request, body=request.body.replace(_KEPT, msgspec.json.encode(uri)))
