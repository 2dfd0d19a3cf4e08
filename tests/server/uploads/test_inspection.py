"""What stored files are and how long: files as phones and browsers make them, broken ones, and ones that lie."""

import io
import os
import random
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import av
import pytest
import trio

from server.errors import MediaUnreadable
from server.uploads import inspection
from server.uploads.inspection import Media, inspect_sound, inspect_video
from server.uploads.media_types import TAKEN
from server.uploads.stored_file import StoredFile, Uploads, open_stored_file
from tests.media_files import SOUNDS, VIDEOS, make_sound, make_video

ID3 = b"ID3\4\0\0" + bytes([0, 0, 100, 0]) + bytes(12800)


@asynccontextmanager
async def open_file(data: bytes) -> AsyncIterator[StoredFile]:
    async with open_stored_file(Uploads(Path("/tmp"), 1 << 30, 60)) as file:
        await file.write(data)
        await file.flush()
        yield file


async def inspect_sound_of(data: bytes) -> Media:
    async with open_file(data) as file:
        return await inspect_sound(file)


async def inspect_video_of(data: bytes) -> Media:
    async with open_file(data) as file:
        return await inspect_video(file)


async def refuse(data: bytes, *, is_video: bool = False) -> str:
    with pytest.raises(MediaUnreadable) as refused:
        await (inspect_video_of(data) if is_video else inspect_sound_of(data))
    return str(refused.value)


@pytest.mark.parametrize("name", SOUNDS)
async def test_sound_is_as_long_as_it_is(name: str) -> None:
    media = await inspect_sound_of(make_sound(name, 3.0))
    assert media.media_type == SOUNDS[name].media_type
    assert media.seconds == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("name", VIDEOS)
async def test_video_is_as_long_as_it_is(name: str) -> None:
    media = await inspect_video_of(make_video(name, 3.0))
    assert media.media_type == VIDEOS[name].media_type
    assert media.seconds == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("name", VIDEOS)
async def test_the_sound_of_a_video_can_be_had(name: str) -> None:
    assert (await inspect_sound_of(make_video(name, 3.0))).seconds == pytest.approx(3.0, abs=0.15)


async def test_a_tag_in_front_changes_nothing() -> None:
    for name in ("mp3_bare", "flac"):
        media = await inspect_sound_of(ID3 + make_sound(name, 2.0))
        assert (media.media_type, round(media.seconds)) == (SOUNDS[name].media_type, 2)


async def test_a_header_that_lies_about_the_length_is_not_believed() -> None:
    data = bytearray(make_sound("wav", 3.0))
    place = data.index(b"data") + 4
    for lie in (0xFFFFFFFF, 0):  # as programs write it that do not know yet
        data[place : place + 4] = struct.pack("<I", lie)
        assert (await inspect_sound_of(bytes(data))).seconds == pytest.approx(3.0, abs=0.01)


async def test_a_film_that_lies_about_its_length_is_as_long_as_it_is() -> None:
    """Otherwise an hour would be held for like a second."""
    matroska = bytearray(make_video("mkv", 30.0))
    place = matroska.index(b"\x44\x89\x88") + 3  # the element Duration, a float of eight bytes, in milliseconds
    matroska[place : place + 8] = struct.pack(">d", 10.0)
    quick_time = bytearray(make_video("mp4", 30.0))
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        for found in re.finditer(box, bytes(quick_time)):
            quick_time[found.start() + offset : found.start() + offset + 4] = struct.pack(">I", 1)
    for data in (matroska, quick_time):
        assert (await inspect_video_of(bytes(data))).seconds == pytest.approx(30.0, abs=0.15)


async def test_a_film_of_one_picture_is_as_long_as_its_sound() -> None:
    film, written = io.BytesIO(make_video("mkv", 10.0)), io.BytesIO()
    with av.open(film, "r") as source, av.open(written, "w", format="matroska") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts == 0):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    data = bytearray(written.getvalue())
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = struct.pack(">d", 10.0)
    assert (await inspect_video_of(bytes(data))).seconds == pytest.approx(10.0, abs=0.15)


