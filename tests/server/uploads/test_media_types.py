"""What files are by their first bytes, for files that FFmpeg's muxers made and for the oddities of others."""

import struct

import pytest

from server.uploads.media_types import HEAD_BYTES, find_container, measure_tag
from tests.media_files import SOUNDS, VIDEOS, make_sound, make_video


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_known_by_its_first_bytes(name: str) -> None:
    data = make_sound(name)
    container = find_container(data[measure_tag(data) :][:HEAD_BYTES])
    assert container is not None
    assert container.sound_type == SOUNDS[name].media_type


@pytest.mark.parametrize("name", VIDEOS)
def test_video_is_known_by_its_first_bytes(name: str) -> None:
    container = find_container(make_video(name)[:HEAD_BYTES])
    assert container is not None
    assert container.video_type == VIDEOS[name].media_type


@pytest.mark.parametrize(
    ("head", "sound_type"),
    [
        (b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav"),
        (b"FORM\0\0\0\0AIFC", "audio/aiff"),
        (b"#!AMR-WB\n", "audio/amr"),
        (b"\0\0\0\x18ftypM4B \0\0\0\0", "audio/mp4"),
        (b"\0\0\0\x18ftyp3g2a\0\0\0\0", "audio/3gpp"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "audio/mp4"),
        (b"\0\0\0\0\0\xff\xfb\x90\x00", "audio/mpeg"),
        (b"\xff\xe3\x18\xc4", "audio/mpeg"),
        (b"\xff\xf9\x50\x80", "audio/aac"),
    ],
)
def test_rarer_beginnings_are_known(head: bytes, sound_type: str) -> None:
    container = find_container(head)
    assert container is not None
    assert container.sound_type == sound_type


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0" * HEAD_BYTES,
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD>",
        b"<!DOCTYPE html>",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"PK\3\4",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\xff\xfe\x41\0",
        b"\xff\xff\xff\xff",
        b"\xff\xfb\xf0\x00",
        b"\xff\xfb\x9c\x00",
        b"\x1a\x45\xdf\xa3\x84\x42\x82\x81x",
        b"\x1a\x45\xdf\xa3",
        b"G" + b"\0" * 400,
    ],
)
def test_what_is_neither_sound_nor_video_is_not_taken_for_it(head: bytes) -> None:
    assert find_container(head) is None


def test_a_tag_is_as_long_as_it_says_with_seven_bits_in_a_byte() -> None:
    assert measure_tag(b"ID3\4\0\0" + bytes([0, 0, 2, 1])) == 10 + 257
    assert measure_tag(b"ID3\4\0\x10" + bytes([0, 0, 2, 1])) == 20 + 257
    assert measure_tag(b"ID3\4\0\0" + struct.pack(">I", 0x80)) == 0
    assert (measure_tag(b"ID3\4"), measure_tag(b"RIFF")) == (0, 0)
