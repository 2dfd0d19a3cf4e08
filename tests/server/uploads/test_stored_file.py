"""Files of clients on a real disk: they have no name, are counted, and are gone whatever happens."""

import os
import signal
import subprocess
import sys
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from server.errors import TooManyUploads, UploadsUnavailable
from server.uploads.stored_file import MOST_OF_A_USER, PIECE_BYTES, Uploads, open_stored_file

ROOT = Path(__file__).parents[3]


def build_uploads(folder: Path, most_bytes: int = 100 * PIECE_BYTES) -> Uploads:
    return Uploads(folder, most_bytes, 60)


async def test_what_was_written_can_be_read_at_any_place_and_has_no_name(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    async with open_stored_file(build_uploads(tmp_path)) as file:
        for start in range(0, len(data), 70_000):
            await file.write(data[start : start + 70_000])
        await file.flush()
        assert os.listdir(tmp_path) == []  # noqa: PTH208 # ruff takes a Path's own for blocking
        assert file.size_bytes == len(data)
        assert await file.read_at(0, len(data)) == data
        assert await file.read_at(1_000_001, 10) == data[1_000_001:1_000_011]
        assert await file.read_at(len(data), 10) == b""


async def test_several_read_at_a_time(tmp_path: Path) -> None:
    async def check(offset: int) -> None:
        assert await file.read_at(offset, 100) == data[offset : offset + 100]

    data = os.urandom(2 * PIECE_BYTES)
    async with open_stored_file(build_uploads(tmp_path)) as file:
        await file.write(data)
        async with trio.open_nursery() as nursery:
            for offset in range(0, len(data), 100_000):
                nursery.start_soon(check, offset)


async def test_small_pieces_are_written_together(tmp_path: Path) -> None:
    async with open_stored_file(build_uploads(tmp_path)) as file:
        for _ in range(PIECE_BYTES // 1024 - 1):
            await file.write(bytes(1024))
        assert os.fstat(file.fileno()).st_size == 0
        await file.write(bytes(1024))
        assert os.fstat(file.fileno()).st_size == PIECE_BYTES


async def test_pieces_of_two_bytes_take_no_more_memory_than_they_have(tmp_path: Path) -> None:
    async with open_stored_file(build_uploads(tmp_path)) as file:
        tracemalloc.start()
        for number in range(PIECE_BYTES // 4):
            await file.write(number.to_bytes(4)[2:])
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken < 2 * PIECE_BYTES


async def test_files_count_together_until_they_are_closed(tmp_path: Path) -> None:
    uploads = build_uploads(tmp_path, 3 * PIECE_BYTES)
    async with open_stored_file(uploads) as first:
        await first.write(bytes(2 * PIECE_BYTES))
        async with open_stored_file(uploads) as second:
            await second.write(bytes(PIECE_BYTES))
            with pytest.raises(UploadsUnavailable):
                await second.write(bytes(PIECE_BYTES))
            assert uploads.kept_bytes == 3 * PIECE_BYTES
        assert uploads.kept_bytes == 2 * PIECE_BYTES
        uploads.require_room(PIECE_BYTES)
        with pytest.raises(UploadsUnavailable):
            uploads.require_room(PIECE_BYTES + 1)
    assert uploads.kept_bytes == 0


async def test_a_cancelled_task_leaves_nothing(tmp_path: Path) -> None:
    uploads = build_uploads(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # not a folder of files
    with trio.CancelScope() as scope:
        async with open_stored_file(uploads) as file:
            await file.write(bytes(PIECE_BYTES))
            scope.cancel()
            await file.write(bytes(PIECE_BYTES))
    assert (uploads.kept_bytes, len(os.listdir("/proc/self/fd"))) == (0, before)  # noqa: PTH208 # the same


async def test_a_folder_that_is_not_there_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(UploadsUnavailable, match="No such file or directory") as refused:
        async with open_stored_file(build_uploads(tmp_path / "hunter2")):
            pass
    assert "hunter2" not in str(refused.value)


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import trio
from pathlib import Path
from server.uploads.stored_file import Uploads, open_stored_file
async def main():
    async with open_stored_file(Uploads(Path({str(tmp_path)!r}), 1 << 30, 60)) as file:
        await file.write(bytes(1 << 20))
        print("written", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)  # noqa: S603 # ours
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"written\n"
        held = [os.readlink(place) for place in Path(f"/proc/{process.pid}/fd").iterdir()]  # noqa: PTH115 # no path
        assert len([path for path in held if path.startswith(str(tmp_path))]) == 1
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_one_user_has_so_many_files_on_their_way_and_others_have_theirs(tmp_path: Path) -> None:
    uploads, ann, bob = build_uploads(tmp_path), uuid4(), uuid4()
    with ExitStack() as stack:
        for _ in range(MOST_OF_A_USER):
            stack.enter_context(uploads.open_one_more(ann))
        stack.enter_context(uploads.open_one_more(bob))
        with pytest.raises(TooManyUploads), uploads.open_one_more(ann):
            pass
        assert uploads.open_by_user[ann] == MOST_OF_A_USER
    assert not uploads.open_by_user
