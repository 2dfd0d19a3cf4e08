"""What a watcher asks for, and frames as lines of text/event-stream, read back as a browser does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from server.errors import RequestInvalid
from server.relay.event_lines import GAP, WatchWish, read_texts, read_wish, write_event, write_lines
from server.websocket_frames import build_binary, build_ping, build_text

EVENT = b'{"type":"event","payload":{"eventType":"job:created","payload":{"a":1}},"timestamp":"x","eventId":17}'


def read_stream(stream: bytes) -> list[dict[str, str]]:
    """As https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation has it."""
    found = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        found.append(fields)
    return found


def test_an_event_has_its_id_and_its_type_and_is_told_as_it_was_written() -> None:
    assert write_event(EVENT) == b"id: 17\nevent: job:created\ndata: " + EVENT + b"\n\n"


def test_what_has_no_id_changes_nobodys_last_id() -> None:
    told = b'{"type":"event","payload":{"eventType":"device-status","payload":{}}}'
    assert write_event(told) == b"event: device-status\ndata: " + told + b"\n\n"
    heartbeat = b'{"type":"heartbeat","userId":"u"}'
    assert write_event(heartbeat) == b"data: " + heartbeat + b"\n\n"


def test_line_ends_that_a_device_wrote_begin_no_other_event() -> None:
    hostile = b'{"type":"event",\r\n"payload":{"eventType":"a\\n\\ndata: no","payload":1},\r"eventId":3}\n'
    (event,) = read_stream(write_event(hostile))
    assert event["event"] == "a  data: no"
    assert json.loads(event["data"]) == json.loads(hostile)


@given(st.lists(st.binary(max_size=300) | st.just(b"x" * 70_000), max_size=6))
def test_every_text_comes_out_of_the_frames_that_it_went_into(texts: list[bytes]) -> None:
    frames = b"".join(build_ping(b"heartbeat") + build_text(text) + build_binary(text) for text in texts)
    assert list(read_texts(frames)) == texts


def test_pings_are_not_told() -> None:
    assert write_lines(build_ping(b"heartbeat")) == b""
    assert write_lines(build_text(EVENT) + build_ping(b"") + build_text(EVENT)) == write_event(EVENT) * 2


def test_without_a_word_all_types_are_wanted_and_nothing_is_replayed() -> None:
    wish = read_wish({}, Headers())
    assert wish == WatchWish()
    assert wish.wants("anything")


def test_types_are_a_list_and_a_gap_is_always_told() -> None:
    wish = read_wish({"types": "balance-changed, device-status,,"}, Headers())
    asked = ["balance-changed", "device-status", GAP, "job:created", ""]
    assert [wish.wants(name) for name in asked] == [True, True, True, False, False]


def test_the_header_counts_more_than_the_query() -> None:
    assert read_wish({"lastEventId": "7"}, Headers()).last_event_id == 7
    assert read_wish({"lastEventId": "7"}, Headers({"Last-Event-ID": "9"})).last_event_id == 9
    assert read_wish({"lastEventId": "0"}, Headers()).last_event_id == 0


@pytest.mark.parametrize("text", ["-1", "x", "1.0", "٣", "9007199254740992", "1" * 400])
def test_what_is_no_id_of_an_event_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="lastEventId"):
        read_wish({"lastEventId": text}, Headers())


@pytest.mark.parametrize("types", ["a" * 4001, "," * 100])
def test_too_many_types_are_refused(types: str) -> None:
    with pytest.raises(RequestInvalid, match="types"):
        read_wish({"types": types}, Headers())
