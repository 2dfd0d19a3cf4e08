"""The steps of scripts.serve one by one; tests/scripts/test_run.py shows them together."""

import socket
from pathlib import Path

import pytest

from scripts.environment import read_settings
from scripts.serve import (
    NEEDED_IN_PRODUCTION,
    SECRETS,
    CannotServe,
    Options,
    find_port,
    hold_data_folder,
    make_settings,
    read_options,
    refuse_half_a_production,
)
from server.config import read_config

URL = "http://127.0.0.1:8080"


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


def test_secrets_are_made_once_and_of_32_bytes(tmp_path: Path) -> None:
    first = make_settings(tmp_path, False, URL)
    assert {len(bytes.fromhex(first[name])) for name in SECRETS} == {32}
    assert len({first[name] for name in SECRETS}) == len(SECRETS)
    assert make_settings(tmp_path, False, URL) == first == read_settings(tmp_path)


def test_what_has_been_made_suits_the_server(tmp_path: Path) -> None:
    stores = {"DATABASE_URL": "postgresql://somewhere/x", "REDIS_URL": "redis://somewhere"}
    config = read_config(make_settings(tmp_path, False, URL) | stores, {})
    assert config.sign_in.refresh_token_key is not None
    assert config.sign_in.callback_urls == (f"{URL}/auth/auth0/callback",)


def test_where_we_serve_is_written_down_unless_somebody_knows_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(tmp_path, False, URL)
    assert read_settings(tmp_path)["SERVER_URL"] == URL
    monkeypatch.setenv("SERVER_URL", "https://api.example.com")
    make_settings(tmp_path, False, URL)
    assert read_settings(tmp_path)["SERVER_URL"] == "https://api.example.com"


def test_production_invents_nothing_and_leaves_what_development_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = make_settings(tmp_path, False, URL)
    monkeypatch.setenv("ENVIRONMENT", "Production")
    assert make_settings(tmp_path, False, "http://127.0.0.1:1") == {"SERVER_URL": "http://127.0.0.1:1"}
    assert read_settings(tmp_path) == written


def test_a_production_without_its_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NEEDED_IN_PRODUCTION:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    with pytest.raises(CannotServe, match="not set: REDIS_URL, JWT_SECRET, API_KEY_HASH_SECRET, AUDIT_HMAC_SECRET"):
        refuse_half_a_production()
