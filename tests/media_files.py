"""Small files of sound and video, made with FFmpeg's encoders: a tone of 440 Hz, and a picture that grows lighter."""

import io
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

FRAMES_PER_SECOND = 10
SAMPLES_A_FRAME = 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """How FFmpeg makes a format: its muxer, with options, and its encoders."""

    muxer: str
    sound: str
    video: str = ""
    sample_rate: int = 16_000
    options: Mapping[str, str] = field(default_factory=dict)
    media_type: str = ""


SOUNDS: Mapping[str, Recipe] = {
    "wav": Recipe("wav", "pcm_s16le", media_type="audio/wav"),
    "mp3": Recipe("mp3", "libmp3lame", media_type="audio/mpeg"),
    "mp3_bare": Recipe(
        "mp3", "libmp3lame", options={"id3v2_version": "0", "write_xing": "0"}, media_type="audio/mpeg"
    ),
    "aac": Recipe("adts", "aac", media_type="audio/aac"),
    "m4a": Recipe("ipod", "aac", media_type="audio/mp4"),
    "mp4": Recipe("mp4", "aac", media_type="audio/mp4"),
    "mp4_fragments": Recipe(
        "mp4",
        "aac",
        options={"movflags": "frag_keyframe+empty_moov", "frag_duration": "200000"},
        media_type="audio/mp4",
    ),
    "flac": Recipe("flac", "flac", media_type="audio/flac"),
    "opus": Recipe("ogg", "libopus", sample_rate=48_000, media_type="audio/ogg"),
    "ogg_flac": Recipe("ogg", "flac", media_type="audio/ogg"),
    "webm": Recipe("webm", "libopus", sample_rate=48_000, media_type="audio/webm"),
    "webm_live": Recipe(
        "webm", "libopus", sample_rate=48_000, options={"live": "1"}, media_type="audio/webm"
    ),  # as MediaRecorder makes it: without a duration, for it does not know the end when it begins
    "mka": Recipe("matroska", "flac", media_type="audio/x-matroska"),
    "aiff": Recipe("aiff", "pcm_s16be", media_type="audio/aiff"),
    "amr": Recipe("amr", "libopencore_amrnb", sample_rate=8_000, media_type="audio/amr"),
}

VIDEOS: Mapping[str, Recipe] = {
    "mp4": Recipe("mp4", "aac", "libx264", media_type="video/mp4"),
    "mov": Recipe("mov", "aac", "libx264", media_type="video/quicktime"),
    "3gp": Recipe("3gp", "aac", "mpeg4", media_type="video/3gpp"),
    "webm": Recipe("webm", "libopus", "libvpx", sample_rate=48_000, media_type="video/webm"),
    "webm_live": Recipe(
        "webm", "libopus", "libvpx", sample_rate=48_000, options={"live": "1"}, media_type="video/webm"
    ),
    "mkv": Recipe("matroska", "libopus", "libx264", sample_rate=48_000, media_type="video/x-matroska"),
    "mpeg": Recipe("mpeg", "mp2", "mpeg1video", media_type="video/mpeg"),
    "ts": Recipe("mpegts", "mp2", "mpeg2video", media_type="video/mp2t"),
    "avi": Recipe("avi", "libmp3lame", "mpeg4", media_type="video/x-msvideo"),
    "wmv": Recipe("asf", "wmav2", "wmv2", sample_rate=44_100, media_type="video/x-ms-wmv"),
    "flv": Recipe("flv", "libmp3lame", "flv", sample_rate=44_100, media_type="video/x-flv"),
}


@cache
def make_sound(format: str, seconds: float = 1.0) -> bytes:
    """A mono tone in one of SOUNDS. Codecs add some hundredths of a second."""
    recipe = SOUNDS[format]
    written = io.BytesIO()
    with av.open(written, "w", format=recipe.muxer, options=dict(recipe.options)) as container:
        stream = _add_sound(container, recipe)
        _write_sound(container, stream, recipe.sample_rate, seconds)
    return written.getvalue()


@cache
def make_video(
    format: str, seconds: float = 1.0, width: int = 64, height: int = 48, has_sound: bool = True
) -> bytes:
    """A picture at 10 frames a second in one of VIDEOS, with a tone unless told otherwise."""
    recipe = VIDEOS[format]
    written = io.BytesIO()
    with av.open(written, "w", format=recipe.muxer, options=dict(recipe.options)) as container:
        video = _add_video(container, recipe, width, height)
        sound = _add_sound(container, recipe) if has_sound else None
        _write_video(container, video, seconds)
        if sound is not None:
            _write_sound(container, sound, recipe.sample_rate, seconds)
    return written.getvalue()


def _add_sound(container: OutputContainer, recipe: Recipe) -> AudioStream:
    options: dict[str, Any] = {"layout": "mono"} | ({"bit_rate": 64_000} if recipe.sound == "wmav2" else {})
    return cast(AudioStream, container.add_stream(recipe.sound, rate=recipe.sample_rate, **options))


def _add_video(container: OutputContainer, recipe: Recipe, width: int, height: int) -> VideoStream:
    rate = 25 if recipe.video == "mpeg1video" else FRAMES_PER_SECOND  # MPEG-1 knows a few rates alone
    stream = cast(VideoStream, container.add_stream(recipe.video, rate=rate))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    return stream


def _write_sound(container: OutputContainer, stream: AudioStream, sample_rate: int, seconds: float) -> None:
    samples = round(seconds * sample_rate)
    for start in range(0, samples, SAMPLES_A_FRAME):
        count = min(SAMPLES_A_FRAME, samples - start)
        frame = AudioFrame(format="s16", layout="mono", samples=count)
        frame.planes[0].update(_tone(start, count, sample_rate).ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _tone(start: int, count: int, sample_rate: int) -> bytes:
    heights = (round(8000 * math.sin(math.tau * 440 * n / sample_rate)) for n in range(start, start + count))
    return array("h", heights).tobytes()


def _write_video(container: OutputContainer, stream: VideoStream, seconds: float) -> None:
    rate = stream.codec_context.framerate
    for number in range(round(seconds * rate)):
        frame = VideoFrame(stream.width, stream.height, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([16 + number % 200]) * plane.buffer_size)
        frame.pts, frame.time_base = number, 1 / rate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
