"""Requests on one HTTP/2 connection: every ending of a stream and of the connection, frame by frame."""

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PushPromiseFrame
from hypothesis import given
from hypothesis import strategies as st

from server.push.apns_streams import (
    MAX_BODY_BYTES,
    MAX_TRIES,
    Answered,
    ApnsStreams,
    ConnectionBroken,
    Exchange,
    Unanswered,
)
from tests.server.push.http2_memory import HEADERS, MemoryPeer

MAX_STREAM_ID = 2**31 - 1
PROMISED = Encoder().encode((*HEADERS[1:], (":method", "GET")))


@pytest.fixture
def peer() -> MemoryPeer:
    """One that has said how many streams it allows."""
    peer = MemoryPeer()
    peer.talk()
    return peer


def test_nothing_is_sent_before_the_peer_has_said_how_many_streams_it_allows() -> None:
    peer = MemoryPeer(max_streams=1)
    assert not peer.has_room()
    peer.talk()
    assert peer.has_room()


def test_a_request_goes_out_and_its_answer_comes_back(peer: MemoryPeer) -> None:
    exchange = peer.start(b'{"aps":{}}')
    assert (peer.heads[1], peer.requests[1], peer.whole) == (list(HEADERS), b'{"aps":{}}', [1])
    assert not exchange.ended.is_set()
    peer.answer(1, "410", b'{"reason":"Unregistered"}')
    assert exchange.result == Answered(410, {"apns-id": "x"}, b'{"reason":"Unregistered"}')
    assert exchange.ended.is_set()
    assert (peer.streams.open_streams, peer.streams.has_answered) == (0, True)


def test_answers_come_in_any_order(peer: MemoryPeer) -> None:
    exchanges = [peer.start() for _ in range(3)]
    for stream_id, status in ((5, "200"), (1, "400"), (3, "503")):
        peer.answer(stream_id, status)
    assert [exchange.result for exchange in exchanges] == [
        Answered(status, {"apns-id": "x"}, b"") for status in (400, 503, 200)
    ]


def test_no_more_streams_are_open_than_the_peer_allows() -> None:
    peer = MemoryPeer(max_streams=1)
    peer.talk()
    peer.start()
    assert not peer.has_room()
    peer.answer(1)
    assert peer.has_room()
    peer.set(SettingCodes.MAX_CONCURRENT_STREAMS, 3)
    for _ in range(3):
        peer.start()
    assert not peer.has_room()


def test_a_peer_may_close_for_a_while(peer: MemoryPeer) -> None:
    peer.set(SettingCodes.MAX_CONCURRENT_STREAMS, 0)
    assert not peer.has_room()
    peer.set(SettingCodes.MAX_CONCURRENT_STREAMS, 1)
    assert peer.has_room()


def test_a_body_waits_for_the_streams_window() -> None:
    peer = MemoryPeer(window=10)
    peer.talk()
    exchange = peer.start(b"x" * 25)
    assert (peer.requests[1], peer.whole) == (b"x" * 10, [])
    peer.grant(10, stream_id=1)
    assert peer.requests[1] == b"x" * 20
    peer.grant(10, stream_id=1)
    assert (peer.requests[1], peer.whole) == (b"x" * 25, [1])
    peer.answer(1)
    assert isinstance(exchange.result, Answered)


def test_bodies_wait_for_the_connections_window(peer: MemoryPeer) -> None:
    for _ in range(3):
        peer.start(b"x" * 30_000)
    assert [len(body) for body in peer.requests.values()] == [30_000, 30_000, 5_535]
    peer.grant(30_000)
    assert peer.whole == [1, 3, 5]


def test_a_window_that_was_taken_back_below_zero_is_waited_for(peer: MemoryPeer) -> None:
    peer.start(b"x" * 60_000)
    peer.set(SettingCodes.INITIAL_WINDOW_SIZE, 0)
    exchange = peer.start(b"{}")
    assert peer.requests[3] == b""
    peer.set(SettingCodes.INITIAL_WINDOW_SIZE, 65_535)
    assert peer.requests[3] == b"{}"
    assert not exchange.ended.is_set()


def test_what_is_received_is_acknowledged_so_that_the_peer_can_go_on(peer: MemoryPeer) -> None:
    exchange = peer.start()
    peer.answer(1, "400", b"x" * 10_000, is_whole=False)
    for _ in range(20):
        peer.send_more(1, b"x" * 10_000)
    peer.send_more(1, b"", is_whole=True)
    assert isinstance(exchange.result, Answered)
    assert exchange.result.body == b"x" * MAX_BODY_BYTES


