"""What a stored file really is, and how long: the type by its content, the duration by FFmpeg."""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import trio

from server.errors import MediaUnreadable
from server.uploads.media_types import HEAD_BYTES, TAKEN, Container, find_container, measure_tag
from server.uploads.stored_file import StoredFile

logger = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("measuring.py")
INSPECTION_SECONDS = 30
BROKEN = "file: it is broken or incomplete"

Kind = Literal["sound", "video"]


@dataclass(frozen=True, slots=True)
class Media:
    """`media_type` is what providers call it. `seconds` are 0 for a video that does not say how long it is."""

    media_type: str
    seconds: float


class _Answer(msgspec.Struct):
    """Of the program, which is believed no more than the file that it has read. Its numbers are finite."""

    seconds: float = 0
    lacks: bool = False
    exceeds: bool = False


async def inspect_sound(file: StoredFile) -> Media:
    """Of its longest track of sound, for nobody knows which one a provider hears. Raises MediaUnreadable, also if there
    is no sound in it.
    """
    media = await _inspect(file, "sound")
    if media.seconds <= 0:
        raise MediaUnreadable("file: there is no sound in it")
    return media


async def inspect_video(file: StoredFile) -> Media:
    """Raises MediaUnreadable, also if there are no pictures in it."""
    return await _inspect(file, "video")


async def _inspect(file: StoredFile, kind: Kind) -> Media:
    container = await _find_container(file)
    media_type = container.video_type if kind == "video" else container.sound_type
    if not media_type:
        raise MediaUnreadable(f"file: it is no {kind}")
    answer = await _measure(file, container.demuxer, kind)
    if answer.lacks:
        raise MediaUnreadable(f"file: there is no {kind} in it")
    if answer.exceeds:
        raise MediaUnreadable("file: it is too long; send it in parts")
    return Media(media_type, answer.seconds)


async def _find_container(file: StoredFile) -> Container:
    head = await file.read_at(0, HEAD_BYTES)
    if tag_bytes := measure_tag(head):
        head = await file.read_at(tag_bytes, HEAD_BYTES)
    container = find_container(head)
    if container is None:
        raise MediaUnreadable(f"file: it is none of {TAKEN}")
    return container


async def _measure(file: StoredFile, demuxer: str, kind: Kind) -> _Answer:
    """The program has nothing of ours but the file: no environment, no other file."""
    command = [sys.executable, "-I", str(PROGRAM), demuxer, kind]
    async with file.uploads.inspections:
        with trio.move_on_after(INSPECTION_SECONDS):
            done = await trio.run_process(
                command,
                stdin=file.fileno(),
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                env={},
                deliver_cancel=_kill,
            )
            if done.returncode == 0:
                return _read_answer(done.stdout)
            logger.info("a file could not be measured", extra={"demuxer": demuxer, "status": done.returncode})
    raise MediaUnreadable(BROKEN)


def _read_answer(written: bytes) -> _Answer:
    try:
        return msgspec.json.decode(written, type=_Answer)
    except msgspec.DecodeError as error:
        raise MediaUnreadable(BROKEN) from error


async def _kill(process: trio.Process) -> None:
    process.kill()
