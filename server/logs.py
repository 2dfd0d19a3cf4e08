"""Logs: one JSON object a line, a constant sentence and its values. Never prompts, tokens, keys or request bodies."""

import json
import logging
import select
import sys
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from server.circumstances import circumstances

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """What was given as `extra` stands beside the sentence, then the request at hand and its user; a traceback is one
    string.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        _add_circumstances(line)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


class Collector(logging.StreamHandler[TextIO]):
    """Drops lines, and counts them in the next, rather than wait for whoever collects them and does not read: one write
    that waits stops every stream of the process. A pipe that is ready takes 4096 bytes at once (man 7 pipe); only a
    longer line, which is a traceback, may have to wait.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._readiness = _watch(stream)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_ready():
            self._dropped += 1
            return
        if self._dropped:
            record.dropped_lines = self._dropped
            self._dropped = 0
        super().emit(record)

    def _is_ready(self) -> bool:
        """A pipe without a reader takes writes too, and fails."""
        if self._readiness is None:
            return True
        return [event for _, event in self._readiness.poll(0)] == [select.POLLOUT]


def set_up_logs(level: str) -> None:
    """Everything goes to stderr, for whoever runs the process to collect. Hypercorn writes its own lines there. HPACK
    would write every header of HTTP/2 on the way in and out, our callers' credentials and push tokens with them.
    """
    handler = Collector(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("hypercorn").propagate = False
    logging.getLogger("hpack").setLevel(logging.WARNING)


def _add_circumstances(line: dict[str, object]) -> None:
    at_hand = circumstances()
    if at_hand.request_id:
        line["request_id"] = at_hand.request_id
    if at_hand.user_id:
        line["user_id"] = at_hand.user_id


def _encode(line: dict[str, object]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError):  # odd keys, half a surrogate pair, a number that is too large
        return json.dumps(line, default=str)


def _watch(stream: TextIO) -> "select.poll | None":  # select.poll is a class for type checkers alone
    """None where the stream is no file, as in tests."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return None
    readiness = select.poll()
    readiness.register(number, select.POLLOUT)
    return readiness
