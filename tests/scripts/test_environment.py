"""Settings written by ./scripts/run and read by the other commands."""

import os
from pathlib import Path

import pytest

from scripts.environment import data_folder, read_environment, read_settings, write_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOCHE_DATA", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    return tmp_path


def test_what_was_written_is_read_back(folder: Path) -> None:
    settings = {"DATABASE_URL": "postgresql://a@/b?host=/c d", "JWT_SECRET": "x=y"}
    write_settings(folder, settings)
    assert read_settings(folder) == settings


def test_what_is_set_wins_over_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings(folder, {"REDIS_URL": "written", "JWT_SECRET": "written"})
    monkeypatch.setenv("REDIS_URL", "set")
    monkeypatch.setenv("JWT_SECRET", "")
    assert read_environment()["REDIS_URL"] == "set"
    assert read_environment()["JWT_SECRET"] == "written"


def test_without_a_file_the_environment_is_all(folder: Path) -> None:
    assert read_environment() == {name: value for name, value in os.environ.items() if value}


def test_a_file_that_others_can_read_or_write_is_not_trusted(folder: Path) -> None:
    write_settings(folder, {"REDIS_URL": "written"})
    (folder / "environment").chmod(0o620)
    assert read_settings(folder) == {}


def test_the_data_folder_is_in_the_project_unless_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert data_folder() == folder
    monkeypatch.delenv("CLOCHE_DATA")
    assert data_folder() == Path(__file__).resolve().parents[2] / ".data"
