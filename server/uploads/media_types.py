"""What a file is, by its first bytes: its name and what the client says of it are not believed. Pure.

The marks are those of https://mimesniff.spec.whatwg.org/#matching-an-audio-or-video-type-pattern and, for what is not
there, of the formats' own papers: https://www.garykessler.net/library/file_sigs.html lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HEAD_BYTES = 4096
TAKEN = "wav, mp3, m4a, mp4, mov, webm, mkv, ogg, opus, flac, aac, aiff, amr, 3gp, mpeg, avi, wmv, flv"


@dataclass(frozen=True, slots=True)
class Container:
    """`demuxer` is FFmpeg's name. The types are those that the file has if it is sent as sound, or as video."""

    demuxer: str
    sound_type: str
    video_type: str = ""


_WAV = Container("wav", "audio/wav")
_AIFF = Container("aiff", "audio/aiff")
_MP3 = Container("mp3", "audio/mpeg")
_AAC = Container("aac", "audio/aac")
_FLAC = Container("flac", "audio/flac")
_QUICKTIME = Container("mov", "audio/mp4", "video/quicktime")
_MP4 = Container("mov", "audio/mp4", "video/mp4")
_3GPP = Container("mov", "audio/3gpp", "video/3gpp")
_WEBM = Container("matroska", "audio/webm", "video/webm")
_MATROSKA = Container("matroska", "audio/x-matroska", "video/x-matroska")
_TRANSPORT_STREAM = Container("mpegts", "video/mp2t", "video/mp2t")

_STARTS: Mapping[bytes, Container] = {
    b"fLaC": _FLAC,
    b"OggS": Container("ogg", "audio/ogg", "video/ogg"),
    b"#!AMR": Container("amr", "audio/amr"),
    b"FLV\1": Container("flv", "video/x-flv", "video/x-flv"),
    b"\x00\x00\x01\xba": Container("mpeg", "video/mpeg", "video/mpeg"),
    b"\x00\x00\x01\xb3": Container("mpegvideo", "", "video/mpeg"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Container("asf", "audio/x-ms-wma", "video/x-ms-wmv"),
}
_CHUNKED: Mapping[tuple[bytes, bytes], Container] = {
    (b"RIFF", b"WAVE"): _WAV,
    (b"RF64", b"WAVE"): _WAV,
    (b"RIFF", b"AVI "): Container("avi", "video/x-msvideo", "video/x-msvideo"),
    (b"FORM", b"AIFF"): _AIFF,
    (b"FORM", b"AIFC"): _AIFF,
}
_ATOMS = (b"moov", b"mdat", b"wide", b"pnot")
"""With which QuickTime files began before there were brands."""


def measure_tag(head: bytes) -> int:
    """How many bytes of ID3v2 stand in front of the sound: https://id3.org/id3v2.4.0-structure"""
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def find_container(head: bytes) -> Container | None:
    """Of the first HEAD_BYTES, without a tag."""
    for start, container in _STARTS.items():
        if head.startswith(start):
            return container
    if (head[:4], head[8:12]) in _CHUNKED:
        return _CHUNKED[head[:4], head[8:12]]
    if head[4:8] == b"ftyp":
        return _find_brand(head[8:12])
    if head[4:8] in _ATOMS:
        return _QUICKTIME
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _find_doctype(head)
    if head[0:1] == head[188:189] == head[376:377] == b"G":
        return _TRANSPORT_STREAM
    return _find_frames(head.lstrip(b"\0"))


def _find_brand(brand: bytes) -> Container:
    """https://mp4ra.org/registered-types/brands"""
    if brand == b"qt  ":
        return _QUICKTIME
    return _3GPP if brand.startswith((b"3gp", b"3g2")) else _MP4


def _find_doctype(head: bytes) -> Container | None:
    """The element 0x4282 of EBML's header, whose size is a byte: https://www.rfc-editor.org/rfc/rfc8794#section-11.2.6"""
    place = head.find(b"\x42\x82", 4, 256)
    kinds = {b"\x84webm": _WEBM, b"\x88matroska": _MATROSKA}
    return next((kind for name, kind in kinds.items() if place > 0 and head[place + 2 :].startswith(name)), None)


def _find_frames(head: bytes) -> Container | None:
    """Sound without a container: a frame of ADTS, or of MPEG's layers II and III with a rate of bits and one of
    samples that there are: https://www.rfc-editor.org/rfc/rfc3003 and ISO/IEC 11172-3, 2.4.1.3. Layer I, which nobody
    uses, looks like the mark of UTF-16.
    """
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _AAC
    is_mpeg = head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[1] & 0x06 in {0x02, 0x04}
    return _MP3 if is_mpeg and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C else None
