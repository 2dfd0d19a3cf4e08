"""Google's Files API: how a file gets there and away again. https://ai.google.dev/api/files

The upload is Google's resumable protocol (https://developers.google.com/photos/library/guides/resumable-uploads), and
one that nobody wants any more is cancelled as Firebase's clients do it
(https://github.com/firebase/firebase-android-sdk/blob/main/firebase-storage/src/main/java/com/google/firebase/storage/network/ResumableUploadCancelRequest.java).
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Literal
from urllib.parse import quote, urlsplit
from uuid import uuid4

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import ChatRequest
from proxy.dialects.gemini.attached import find_attached, find_type, goes_inline, put_address
from proxy.media_file import BodyTail, MediaFile
from proxy.provider import RemoteFile, RemoteFiles, Target, Upload, UpstreamRequest

Headers = tuple[tuple[str, str], ...]

_NAME = re.compile(r"files/[a-z0-9][a-z0-9-]{0,39}")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_STATES: Mapping[str, Literal["processing", "ready", "failed"]] = {"ACTIVE": "ready", "FAILED": "failed"}


class _File(msgspec.Struct):
    name: str
    uri: str
    state: str = "PROCESSING"


class _Uploaded(msgspec.Struct):
    file: _File


_decode = msgspec.json.Decoder(_File | None).decode
_decode_uploaded = msgspec.json.Decoder(_Uploaded).decode


def build_upload(request: ChatRequest, target: Target) -> Upload | None:
    """None where nothing has to be uploaded."""
    attached = find_attached(request)
    if attached is None or goes_inline(attached):
        return None
    return Upload(attached.file, find_type(attached), build_remote_files(target), put_address)


def build_remote_files(target: Target) -> RemoteFiles:
    key = (("x-goog-api-key", target.api_key),)
    root = target.base_url.rstrip("/")
    return RemoteFiles(
        make_name=lambda: f"files/cloche-{uuid4().hex}",
        build_start=partial(_build_start, root, key),
        read_address=partial(_read_address, root),
        build_upload=partial(_build_rest, key),
        build_query=partial(_build_command, key, "query"),
        build_cancel=partial(_build_command, key, "cancel"),
        read_received=_read_received,
        read_file=_read_file,
        build_lookup=lambda name: UpstreamRequest(f"{root}/{quote(name)}", key, b"", "GET"),
        build_delete=lambda name: UpstreamRequest(f"{root}/{quote(name)}", key, b"", "DELETE"),
    )


def _build_start(root: str, key: Headers, name: str, media_type: str, size_bytes: int) -> UpstreamRequest:
    """What comes before the version in a base URL is the service's, and uploads have a path of their own there."""
    service, _, version = root.rpartition("/")
    headers = (
        *key,
        ("X-Goog-Upload-Protocol", "resumable"),
        ("X-Goog-Upload-Command", "start"),
        ("X-Goog-Upload-Header-Content-Length", str(size_bytes)),
        ("X-Goog-Upload-Header-Content-Type", media_type),
        ("Content-Type", "application/json"),
    )
    body = msgspec.json.encode({"file": {"name": name, "display_name": name.removeprefix("files/")}})
    return UpstreamRequest(f"{service}/upload/{version}/files", headers, body)


def _read_address(root: str, headers: Mapping[str, str]) -> str | None:
    """None if there is none, and for another host's: a key and a file go to the one that they are meant for."""
    address = headers.get("x-goog-upload-url", "")
    try:
        is_ours = _find_origin(address) == _find_origin(root)
    except ValueError:
        return None
    return address if is_ours else None


def _find_origin(url: str) -> tuple[str, str | None, int | None, bool]:
    """With whether it names a user, which no address of a provider's does. Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme), "@" in parts.netloc


def _build_rest(key: Headers, address: str, rest: MediaFile, offset: int) -> UpstreamRequest:
    headers = (*key, ("X-Goog-Upload-Command", "upload, finalize"), ("X-Goog-Upload-Offset", str(offset)))
    return UpstreamRequest(address, headers, b"", tail=BodyTail(rest, b""), is_repeatable=False)


def _build_command(key: Headers, command: str, address: str) -> UpstreamRequest:
    return UpstreamRequest(address, (*key, ("X-Goog-Upload-Command", command)), b"")


def _read_received(headers: Mapping[str, str]) -> int | None:
    """From where on to go on; None if all has come."""
    if headers.get("x-goog-upload-status") == "final":
        return None
    received = headers.get("x-goog-upload-size-received", "")
    return int(received) if received.isascii() and received.isdecimal() and len(received) < 16 else 0


def _read_file(body: bytes) -> RemoteFile | None:
    """What an upload answers with, or a lookup. Google's names for files are the only ones that go into a URL."""
    try:
        file = _decode_uploaded(body).file if b'"file"' in body else _decode(body)
    except NOT_JSON:
        return None
    if file is None or not _NAME.fullmatch(file.name):
        return None
    return RemoteFile(file.name, file.uri, _STATES.get(file.state, "processing"))
