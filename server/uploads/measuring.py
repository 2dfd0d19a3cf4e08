"""How long the sound or video in a file is. A program: standard input is the file, the answer is a line of JSON.

In a process of its own because FFmpeg (by way of PyAV, https://pyav.basswood.io) reads what anybody sends: a file of
573 bytes can claim forty million samples, and costs 1.4 GB and five seconds to open. Whatever a file does, it does it
to this process, within its limits; an answer that does not come means that the file cannot be read.

Demuxing alone: no decoder runs, and the demuxer is named, for a playlist would open other files. The header is not
believed where packets tell of more: it may be wrong, and a recording of a browser has no duration at all.
"""

import json
import os
import resource
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.subtitles.stream  # which PyAV would load when it opens a file; then there may be no more files

MEMORY_BYTES = 512 * 1024 * 1024
CPU_SECONDS = 10
MAX_PACKETS = 1_000_000
"""Some two seconds of work; at fifty in a second, as phones and browsers record, five hours and a half."""
MAX_SECONDS = 7 * 24 * 60 * 60

ALIASES = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}


def measure(demuxer: str, is_video: bool) -> dict[str, Any]:
    """`seconds`, which are 0 if nobody knows; or `lacks`, which says that there is none of what was asked for, or
    `exceeds`, that there is too much of it.
    """
    options = {
        "codec_whitelist": "aac" if demuxer == "aac" else "none",  # frames of ADTS have no times unless they are parsed
        "format_whitelist": ALIASES.get(demuxer, demuxer),
        "protocol_whitelist": "none",
    }
    sys.stdin.buffer.seek(0)
    with av.open(sys.stdin.buffer, "r", format=demuxer, options=options) as container:
        wanted = [stream for stream in container.streams if _is_wanted(stream, is_video)]
        if not wanted:
            return {"lacks": True}
        told = (container.duration or 0) / 1_000_000 if is_video else 0
        counted = _count(container, _find_played(container) if is_video else wanted)
        seconds = None if counted is None else max(told, counted)
        return {"exceeds": True} if seconds is None or seconds > MAX_SECONDS else {"seconds": float(seconds)}


def _is_wanted(stream: Any, is_video: bool) -> bool:
    """A cover is a picture, which FFmpeg shows as video."""
    if not is_video:
        return bool(stream.type == "audio")
    return bool(stream.type == "video" and not stream.disposition & stream.disposition.attached_pic)


def _find_played(container: Any) -> list[Any]:
    """All that may go on: a film with one picture can have an hour of sound."""
    return [stream for stream in container.streams if stream.type in {"audio", "video"}]


def _count(container: Any, streams: list[Any]) -> Fraction | None:
    """Of the longest of them. None if one has too many packets."""
    tracks = {stream.index: _Track() for stream in streams}
    for packet in container.demux(streams):
        track = tracks[packet.stream.index]
        if track.packets >= MAX_PACKETS:
            return None
        track.add(packet)
    return max(tracks[stream.index].span * Fraction(stream.time_base or 0) for stream in streams)


@dataclass(slots=True)
class _Track:
    """From its first packet to the end of the last one, in its own units."""

    packets: int = 0
    first: int | None = None
    last: int = 0
    together: int = 0

    def add(self, packet: Any) -> None:
        duration = packet.duration or 0
        self.packets += 1
        self.together += duration
        if packet.pts is not None:
            self.first = packet.pts if self.first is None else min(self.first, packet.pts)
            self.last = max(self.last, packet.pts + duration)

    @property
    def span(self) -> int:
        """Not less than all packets together, if their times are odd."""
        return max(self.last - self.first if self.first is not None else 0, self.together)


def _limit() -> None:
    """No more memory, time, files and sockets than a well-made file needs."""
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 3,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    os.nice(5)


if __name__ == "__main__":
    _limit()
    answer = measure(sys.argv[1], sys.argv[2] == "video")
    os.write(1, json.dumps(answer).encode())
