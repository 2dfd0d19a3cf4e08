"""Where the private servers live, decided without starting them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL

import pytest

from storage.embedded_home import (
    choose_sockets_folder,
    locked_home,
    reachable_program,
    remove_home,
    remove_sockets_folder,
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may walk through, as /srv is; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_new_data_folder_cannot_be_listed_by_others(open_folder: Path) -> None:
    before = os.umask(0)
    try:
        with locked_home(open_folder / "data") as (home, _):
            assert home.folder == open_folder / "data"
    finally:
        os.umask(before)
    assert not (open_folder / "data").stat().st_mode & 0o066


def test_a_strict_umask_is_no_obstacle(open_folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with locked_home(open_folder / "data") as (home, _):
            assert home.folder == open_folder / "data"
            enter = ["/bin/sh", "-c", 'cd "$1"', "sh", str(home.own_folder("postgres"))]
            assert home.run(enter, stdout=DEVNULL, stderr=DEVNULL).returncode == 0
    finally:
        os.umask(before)


def test_a_folder_that_exists_keeps_its_mode(open_folder: Path) -> None:
    (open_folder / "data").mkdir()
    (open_folder / "data").chmod(0o750)
    with locked_home(open_folder / "data"):
        pass
    assert stat.S_IMODE((open_folder / "data").stat().st_mode) == 0o750
    remove_home(open_folder / "data")


def test_what_a_deleted_data_folder_left_elsewhere_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    data = tmp_path / "closed" / "data"
    with locked_home(data) as (home, _):
        (home.folder / "leftover").touch()
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    with locked_home(data) as (home, _):
        assert not (home.folder / "leftover").exists()
        assert home.folder == data or (data / "elsewhere").read_text().strip() == str(home.folder)
    remove_home(data)
    assert not home.folder.exists()


def test_sockets_are_beside_the_data_if_the_path_is_short_and_plain(open_folder: Path) -> None:
    with locked_home(open_folder / "data") as (home, _):
        assert choose_sockets_folder(home) == open_folder / "data" / "sockets"


@pytest.mark.parametrize("name", ["with space", "with,comma", "x" * 100])
def test_sockets_find_another_place_for_as_long_as_they_are_needed(open_folder: Path, name: str) -> None:
    with locked_home(open_folder / name) as (home, _):
        sockets = choose_sockets_folder(home)
        assert len(str(sockets)) < 90
        assert sockets == choose_sockets_folder(home)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert sockets.stat().st_uid == home.account.pw_uid
        remove_sockets_folder(home)
        assert not sockets.exists()


def test_a_program_that_the_account_cannot_reach_is_copied(open_folder: Path) -> None:
    program = open_folder / "closed" / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o700)
    (open_folder / "closed").chmod(0o700)
    with locked_home(open_folder / "data") as (home, _):
        reached = reachable_program(home, open_folder / "closed", "bin/program", ("bin",))
        assert home.run([str(reached)], stdout=DEVNULL, stderr=DEVNULL).returncode == 0
    assert stat.S_IMODE((open_folder / "closed").stat().st_mode) == 0o700


def test_what_the_account_may_read_others_may_not(open_folder: Path) -> None:
    with locked_home(open_folder / "data") as (home, _):
        written = home.write("secret", "words")
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
        assert written.stat().st_uid == home.account.pw_uid
        assert home.write("secret", "others").read_text() == "others"
