"""Images, documents and sound, inlined in the shapes that clients write them. Pure.

What each provider takes of them is decided later, in proxy/media.py; what is no inlined medium at all is refused here.
"""

from base64 import b64encode
from typing import Any

from proxy.chat import Audio, Document, Image, Part
from server.dialects.bounds import MAX_NAME
from server.errors import RequestInvalid

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/heic", "image/heif"})
DOCUMENT_TYPES = frozenset({"application/pdf", "text/plain"})
AUDIO_FORMATS = frozenset(
    {"wav", "mp3", "aac", "aiff", "flac", "m4a", "mp4", "mpeg", "ogg", "opus", "pcm16", "pcm24", "webm"}
)
"""What any provider has a name for: https://openrouter.ai/docs/features/multimodal/audio lists most."""

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_NOT_KEPT = "files by id are not kept here; inline the data as a data: URL"


def read_media(part: dict[str, Any], where: str) -> Part | None:
    """None for a part that is no medium. Raises RequestInvalid, naming the place."""
    match part:
        case {"type": "image_url" | "input_image" | "image"}:
            return _read_image_part(part, where)
        case {"type": "document" | "file" | "input_file"}:
            return _read_document_part(part, where)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(format_)}}:
            return _read_audio(data, format_, where)
    return None


def _read_image_part(part: dict[str, Any], where: str) -> Image | None:
    match part:
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            return _read_image(url, rest.get("detail"), where)
        case {"type": "image_url" | "input_image", "image_url": str(url)}:
            return _read_image(url, part.get("detail"), where)
        case {"type": "image", "source": {"type": "base64", "media_type": str(media_type), "data": str(data)}}:
            return _read_image(f"data:{media_type};base64,{data}", None, where)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return _read_image(url, None, where)
        case {"type": "input_image", "file_id": _}:
            raise RequestInvalid(f"{where}: {_NOT_KEPT}")
        case {"type": "image", "source": dict()}:
            raise RequestInvalid(f"{where}.source: inline the image as base64 with media_type and data")
    return None


def _read_document_part(part: dict[str, Any], where: str) -> Document | None:
    match part:
        case {"type": "document", "source": dict(source)}:
            return _read_source(part, source, where)
        case {"type": "file", "file": {"file_data": str(url), **rest}}:
            return _read_document(url, rest.get("filename"), where)
        case {"type": "input_file", "file_data": str(url)}:
            return _read_document(url, part.get("filename"), where)
        case {"type": "input_file", "file_id": _} | {"type": "file", "file": {"file_id": _}}:
            raise RequestInvalid(f"{where}: {_NOT_KEPT}")
    return None


def _read_source(part: dict[str, Any], source: dict[str, Any], where: str) -> Document:
    """Anthropic's shape: https://platform.claude.com/docs/en/build-with-claude/citations."""
    if part.get("context"):
        raise RequestInvalid(f"{where}.context: has no place here; say it in a text")
    name = part.get("title") or source.get("file_name")
    citations = _read_citations(part.get("citations"), where)
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            return _read_document(f"data:{media_type};base64,{data}", name, where, citations)
        case {"type": "text", "data": str(text)}:
            return _build_document("text/plain", b64encode(text.encode()).decode(), name, where, citations)
        case {"type": "url", "url": str(url)}:
            return _read_document(url, name, where, citations)
    raise RequestInvalid(f"{where}.source: inline the document as base64 with media_type and data")


def _read_citations(wanted: object, where: str) -> bool | None:
    match wanted:
        case None | {"enabled": None}:
            return None
        case {"enabled": bool(enabled)}:
            return enabled
    raise RequestInvalid(f"{where}.citations: {{'enabled': true}} or {{'enabled': false}}")


def _read_image(url: str, detail: object, where: str) -> Image:
    media_type, data = _split_data_url(url, where)
    _check_type(media_type, IMAGE_TYPES, where)
    return Image(media_type, data, detail if isinstance(detail, str) and len(detail) <= MAX_NAME else None)


def _read_document(url: str, name: object, where: str, citations: bool | None = None) -> Document:
    media_type, data = _split_data_url(url, where)
    _check_type(media_type, DOCUMENT_TYPES, where)
    return _build_document(media_type, data, name, where, citations)


def _build_document(media_type: str, data: str, name: object, where: str, citations: bool | None) -> Document:
    if not isinstance(name, str) or not name:
        name = "document.pdf" if media_type == "application/pdf" else "document.txt"
    if len(name) > MAX_NAME:
        raise RequestInvalid(f"{where}: a name of at most {MAX_NAME} characters")
    return Document(media_type, data, name, citations=citations)


def _read_audio(data: str, format_: str, where: str) -> Audio:
    name = format_.lower()
    if name not in AUDIO_FORMATS:
        known = ", ".join(sorted(AUDIO_FORMATS))
        raise RequestInvalid(f"{where}.input_audio.format: {format_[:50]!r} is none of {known}")
    if not data:
        raise RequestInvalid(f"{where}.input_audio.data: there is nothing to hear")
    return Audio(name, _read_base64(data, where))


def _split_data_url(url: str, where: str) -> tuple[str, str]:
    """Parameters of the type, such as a charset, are left out."""
    head, comma, data = url.partition(",")
    media_type, semicolon, encoding = head.removeprefix("data:").partition(";")
    if not head.startswith("data:") or not comma or not semicolon or encoding.rpartition(";")[2] != "base64":
        raise RequestInvalid(f"{where}: remote addresses are not fetched; inline the data as data:<type>;base64,<data>")
    media_type = media_type.strip().lower()
    return ("image/jpeg" if media_type == "image/jpg" else media_type), _read_base64(data, where)


def _read_base64(data: str, where: str) -> str:
    """Without white space. Raises for what no decoder would read; two passes in C, for this may be megabytes."""
    foreign = data.encode("ascii", "replace").translate(None, _BASE64)
    if foreign:
        data = "".join(data.split())
    if foreign.strip() or "=" in data[:-2] or data[-2:-1] == "=" != data[-1:]:
        raise RequestInvalid(f"{where}: the data is no base64")
    return data


def _check_type(media_type: str, allowed: frozenset[str], where: str) -> None:
    if media_type not in allowed:
        raise RequestInvalid(f"{where}: {media_type[:100]!r} is none of {', '.join(sorted(allowed))}")
