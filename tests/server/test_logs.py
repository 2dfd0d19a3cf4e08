"""Lines that a machine can read, which tell whose request they are about, and never hold up a stream."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextvars import copy_context
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from hpack import Encoder

from server.circumstances import Circumstances, set_circumstances
from server.logs import Collector, JsonLines, set_up_logs


def show(**record: object) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(JsonLines().format(logging.makeLogRecord(record)))
    return line


def show_in_request(circumstances: Circumstances, **record: object) -> dict[str, Any]:
    def format_there() -> dict[str, Any]:
        set_circumstances(circumstances)
        return show(**record)

    return copy_context().run(format_there)


def test_a_line_has_the_sentence_and_its_values() -> None:
    line = show(name="cloche", levelname="WARNING", msg="a sentence", calls=7)
    assert (line["message"], line["level"], line["logger"]) == ("a sentence", "WARNING", "cloche")
    assert line["calls"] == 7
    assert line["time"].endswith("+00:00")


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["traceback"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (UUID(int=1), str(UUID(int=1))),
        (Decimal("1.50"), "1.50"),
        ("é\n\x00", "é\n\x00"),
        ("\ud800", "\ud800"),
        (10**30, 10**30),
        (ValueError("x"), "x"),
        (float("nan"), None),
    ],
    ids=repr,
)
def test_no_value_is_too_odd_for_a_line(value: object, shown: object) -> None:
    assert show(msg="odd", value=value)["value"] == shown


def test_headers_of_http2_come_into_no_log(bare_logs: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("DEBUG")
    Encoder().encode([("authorization", "Bearer abc")])
    bare_logs.debug("the end")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["the end"]


# Whose request it is


def test_a_line_names_the_request_at_hand_and_its_user() -> None:
    line = show_in_request(Circumstances("req-1", "203.0.113.9", "agent", "user-1"), msg="x")
    assert (line["request_id"], line["user_id"]) == ("req-1", "user-1")
    assert not {"address", "user_agent"} & set(line)


def test_outside_of_any_request_there_is_nobody_to_name() -> None:
    assert not {"request_id", "user_id"} & set(show(msg="x"))


# Whoever collects the lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, Any]]:
    """Where lines come out, and where they go in."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def emit(collector: Collector, text: str) -> None:
    collector.emit(logging.makeLogRecord({"msg": text}))


def test_a_collector_that_does_not_read_costs_lines_and_no_time(pipe: tuple[int, Any]) -> None:
    reading, stream = pipe
    collector = Collector(stream)
    collector.setFormatter(JsonLines())
    for _ in range(100):  # the first to wait would wait for ever
        emit(collector, "x" * 500)
    assert b"dropped_lines" not in os.read(reading, 65536)
    emit(collector, "y")
    line = json.loads(os.read(reading, 65536))
    assert (line["message"], line["dropped_lines"]) == ("y", 99)
    emit(collector, "z")
    assert b"dropped_lines" not in os.read(reading, 65536)


def test_a_collector_that_has_gone_is_not_written_to(pipe: tuple[int, Any]) -> None:
    reading, stream = pipe
    collector = Collector(stream)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reading)
    os.close(null)
    emit(collector, "x")
    assert stream.closed is False


def test_a_stream_that_is_no_file_is_written_to() -> None:
    stream = StringIO()
    emit(Collector(stream), "x")
    assert stream.getvalue() == "x\n"
