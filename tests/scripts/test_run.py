"""./scripts/run from outside: from nothing to a streamed answer, and back to nothing, however it ends."""

import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest

from scripts.environment import PROJECT, read_settings
from storage.embedded import remove_servers
from tests.scripts.running import Run, curl_url, interrupt, new_folder, run, run_command


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    with new_folder() as folder:
        yield folder


def _assert_nothing_is_left(ended: Run, url: str) -> None:
    assert ended.processes() == []
    address = urlsplit(url)
    with socket.socket() as probe:
        assert probe.connect_ex((address.hostname or "", address.port or 0)) != 0


def test_the_printed_command_streams_a_chat_and_sigterm_ends_everything(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as started:
        line = started.wait_for_curl()
        answer = run_command(line)
        events = [piece for piece in answer.splitlines() if piece.startswith("data: ")]
        assert len(events) > 1
        assert events[-1] == "data: [DONE]"
        started.process.terminate()
        started.wait_for_end()
        _assert_nothing_is_left(started, curl_url(line))


def test_what_it_prints_last_leads_to_a_server_that_signs_people_in(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as started:
        url = started.wait_for_line(".venv/bin/python -m scripts.sign_in --url ").split()[-1]
        published = httpx2.get(f"{url}/local-issuer/.well-known/openid-configuration", trust_env=False).json()
        assert published["issuer"] == f"{url}/local-issuer/"
        assert read_settings(shared_folder)["SERVER_URL"] == url


def test_a_second_start_finds_the_data_of_the_first(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as started:
        started.wait_for_curl()
        with psycopg.connect(read_settings(shared_folder)["OWNER_DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        secret = read_settings(shared_folder)["JWT_SECRET"]
        interrupt(started)
        started.wait_for_end()
    with run(shared_folder, "--port", "0") as started:
        started.wait_for_curl()
        with psycopg.connect(read_settings(shared_folder)["OWNER_DATABASE_URL"]) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert read_settings(shared_folder)["JWT_SECRET"] == secret


def test_ctrl_c_ends_everything(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as started:
        line = started.wait_for_curl()
        interrupt(started)
        assert "Traceback" not in started.wait_for_end()
        _assert_nothing_is_left(started, curl_url(line))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_kill_nine_the_private_servers_and_the_workers_end_by_themselves(
    shared_folder: Path, workers: str
) -> None:
    with run(shared_folder, "--port", "0", "--workers", workers) as started:
        line = started.wait_for_curl()
        assert len(started.processes()) > 4
        started.process.kill()
        started.wait_for_end()
        _assert_nothing_is_left(started, curl_url(line))


def test_a_start_right_after_kill_nine_waits_until_the_first_has_cleared_up(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as first:
        first.wait_for_curl()
        keeper = first.keeper()
        keeper.suspend()
        first.process.kill()
        first.process.wait()
        with run(shared_folder, "--port", "0") as second:
            second.wait_for_line("scripts/run: waiting for the servers of the former run to stop")
            keeper.resume()
            first.wait_for_end()
            assert "[DONE]" in run_command(second.wait_for_curl())


def test_a_data_folder_serves_one_run_at_a_time(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as first:
        line = first.wait_for_curl()
        with run(shared_folder, "--port", "0") as second:
            assert f"another ./scripts/run uses {shared_folder}" in second.wait_for_end()
            assert second.process.returncode == 1
        assert "[DONE]" in run_command(line)


def test_a_port_in_use_is_said_before_anything_is_started() -> None:
    with new_folder() as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run(folder, "--port", str(port)) as started:
            assert f"cannot listen on 127.0.0.1:{port}" in started.wait_for_end()
            assert started.process.returncode == 1
        assert not folder.exists()


def test_killed_while_it_starts_it_leaves_nothing_running() -> None:
    with new_folder() as folder, run(folder, "--port", "0") as started:
        while not (folder / "postgres.new").exists() and started.process.poll() is None:
            os.sched_yield()
        started.process.send_signal(signal.SIGKILL)
        started.wait_for_end()
        assert started.processes() == []


def test_no_folder_above_changes_its_mode_or_owner() -> None:
    with tempfile.TemporaryDirectory() as closed:
        before = _modes(Path(closed))
        data = Path(closed) / "data"
        with run(data, "--port", "0") as started:
            started.wait_for_curl()
            started.process.terminate()
            started.wait_for_end()
        assert _modes(Path(closed)) == before
        remove_servers(data)


def test_what_it_writes_down_is_for_its_user_alone(shared_folder: Path) -> None:
    with run(shared_folder, "--port", "0") as started:
        started.wait_for_curl()
    assert stat.S_IMODE((shared_folder / "environment").stat().st_mode) == 0o600
    assert len(bytes.fromhex(read_settings(shared_folder)["JWT_SECRET"])) == 32


def test_an_unsuitable_python_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "prepare").write_bytes((PROJECT / "scripts" / "prepare").read_bytes())
    (tmp_path / "requirements.lock").touch()
    argv = ["/bin/sh", str(tmp_path / "scripts" / "prepare"), "requirements.lock"]
    done = subprocess.run(argv, env={"PYTHON": "/bin/false"}, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert done.returncode == 1
    assert done.stderr == "scripts/prepare: PYTHON=/bin/false is not a Python 3.11 or later\n"


def _modes(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in (folder, *folder.parents)}
