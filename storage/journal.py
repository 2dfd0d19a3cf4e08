"""The journal of running calls: what each has used so far, in a memory-mapped file that outlives `kill -9`.

Writing a slot is a store into memory, cheap enough to do for every batch of a stream; the kernel keeps the page, come
what may to the process. The next process on this machine finds the file, sees by its free lock that the owner is dead,
and settles the calls in it exactly. If the machine is lost too, what was renewed into PostgreSQL last is what remains.
"""

import fcntl
import mmap
import multiprocessing
import os
import secrets
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import UUID

from storage.errors import StorageError

_SLOT = struct.Struct("<16s??6x10Q")
_EMPTY = bytes(_SLOT.size)
_EMPTY_BLOCK = bytes(64 * _SLOT.size)
_SLOTS = 32_768
"""Three mebibytes of sparse file; more running calls than one process can carry."""
_SUFFIX = ".journal-2"
_LAYOUTS: Mapping[str, struct.Struct] = {_SUFFIX: _SLOT, ".journal": struct.Struct("<16s??6x5Q")}
"""A file's name says how its slots are laid out, so that code of another age misreads nothing: the calls of an older
process are settled from what it knew, and a newer one's file is left to the leases.
"""


class JournalUnusable(StorageError):
    """The folder for journals cannot be written. The message says which, and why."""


class Usage(Protocol):
    """Tokens in buckets that do not overlap, and searches."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def cache_write_1h_tokens(self) -> int: ...
    @property
    def input_audio_tokens(self) -> int: ...
    @property
    def output_audio_tokens(self) -> int: ...
    @property
    def output_image_tokens(self) -> int: ...
    @property
    def searches(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """What a call is known to have used. `reported`: by the provider, not by our count.

    The order of its members is that of a slot, and older layouts have the first ones.
    """

    hold_id: UUID
    accepted: bool = False
    reported: bool = False
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    searches: int = 0

    def as_json(self) -> str:
        pairs = ", ".join(f'"{name}": {int(getattr(self, name))}' for name in _FIELDS)
        return f"{{{pairs}}}"

    @classmethod
    def from_json(cls, hold_id: UUID, state: dict[str, Any]) -> "Progress":
        numbers = [int(state.get(name, 0)) for name in _FIELDS]
        return cls(hold_id, bool(numbers[0]), bool(numbers[1]), *numbers[2:])


_FIELDS = tuple(field.name for field in fields(Progress))[1:]
_read_buckets = attrgetter(*_FIELDS[2:])


class Slot:
    """The place of one running call. Its owner is the call."""

    def __init__(self, journal: "Journal", number: int | None, hold_id: UUID) -> None:
        self._journal = journal
        self._number = number
        self._hold_id = hold_id.bytes

    def note(self, accepted: bool, reported: bool, usage: Usage) -> None:
        if self._number is None:
            return
        start = self._number * _SLOT.size
        _SLOT.pack_into(self._journal.memory, start, self._hold_id, accepted, reported, *_read_buckets(usage))

    def leave(self) -> None:
        """The call has ended and could not be settled. What is noted stays until it has been handed to the sweep."""
        if self._number is not None:
            self._journal.leave(self._number)
            self._number = None

    def clear(self) -> None:
        if self._number is not None:
            self._journal.free(self._number)
            self._number = None


class Journal:
    """The running calls of this process."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._left: list[int] = []

    def open_slot(self, hold_id: UUID) -> Slot:
        """A place for a call. When all are taken the call runs without one, and its hold ends by its lease."""
        slot = Slot(self, self._free.pop() if self._free else None, hold_id)
        slot.note(False, False, Progress(hold_id))
        return slot

    def free(self, number: int) -> None:
        start = number * _SLOT.size
        self.memory[start : start + _SLOT.size] = _EMPTY
        self._free.append(number)

    def leave(self, number: int) -> None:
        self._left.append(number)

    def running(self) -> list[Progress]:
        """What every running call has used by now."""
        left = {one.hold_id for one in self.left_behind()}
        taken = _SLOTS - len(self._free)
        return [one for one in _read_slots(self.memory, taken, _SLOT) if one.hold_id not in left] if taken else []

    def left_behind(self) -> list[Progress]:
        """The calls that ended and could not be settled."""
        return [_read_slot(self.memory, number) for number in self._left]

    def forget(self, left_behind: list[Progress]) -> None:
        """They have been handed to the sweep."""
        handed_over = {one.hold_id for one in left_behind}
        for number in list(self._left):
            if _read_slot(self.memory, number).hold_id in handed_over:
                self._left.remove(number)
                self.free(number)


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """This process's journal, in `folder`, which is made if need be, for our user alone. Raises JournalUnusable."""
    name = f"{_find_server()}-{os.getpid()}-{secrets.token_hex(4)}"
    unfinished, path = folder / f"{name}.new", folder / f"{name}{_SUFFIX}"
    with _open_unfinished(unfinished) as file:
        file.truncate(_SLOTS * _SLOT.size)
        fcntl.flock(file, fcntl.LOCK_EX)
        unfinished.rename(path)  # only now, locked, can another process see it
        with mmap.mmap(file.fileno(), 0) as memory:
            journal = Journal(memory)
            yield journal
            if not journal.running() and not journal.left_behind():
                path.unlink(missing_ok=True)


