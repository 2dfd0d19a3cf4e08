"""What stays beside a served process; tests/scripts/test_run.py shows it at work."""

import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts import keeper
from scripts.environment import write_settings
from scripts.keeper import (
    Served,
    announcement,
    curl_command,
    end_marked,
    marked_processes,
    reachable_url,
    read_served,
    wait_until_ready,
)


class _Health(http.server.BaseHTTPRequestHandler):
    """Answers 503 once, then 200."""

    answers: Iterator[int]

    def do_GET(self) -> None:
        self.send_response(next(self.answers, 200) if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)


@contextmanager
def _served() -> Iterator[Served]:
    _Health.answers = iter([503])
    with http.server.HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served("0.0.0.0", server.server_port, os.getpid(), "mark")  # noqa: S104  # as it was typed
        server.shutdown()
        thread.join()


def test_the_printed_command_says_what_it_should_after_a_shell_has_read_it() -> None:
    words = shlex.split(curl_command("http://127.0.0.1:1", {"Authorization": "Bearer it's", "X-Device-ID": "$HOME"}))
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:1/v1/chat/completions"]
    assert {"Authorization: Bearer it's", "X-Device-ID: $HOME", "Content-Type: application/json"} < set(words)
    assert json.loads(words[-1])["stream"] is True


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),  # noqa: S104  # as it was typed
        ("::", "http://[::1]:1"),
        ("api.example.com", "http://api.example.com:1"),
    ],
)
def test_a_server_is_named_as_this_machine_reaches_it(host: str, url: str) -> None:
    assert reachable_url(host, 1) == url


@pytest.mark.parametrize(
    ("settings", "url"), [({}, "http://127.0.0.1:1"), ({"SERVER_URL": "http://own:2"}, "http://own:2")]
)
def test_the_announcement_ends_with_how_to_sign_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], url: str
) -> None:
    write_settings(tmp_path, settings)
    monkeypatch.setenv("CLOCHE_DATA", str(tmp_path))
    monkeypatch.setattr(keeper, "first_headers", dict)
    lines = announcement(Served("0.0.0.0", 1, 1, "mark")).splitlines()  # noqa: S104  # as it was typed
    assert lines[-1] == f".venv/bin/python -m scripts.sign_in --url {url}"


def test_a_server_is_ready_once_health_answers_200() -> None:
    with _pipe() as (reader, writer), _served() as served:
        assert wait_until_ready(served, reader)
        os.close(writer)


def test_a_process_that_ends_is_not_waited_for() -> None:
    with _pipe() as (reader, writer):
        os.close(writer)
        assert not wait_until_ready(Served("127.0.0.1", 1, os.getpid(), "mark"), reader)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "READY_TIMEOUT_SECONDS", 0.2)
    with _pipe() as (reader, writer):
        assert not wait_until_ready(Served("127.0.0.1", 1, os.getpid(), "mark"), reader)
        os.close(writer)


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_the_order_is_read_whole_or_not_at_all(cut: int) -> None:
    served = Served("127.0.0.1", 8080, 1, "mark")
    line = b'{"host": "127.0.0.1", "port": 8080, "pid": 1, "mark": "mark"}\n'
    with _pipe() as (reader, writer):
        os.write(writer, line[:cut])
        thread = threading.Timer(0.05, os.write, (writer, line[cut:]))
        thread.start()
        assert read_served(reader) == served
        thread.join()
        os.close(writer)
    with _pipe() as (reader, writer):
        os.write(writer, line[:cut])
        os.close(writer)
        assert read_served(reader) is None


def test_workers_that_ignore_being_asked_are_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "WORKER_GRACE_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    environment = os.environ | {"CLOCHE_RUN_MARK": "of-this-test"}
    argv = [sys.executable, "-c", deaf]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as worker:  # noqa: S603  # our own
        assert worker.stdout is not None
        worker.stdout.readline()
        end_marked("of-this-test")
        assert list(marked_processes("of-this-test")) == []
