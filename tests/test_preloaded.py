"""What is started without importing is what `python -m` would have started."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from typing import IO

import pytest

from tests.preloaded import Preloader, Process, start_preloader

END_SECONDS = 20
Start = Callable[..., Process]


@pytest.fixture
def printed() -> Iterator[IO[bytes]]:
    with TemporaryFile() as file:
        yield file


@pytest.fixture
def start(printed: IO[bytes]) -> Start:
    """`python -m timeit` runs a statement once. What it prints goes to `printed`."""

    def start_one(
        statement: str, preloader: Preloader | None = None, *, is_strict: bool = False, **environment: str
    ) -> Process:
        words = ["timeit", "-n", "1", "-r", "1", statement]
        target = printed.fileno()
        return (preloader or start_preloader()).start(words, environment, target, target, is_strict=is_strict)

    return start_one


def read(printed: IO[bytes]) -> str:
    return os.pread(printed.fileno(), 1 << 20, 0).decode()


def test_it_has_the_words_and_the_environment_that_it_was_given_and_no_others(start: Start, printed: IO[bytes]) -> None:
    statement = "import os, sys; print(sys.argv[1:3], dict(os.environ), __name__)"
    assert start(statement, COLOUR="blue").wait(END_SECONDS) == 0
    assert read(printed).startswith("['-n', '1'] {'COLOUR': 'blue'} __main__\n")


def test_nothing_is_open_in_it_but_what_every_process_has(start: Start, printed: IO[bytes]) -> None:
    """The fourth is the folder's, which lists them."""
    assert start("import os; print(os.listdir('/proc/self/fd'))").wait(END_SECONDS) == 0
    assert read(printed).startswith("['0', '1', '2', '3']\n")


def test_it_answers_signals_as_python_does(start: Start, printed: IO[bytes]) -> None:
    statement = (
        "import signal as s; names = (s.SIGINT, s.SIGTERM, s.SIGCHLD);"
        "print([getattr(s.getsignal(name), '__name__', 'default') for name in names], s.set_wakeup_fd(-1))"
    )
    assert start(statement).wait(END_SECONDS) == 0
    assert read(printed).startswith("['default_int_handler', 'default', 'default'] -1\n")


@pytest.mark.parametrize(("is_strict", "status"), [(True, 1), (False, 0)])
def test_a_warning_is_an_error_if_it_is_to_be(start: Start, printed: IO[bytes], is_strict: bool, status: int) -> None:
    process = start("import warnings; warnings.warn('out of date')", is_strict=is_strict)
    assert process.wait(END_SECONDS) == status
    assert "UserWarning: out of date" in read(printed)


def test_its_status_is_told(start: Start) -> None:
    assert start("import os; os._exit(7)").wait(END_SECONDS) == 7


def test_what_a_signal_ends_is_told_as_subprocess_does(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(END_SECONDS) == -signal.SIGKILL
    assert process.poll() == -signal.SIGKILL
    process.kill()  # of nobody: its id may be another's by now


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_one_that_nobody_waits_for_disturbs_no_other(start: Start) -> None:
    preloader = Preloader()
    start("import time; time.sleep(0.05)", preloader)  # forgotten, and what it would be told by with it
    other = start("import os, time; time.sleep(0.2); os._exit(7)", preloader)
    assert other.wait(END_SECONDS) == 7
    preloader.close()


def test_all_that_runs_ends_with_who_has_started_it(start: Start) -> None:
    preloader = Preloader()
    process = start("import time; time.sleep(60)", preloader)
    preloader.close()
    with pytest.raises(ChildProcessError):
        process.wait(END_SECONDS)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
