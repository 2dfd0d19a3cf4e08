"""Lines that a machine can read."""

import json
import logging

from server.logs import JsonLines


def test_a_line_has_the_sentence_and_its_values() -> None:
    record = logging.makeLogRecord({"name": "cloche", "levelname": "WARNING", "msg": "a sentence", "request_id": 7})
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["level"], line["logger"]) == ("a sentence", "WARNING", "cloche")
    assert line["request_id"] == 7
    assert line["time"].endswith("+00:00")


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["traceback"]
