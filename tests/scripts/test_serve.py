"""The steps of scripts.serve one by one; tests/scripts/test_run.py shows them together."""

import socket
from pathlib import Path

import pytest

from scripts.environment import read_settings
from scripts.serve import (
    CannotServe,
    Options,
    find_port,
    hold_data_folder,
    make_settings,
    read_options,
    refuse_half_a_production,
)


def test_the_command_line_has_defaults() -> None:
    assert read_options([]) == Options(host="127.0.0.1", port=8080, workers=None)
    assert read_options(["--port", "1", "--host", "::1", "--workers", "2"]) == Options("::1", 1, 2)


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=f"127.0.0.1:{port} .*--port"):
            find_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(CannotServe, match="--port"):
        find_port("127.0.0.1", port)


def test_port_zero_becomes_a_free_one() -> None:
    port = find_port("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_data_folder_is_held_once(tmp_path: Path) -> None:
    hold_data_folder(tmp_path)
    with pytest.raises(CannotServe, match=str(tmp_path)):
        hold_data_folder(tmp_path)


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    first = make_settings(tmp_path, is_private=False)
    assert len(bytes.fromhex(first["JWT_SECRET"])) == 32
    assert make_settings(tmp_path, is_private=False) == first == read_settings(tmp_path)


def test_a_production_without_its_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("JWT_SECRET", raising=False)
    with pytest.raises(CannotServe, match="not set: REDIS_URL, JWT_SECRET"):
        refuse_half_a_production()