def _open_unfinished(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.open("x+b")
    except OSError as error:
        reason = f"JOURNAL_FOLDER {path.parent} cannot be written: {error.strerror}"
        raise JournalUnusable(reason) from error


def find_journals(folder: Path) -> list[Path]:
    """All journals in the folder, those of living processes too."""
    return sorted(path for suffix in _LAYOUTS for path in folder.glob(f"*{suffix}"))


def count_running(folder: Path) -> int:
    """The running calls of this process and of the other workers of its server. What they are is not told: their
    owners write while we look. Calls that a dead process left are not counted.
    """
    return sum(_count_taken(path) for path in folder.glob(f"{_find_server()}-*{_SUFFIX}"))


@contextmanager
def read_orphan(path: Path) -> Iterator[list[Progress]]:
    """The calls that a dead process left behind; none if the owner lives, or if somebody else is reading it.

    The journal is removed if the block ends well; else it stays for another try.
    """
    try:
        file = path.open("r+b")
    except OSError:
        yield []
        return
    with file:
        if not _is_ours(file) or not _lock_nowait(file) or os.fstat(file.fileno()).st_nlink == 0:
            yield []
            return
        yield list(_read_slots(file.read(), _SLOTS, _LAYOUTS[path.suffix]))
        path.unlink(missing_ok=True)


def _find_server() -> int:
    """The id of the process that started this one among its workers; without workers a process is its own server."""
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _count_taken(path: Path) -> int:
    try:
        file = path.open("r+b")
    except OSError:  # it has ended since
        return 0
    with file:
        return _count_slots(file.read()) if _is_ours(file) and not _lock_nowait(file, fcntl.LOCK_SH) else 0


def _count_slots(memory: bytes) -> int:
    """Most of a journal is a hole: blocks of zeros are not looked into."""
    blocks = (memory[start : start + len(_EMPTY_BLOCK)] for start in range(0, len(memory), len(_EMPTY_BLOCK)))
    taken = (list(_read_slots(block, _SLOTS, _SLOT)) for block in blocks if block != _EMPTY_BLOCK)
    return sum(len(slots) for slots in taken)


def _read_slots(memory: mmap.mmap | bytes, taken: int, slot: struct.Struct) -> Iterator[Progress]:
    for number in range(len(memory) // slot.size):
        if taken == 0:
            return
        hold_id, *rest = slot.unpack_from(memory, number * slot.size)
        if hold_id != _EMPTY[:16]:
            taken -= 1
            yield Progress(UUID(bytes=hold_id), *rest)


def _read_slot(memory: mmap.mmap, number: int) -> Progress:
    hold_id, *rest = _SLOT.unpack_from(memory, number * _SLOT.size)
    return Progress(UUID(bytes=hold_id), *rest)


def _is_ours(file: BinaryIO) -> bool:
    """In a folder that others can write, a file of theirs must not charge anybody."""
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _lock_nowait(file: BinaryIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