def test_an_answer_before_the_whole_body_counts_and_frees_the_stream() -> None:
    peer = MemoryPeer(window=1)
    peer.talk()
    exchange = peer.start(b"{}")
    peer.answer(1, "413")
    assert isinstance(exchange.result, Answered)
    assert peer.resets == {1: ErrorCodes.CANCEL}
    assert peer.streams.open_streams == 0


def test_interim_answers_are_not_the_answer(peer: MemoryPeer) -> None:
    exchange = peer.start()
    peer.inform(1)
    peer.answer(1)
    assert isinstance(exchange.result, Answered)
    assert exchange.result.status == 200


def test_a_request_that_is_called_off_is_reset_and_no_other_is(peer: MemoryPeer) -> None:
    called_off, other = peer.start(), peer.start()
    peer.streams.cancel(called_off)
    peer.talk()
    assert peer.resets == {1: ErrorCodes.CANCEL}
    peer.answer(3)
    assert isinstance(other.result, Answered)
    assert not called_off.ended.is_set()


def test_an_answer_that_crosses_the_calling_off_breaks_nothing(peer: MemoryPeer) -> None:
    called_off, other = peer.start(), peer.start()
    peer.streams.cancel(called_off)
    peer.answer(1, "400", b"late")
    peer.answer(3)
    assert isinstance(other.result, Answered)
    assert not called_off.ended.is_set()


def test_a_stream_that_was_refused_is_to_be_sent_again(peer: MemoryPeer) -> None:
    exchange = peer.start()
    peer.reset(1, ErrorCodes.REFUSED_STREAM)
    assert peer.streams.take_refused() == [exchange]
    assert peer.streams.take_refused() == []
    assert not exchange.ended.is_set()


def test_a_request_that_is_refused_again_and_again_ends(peer: MemoryPeer) -> None:
    exchange = peer.start()
    for number in range(MAX_TRIES):
        peer.reset(2 * number + 1, ErrorCodes.REFUSED_STREAM)
        if peer.streams.take_refused():
            assert peer.streams.start(exchange)
            peer.talk()
    assert exchange.result == Unanswered("the stream was refused")
    assert exchange.ended.is_set()


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.NO_ERROR, 4711])
def test_of_a_stream_that_was_reset_nobody_knows_whether_it_arrived(peer: MemoryPeer, code: int) -> None:
    exchange = peer.start()
    peer.reset(1, code)
    assert isinstance(exchange.result, Unanswered)
    assert exchange.ended.is_set()
    assert peer.streams.take_refused() == []


def test_a_push_that_was_accepted_stays_so_if_its_stream_is_reset(peer: MemoryPeer) -> None:
    exchange = peer.start()
    peer.answer(1, is_whole=False)
    peer.reset(1, ErrorCodes.INTERNAL_ERROR)
    assert isinstance(exchange.result, Answered)


def test_a_refusal_without_its_reason_does_not_count(peer: MemoryPeer) -> None:
    exchange = peer.start()
    peer.answer(1, "400", is_whole=False)
    peer.reset(1, ErrorCodes.INTERNAL_ERROR)
    assert isinstance(exchange.result, Unanswered)


def test_a_farewell_gives_back_what_was_not_looked_at_and_lets_the_rest_end(peer: MemoryPeer) -> None:
    first, second, third = (peer.start() for _ in range(3))
    peer.go_away(last=3)
    assert peer.streams.take_refused() == [third]
    assert (peer.has_room(), peer.streams.open_streams) == (False, 2)
    peer.answer(3)
    peer.answer(1, "410", b"{}")
    assert isinstance(first.result, Answered)
    assert isinstance(second.result, Answered)
    assert peer.streams.is_done
    assert peer.streams.why == "Shutdown"


def test_a_farewell_may_come_in_two_steps(peer: MemoryPeer) -> None:
    """https://www.rfc-editor.org/rfc/rfc9113#section-6.8-9: first it says that there will be one."""
    exchanges = [peer.start() for _ in range(2)]
    peer.go_away(last=MAX_STREAM_ID)
    assert peer.streams.take_refused() == []
    peer.go_away(last=1)
    assert peer.streams.take_refused() == [exchanges[1]]


def test_a_farewell_without_a_reason_has_its_codes_name(peer: MemoryPeer) -> None:
    peer.go_away(last=0, code=ErrorCodes.ENHANCE_YOUR_CALM, body=b"\xff")
    assert peer.streams.why == "ENHANCE_YOUR_CALM"


