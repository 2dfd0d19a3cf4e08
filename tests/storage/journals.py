"""A process of its own that keeps a journal, and can be killed."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from storage.journal import Progress

PROJECT = Path(__file__).resolve().parent.parent.parent

WRITER = """
import sys
from pathlib import Path
from uuid import UUID
from storage.journal import Progress, open_journal

with open_journal(Path(sys.argv[1])) as journal:
    for words in sys.argv[2:]:
        id_, *numbers = words.split(",")
        accepted, reported, *tokens = map(int, numbers)
        slot = journal.open_slot(UUID(id_))
        slot.note(bool(accepted), bool(reported), Progress(UUID(id_), True, True, *tokens))
    print("written", flush=True)
    sys.stdin.read()
"""


@contextmanager
def journal_process(folder: Path, calls: Sequence[Progress]) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs these calls until it is killed, or its standard input is closed; killed at the end of the block."""
    words = [",".join([str(one.hold_id), *(str(int(number)) for number in astuple(one)[1:])]) for one in calls]
    process = subprocess.Popen(  # noqa: S603 # our own interpreter
        [sys.executable, "-c", WRITER, str(folder), *words],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        yield process
        process.kill()


def leave_journal(folder: Path, calls: Sequence[Progress]) -> None:
    """What `kill -9` of a process with these calls leaves."""
    with journal_process(folder, calls) as process:
        process.kill()
