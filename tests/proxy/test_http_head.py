import pytest

from proxy.errors import RequestNotSendable, UpstreamBroken
from proxy.http_head import MAX_HEAD_BYTES, HeadExchange, Origin, ResponseHead, build_request_line
from proxy.provider import UpstreamRequest

KEY = "sk-very-secret"
HEADERS = (("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json"))


def build_request(
    url: str = "https://api.example.com/v1/chat", headers: tuple[tuple[str, str], ...] = HEADERS
) -> UpstreamRequest:
    return UpstreamRequest(url, headers, b"{}")


def write(request: UpstreamRequest) -> list[bytes]:
    return HeadExchange(build_request_line(request)).request_bytes.split(b"\r\n")


def read(data: bytes) -> ResponseHead | None:
    return HeadExchange(build_request_line(build_request())).feed(data)


def test_a_request_names_its_host_its_length_and_wants_no_encoding() -> None:
    lines = write(build_request("https://api.example.com/v1/chat?beta=true"))
    assert lines[0] == b"POST /v1/chat?beta=true HTTP/1.1"
    assert lines[1] == b"host: api.example.com"
    assert {b"accept-encoding: identity", b"content-length: 2"} <= {line.lower() for line in lines}


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("https://a.example", Origin("https", "a.example", 443), "a.example"),
        ("http://a.example:8080/x", Origin("http", "a.example", 8080), "a.example:8080"),
        ("https://a.example:443/", Origin("https", "a.example", 443), "a.example"),
        ("http://[::1]:9/", Origin("http", "::1", 9), "[::1]:9"),
        ("HTTPS://A.Example/", Origin("https", "a.example", 443), "a.example"),
        ("https://bücher.example/", Origin("https", "xn--bcher-kva.example", 443), "xn--bcher-kva.example"),
    ],
)
def test_the_origin_is_read_from_the_url(url: str, origin: Origin, authority: str) -> None:
    line = build_request_line(build_request(url))
    assert line.origin == origin
    assert line.origin.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v1/chat",
        "ftp://a.example/",
        "file:///etc/passwd",
        "https:///v1",
        "https://user:sk-very-secret@a.example/",
        "https://sk-very-secret@a.example/",
        "https://a.example:99999/",
        "https://a.example:port/",
        "https://a.example/\r\nx: y",
        "https://a.example/a b",
        "https://a.exam\nple/",
        "https://[::1/",
        f"https://{'a' * 64}.example/",
        "https://a..example/",
    ],
)
def test_a_url_that_could_mislead_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(RequestNotSendable) as refusal:
        build_request_line(build_request(url))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("header", [("authorization", f"Bearer {KEY}\n"), ("x\r\ny", KEY), ("x", f"{KEY}\u20ac")])
def test_a_header_that_cannot_be_sent_is_refused_and_not_quoted(header: tuple[str, str]) -> None:
    with pytest.raises(RequestNotSendable) as refusal:
        build_request_line(build_request(headers=(header,)))
    assert KEY not in str(refusal.value)
    assert refusal.value.__context__ is None


def test_framing_headers_of_a_provider_are_left_out() -> None:
    ours = (("Host", "evil"), ("Content-Length", "9"), ("Accept-Encoding", "gzip"), ("Connection", "close"))
    lines = [line.lower() for line in write(build_request(headers=ours))]
    assert [line for line in lines if line.startswith((b"host", b"content-length", b"accept-enc", b"connection"))] == [
        b"host: api.example.com",
        b"accept-encoding: identity",
        b"content-length: 2",
    ]


def test_nothing_secret_shows_in_a_repr() -> None:
    assert KEY not in repr(build_request_line(build_request()))


def test_header_names_are_lower_case_and_repeated_fields_joined() -> None:
    head = read(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")
    assert head is not None
    assert (head.status, head.headers["retry-after"], head.headers["x-a"]) == (429, "7", "1, 2")
    assert head.body.is_complete


def test_what_came_with_the_head_is_kept_for_the_body() -> None:
    head = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
    assert head is not None
    assert head.early_bytes == b"abc"


def test_a_head_may_come_byte_by_byte_after_interim_answers() -> None:
    exchange = HeadExchange(build_request_line(build_request()))
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    heads = [exchange.feed(data[index : index + 1]) for index in range(len(data))]
    assert heads[:-1] == [None] * (len(data) - 1)
    assert heads[-1] is not None
    assert heads[-1].status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x02\x00 garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)
def test_what_is_no_answer_that_we_take_is_broken_and_not_quoted(data: bytes) -> None:
    with pytest.raises(UpstreamBroken, match=r"^api\.example\.com [a-zA-Z ,]+$"):
        read(data)


@pytest.mark.parametrize(
    ("data", "may_keep"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: x, Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", False),
    ],
)
def test_the_head_says_whether_the_connection_may_be_kept(data: bytes, may_keep: bool) -> None:
    head = read(data)
    assert head is not None
    assert head.may_keep is may_keep