def test_pings_are_answered_also_after_a_farewell(peer: MemoryPeer) -> None:
    peer.ping()
    peer.start()
    peer.go_away(last=1)
    peer.ping()
    assert peer.ping_answers == 2


def test_a_connection_without_stream_numbers_left_retires() -> None:
    class Worn(H2Connection):
        HIGHEST_ALLOWED_STREAM_ID = 1

    peer = MemoryPeer()
    peer.streams._h2.__class__ = Worn  # two billion requests would take a week
    peer.talk()
    first, second = peer.start(), Exchange(HEADERS, b"{}")
    assert not peer.streams.start(second)
    assert (second.tries, peer.streams.is_retiring) == (0, True)
    peer.answer(1)
    assert isinstance(first.result, Answered)
    assert peer.streams.is_done


def test_a_connection_that_is_gone_leaves_its_requests_unanswered(peer: MemoryPeer) -> None:
    answered, open_ = peer.start(), peer.start()
    peer.answer(1)
    peer.streams.abandon("it was cut")
    assert isinstance(answered.result, Answered)
    assert open_.result == Unanswered("it was cut")
    assert peer.streams.is_done
    peer.streams.cancel(open_)


@pytest.mark.parametrize(
    "frames",
    [
        [DataFrame(1, b"x" * 20_000)],
        [HeadersFrame(1, b"\xff\xff\xff", flags=["END_HEADERS"])],
        [PushPromiseFrame(3, 2, PROMISED, flags=["END_HEADERS"])],
        [DataFrame(99, b"x")],
    ],
    ids=["too large", "no headers", "a push promise", "a stream that was never opened"],
)
def test_what_is_not_http2_breaks_the_connection_and_takes_no_answer_along(
    peer: MemoryPeer, frames: list[Frame]
) -> None:
    exchange, _ = peer.start(), peer.start()
    accepted = HeadersFrame(1, bytes.fromhex("88"), flags=["END_HEADERS", "END_STREAM"])  # of HPACK: `:status: 200`
    with pytest.raises(ConnectionBroken):
        peer.send([accepted, *frames])
    assert exchange.result == Answered(200, {}, b"")
    assert peer.streams.is_retiring


def test_calling_off_a_request_on_a_broken_connection_is_no_fault(peer: MemoryPeer) -> None:
    exchange = peer.start()
    with pytest.raises(ConnectionBroken):
        peer.send([DataFrame(99, b"x")])
    peer.streams.cancel(exchange)


@pytest.mark.parametrize("status", ["abc", "2000", "-1"])
def test_a_status_that_is_none_is_an_answer_of_nobody(peer: MemoryPeer, status: str) -> None:
    exchange = peer.start()
    try:
        peer.answer(1, status)
    except ConnectionBroken:
        return
    assert isinstance(exchange.result, Answered)
    assert exchange.result.status == 0


@given(st.binary(max_size=200))
def test_noise_breaks_nothing_but_the_connection(noise: bytes) -> None:
    streams = ApnsStreams()
    try:
        streams.receive(noise)
    except ConnectionBroken:
        assert streams.is_retiring


@given(st.lists(st.integers(1, 50), max_size=40))
def test_an_answer_may_come_in_any_pieces(sizes: list[int]) -> None:
    peer = MemoryPeer()
    peer.talk()
    exchange = peer.start()
    peer._h2.send_headers(1, [(":status", "400")])  # what the peer says, before it goes out
    peer._h2.send_data(1, b'{"reason":"BadTopic"}', end_stream=True)
    said = peer._h2.data_to_send()
    for size in sizes:
        peer.streams.receive(said[:size])
        said = said[size:]
    peer.streams.receive(said)
    assert exchange.result == Answered(400, {}, b'{"reason":"BadTopic"}')


def test_what_differs_between_requests_is_kept_out_of_the_peers_table(peer: MemoryPeer) -> None:
    """And a device's token out of the memory of whatever stands in between."""
    for number in range(2):
        headers = (*HEADERS[:3], (":path", f"/3/device/0{number}"), ("apns-id", f"id-{number}"), ("apns-topic", "app"))
        peer.streams.start(Exchange(headers, b"{}"))
        peer.talk()
    table = [name for name, _ in peer._h2.decoder.header_table.dynamic_entries]
    assert b"apns-topic" in table
    assert not {b":path", b"apns-id"} & set(table)