async def test_a_recording_is_as_long_as_its_longest_track() -> None:
    """Or a second would be paid for an hour: what is asked for subtitles does not say how much was heard."""
    written = io.BytesIO()
    short, long = (av.open(io.BytesIO(make_sound("mka", seconds)), "r") for seconds in (1.0, 8.0))
    with short, long, av.open(written, "w", format="matroska") as target:
        tracks = [(one, target.add_stream_from_template(one.streams.audio[0])) for one in (short, long)]
        for source, stream in tracks:
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    assert (await inspect_sound_of(written.getvalue())).seconds == pytest.approx(8.0, abs=0.15)


async def test_a_recording_that_ends_in_the_middle_is_as_long_as_what_is_there() -> None:
    for name in ("mp3", "webm_live", "opus", "wav", "aac"):
        data = make_sound(name, 4.0)
        assert (await inspect_sound_of(data[: len(data) // 2])).seconds == pytest.approx(2.0, abs=0.3), name


def restamp(data: bytes, move: Callable[[int], int]) -> bytes:
    """The same packets of a WebM at other times, in milliseconds."""
    written = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(written, "w", format="webm") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.pts is not None:
                packet.pts = packet.dts = move(packet.pts)
                packet.stream = stream
                target.mux(packet)
    return written.getvalue()


async def test_a_recording_with_a_pause_is_as_long_as_it_took() -> None:
    data = restamp(make_sound("webm", 2.0), lambda time: time if time < 1000 else time + 10_000)
    assert (await inspect_sound_of(data)).seconds == pytest.approx(12.0, abs=0.1)


async def test_sound_whose_times_are_pressed_together_is_as_long_as_it_sounds() -> None:
    """Otherwise an hour would cost what a minute costs."""
    data = restamp(make_sound("webm", 4.0), lambda time: time // 10)
    assert (await inspect_sound_of(data)).seconds == pytest.approx(4.0, abs=0.1)


async def test_what_is_neither_sound_nor_video_is_told_what_is_taken() -> None:
    for data in (b"", b"#EXTM3U\nfile:///etc/passwd\n", b"hello"):
        assert await refuse(data) == "file: it is none of " + TAKEN


async def test_sound_is_no_video_and_a_silent_film_has_no_sound() -> None:
    assert await refuse(make_sound("wav"), is_video=True) == "file: it is no video"
    assert await refuse(make_sound("m4a"), is_video=True) == "file: there is no video in it"
    assert await refuse(make_video("mp4", has_sound=False)) == "file: there is no sound in it"


async def test_a_file_without_a_sample_has_no_sound() -> None:
    data = make_sound("wav")
    assert await refuse(data[: data.index(b"data") + 8]) == "file: there is no sound in it"


async def test_a_film_that_says_nothing_of_its_length_is_counted() -> None:
    """Browsers record such ones."""
    assert (await inspect_video_of(make_video("webm_live", 2.0))).seconds == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("name", SOUNDS)
async def test_broken_files_are_refused_or_read_and_never_an_error_of_ours(name: str) -> None:
    chance = random.Random(name)  # noqa: S311 # the same every time
    data = make_sound(name, 1.0)
    async with trio.open_nursery() as nursery:
        for broken in [data[: chance.randrange(len(data))], spoil(data, chance), data[:16] + chance.randbytes(5000)]:
            nursery.start_soon(inspect_whatever, broken)


def spoil(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(50):
        spoilt[chance.randrange(16, len(data))] = chance.randrange(256)
    return bytes(spoilt)


async def inspect_whatever(data: bytes) -> None:
    """With a deadline: no file may hang."""
    with trio.fail_after(20):
        try:
            assert 0 < (await inspect_sound_of(data)).seconds < 10**6
        except MediaUnreadable:
            return


def box(name: bytes, *parts: bytes) -> bytes:
    """https://developer.apple.com/documentation/quicktime-file-format/atoms"""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), name) + content


def full_box(name: bytes, *parts: bytes) -> bytes:
    return box(name, bytes(4), *parts)


def claim_samples(count: int) -> bytes:
    """An M4A of half a kilobyte that says it has so many samples."""
    sample = box(b"mp4a", bytes(6), struct.pack(">H8xHHHHI", 1, 2, 16, 0, 0, 48000 << 16))
    tables = [
        full_box(b"stsd", struct.pack(">I", 1), sample),
        full_box(b"stts", struct.pack(">III", 1, count, 1024)),
        full_box(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        full_box(b"stsz", struct.pack(">II", 1, count)),
        full_box(b"stco", struct.pack(">II", 1, 8)),
    ]
    head = full_box(b"mdhd", struct.pack(">IIIIHH", 0, 0, 48000, 48000, 0, 0))
    media = box(b"mdia", head, full_box(b"hdlr", b"\0\0\0\0soun", bytes(13)), box(b"minf", box(b"stbl", *tables)))
    track = box(b"trak", box(b"tkhd", b"\0\0\0\7", struct.pack(">IIIII", 0, 0, 1, 0, 1000), bytes(60)), media)
    movie = box(b"moov", full_box(b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000), bytes(80)), track)
    return box(b"ftyp", b"M4A \0\0\0\0") + movie + box(b"mdat", bytes(100))


async def test_a_few_bytes_that_claim_forty_million_samples_cost_this_process_nothing() -> None:
    """FFmpeg takes 1.4 GB for them."""
    before = resident_bytes()
    assert "file: " in await refuse(claim_samples(40_000_000))
    assert resident_bytes() - before < 10_000_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_what_has_more_frames_than_can_be_counted_in_a_moment_is_too_long() -> None:
    """Six hours of telephone."""
    frame = b"\x04" + bytes(12)
    assert await refuse(b"#!AMR\n" + frame * 1_100_000) == "file: it is too long; send it in parts"


async def test_a_program_that_dies_or_hangs_is_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    monkeypatch.setattr(inspection, "PROGRAM", program)
    monkeypatch.setattr(inspection, "INSPECTION_SECONDS", 0.5)
    for text in ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "import time; time.sleep(60)"):
        program.write_text(text)
        assert await refuse(make_sound("wav")) == "file: it is broken or incomplete"


@pytest.mark.parametrize("said", ["", "hello", "[1]", '{"seconds": NaN}', '{"seconds": "1"}'])
async def test_a_program_that_says_something_else_is_a_file_that_cannot_be_read(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    monkeypatch.setattr(inspection, "PROGRAM", program)
    program.write_text(f"print({said!r})")
    assert await refuse(make_sound("wav")) == "file: it is broken or incomplete"


async def test_the_program_has_nothing_of_ours_but_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")
    program = tmp_path / "program.py"
    monkeypatch.setattr(inspection, "PROGRAM", program)
    program.write_text("import os, sys; sys.exit(print('{\"seconds\": %d}' % (1 + len(os.environ))))")
    async with open_file(make_sound("wav")) as file:
        assert (await inspect_sound(file)).seconds <= 2  # Python itself sets LC_CTYPE where there is none


async def test_a_client_that_leaves_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, began = tmp_path / "program.py", tmp_path / "began"
    monkeypatch.setattr(inspection, "PROGRAM", program)
    program.write_text(f"import os, time; open({str(began)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    async with open_file(make_sound("wav")) as file, trio.open_nursery() as nursery:
        nursery.start_soon(inspect_sound, file)
        with trio.fail_after(10):
            while not (began.exists() and began.read_text()):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
        left_at = trio.current_time()
    assert trio.current_time() - left_at < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)
