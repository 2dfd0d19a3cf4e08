"""The edge: whose address counts, by which id a request is known, who may read its answer, and what it carries."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge import (
    MAX_HOPS,
    MAX_USER_AGENT,
    Arrival,
    Rules,
    answers_preflight,
    build_headers,
    build_preflight,
    find_client,
    find_path,
    read_arrival,
    read_request_id,
)

PROXIES = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("fd00::/8"))
ANYBODY = Rules(frozenset({"*"}), ())
BEHIND_PROXIES = Rules(frozenset({"https://app.example.com"}), PROXIES)


def arrive(rules: Rules, peer: str | None, *, scheme: str = "http", **headers: str) -> Arrival:
    return read_arrival(
        rules, peer, scheme, [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    )


# Whose address it is


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6,198.51.100.1 , 10.2.3.4", "198.51.100.1"),
        ("192.0.2.7", "10.9.9.9, 198.51.100.1,10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.5", "10.0.0.5"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("fd00::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fd00::1", "[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        ("fd00::1", "[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        (None, "198.51.100.1", "198.51.100.1"),
        (None, "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (None, "", "unknown"),
        ("not an address", "198.51.100.1", "unknown"),
    ],
)
def test_the_client_is_whom_the_last_trusted_hop_names(peer: str | None, forwarded_for: str, address: str) -> None:
    assert find_client(PROXIES, peer, forwarded_for)[0] == address


@pytest.mark.parametrize(
    "garbage", ["", "unknown", "_hidden", "10.0.0", "1.2.3.4.5", "::1::", "[", "[]:1", ":80", "١.١.١.١"]
)
def test_garbage_ends_the_walk_at_the_last_hop_that_is_known(garbage: str) -> None:
    assert find_client(PROXIES, "10.0.0.1", f"6.6.6.6, {garbage}, 10.2.3.4")[0] == "10.2.3.4"
    assert find_client(PROXIES, "10.0.0.1", f"6.6.6.6, {garbage}")[0] == "10.0.0.1"


@given(sent=st.text(max_size=60))
def test_whatever_a_client_sends_it_counts_as_the_address_that_the_proxy_saw(sent: str) -> None:
    assert find_client(PROXIES, "10.0.0.1", f"{sent},198.51.100.1") == ("198.51.100.1", True)
    assert find_client(PROXIES, "203.0.113.9", sent) == ("203.0.113.9", False)
    find_client(PROXIES, "10.0.0.1", sent)


def test_a_walk_has_an_end() -> None:
    forwarded_for = "198.51.100.1" + ",10.0.0.9" * (MAX_HOPS + 1)
    assert find_client(PROXIES, "10.0.0.1", forwarded_for)[0] == "10.0.0.9"
    assert find_client(PROXIES, "10.0.0.1", forwarded_for.removesuffix(",10.0.0.9"))[0] == "198.51.100.1"


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    first, second = (find_client((), f"2001:db8:1:2::{end}", "")[0] for end in ("1", "ffff:0:2"))
    assert first == second == "2001:db8:1:2::/64"
    assert find_client((), "2001:db8:1:3::1", "")[0] != first
    assert find_client((), "::ffff:203.0.113.9", "")[0] == "203.0.113.9"


def test_without_proxies_no_header_changes_the_address() -> None:
    arrival = arrive(ANYBODY, "203.0.113.9", x_forwarded_for="1.2.3.4", x_real_ip="1.2.3.4", forwarded="for=1.2.3.4")
    assert arrival.address == "203.0.113.9"
    assert arrive(ANYBODY, "2001:db8::1", x_forwarded_for="1.2.3.4").address == "2001:db8::/64"


def test_a_header_on_several_lines_is_one_list() -> None:
    lines = [(b"x-forwarded-for", b"6.6.6.6"), (b"x", b"y"), (b"x-forwarded-for", b"198.51.100.1, 10.0.0.2")]
    assert read_arrival(BEHIND_PROXIES, "10.0.0.1", "http", lines).address == "198.51.100.1"


def test_who_comes_by_a_unix_socket_is_a_proxy_that_needs_no_setting() -> None:
    arrival = arrive(ANYBODY, None, x_forwarded_for="198.51.100.1", x_forwarded_proto="https")
    assert (arrival.address, arrival.is_https) == ("198.51.100.1", True)


def test_x_real_ip_is_not_believed_even_of_a_proxy() -> None:
    assert arrive(BEHIND_PROXIES, "10.0.0.1", x_real_ip="1.2.3.4").address == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "told", "is_https"),
    [
        ("10.0.0.1", "https", True),
        ("10.0.0.1", "HTTPS", True),
        ("10.0.0.1", "https, http", False),
        ("10.0.0.1", "http, https", True),
        ("10.0.0.1", "", False),
        ("203.0.113.9", "https", False),
        (None, "https", True),
    ],
)
def test_a_trusted_proxy_says_whether_the_client_came_over_tls(peer: str | None, told: str, is_https: bool) -> None:
    assert arrive(BEHIND_PROXIES, peer, x_forwarded_proto=told).is_https == is_https


def test_a_connection_that_is_tls_is_tls() -> None:
    assert arrive(ANYBODY, "203.0.113.9", scheme="https", x_forwarded_proto="http").is_https
    assert arrive(ANYBODY, "203.0.113.9", scheme="wss").is_https
    assert not arrive(ANYBODY, "203.0.113.9", scheme="ws").is_https


# By which id it is known


@pytest.mark.parametrize("id_", [b"a", b"A-b_c.9", b"x" * 128])
def test_a_clients_id_is_kept(id_: bytes) -> None:
    assert read_request_id(id_) == id_.decode()


@pytest.mark.parametrize("id_", [b"", b"x" * 129, b"a b", b"a\n", b'a"', b"a/b", b"\xc3\xa9", b"a\x00"])
def test_an_id_that_is_not_fit_for_logs_is_replaced(id_: bytes) -> None:
    made = read_request_id(id_)
    assert len(made) == 32
    assert made != read_request_id(id_)


def test_what_a_client_calls_itself_is_short_and_printable() -> None:
    agent = arrive(ANYBODY, "203.0.113.9", user_agent="x\ty" + "z" * 1000).user_agent
    assert len(agent) == MAX_USER_AGENT
    assert agent.startswith("x?yz")
    assert arrive(ANYBODY, "203.0.113.9").user_agent == ""


# Which path it means


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/models", "/api/models"),
        ("/api/v1/models", "/api/models"),
        ("/api/v1", "/api"),
        ("/api/v1/", "/api/"),
        ("/api-key/models/x", "/api/models/x"),
        ("/api-key", "/api"),
        ("/api-key/v1/models", "/api/models"),
        ("/api/v1/v1/models", "/api/v1/models"),
        ("/api/v1/api-key/models", "/api/api-key/models"),
        ("/api/v10/models", "/api/v10/models"),
        ("/api/v1models", "/api/v1models"),
        ("/api-keys/x", "/api-keys/x"),
        ("/api-key.x", "/api-key.x"),
        ("/v1/models", "/v1/models"),
        ("/v1/api/v1/x", "/v1/api/v1/x"),
        ("//api/v1/x", "//api/v1/x"),
        ("/", "/"),
        ("http://x/api/v1/models", "/api/models"),
        ("http://[/health", "/health"),
        ("http://x", "/"),
        ("health", "/"),
        ("*", "/"),
        ("", "/"),
    ],
)
def test_a_path_with_several_names_has_one(path: str, name: str) -> None:
    assert find_path(path) == name


# What an answer carries


def test_every_answer_carries_its_id_and_keeps_browsers_from_guessing() -> None:
    headers = dict(build_headers(arrive(ANYBODY, "203.0.113.9", x_request_id="mine"), []))
    assert headers == {
        "X-Request-ID": "mine",
        "Vary": "Origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-store",
    }


def test_what_the_route_has_set_stays_alone() -> None:
    headers = build_headers(arrive(ANYBODY, "203.0.113.9"), ["cache-control", "X-FRAME-OPTIONS", "Vary"])
    names = [name for name, _ in headers]
    assert "Cache-Control" not in names
    assert "X-Frame-Options" not in names
    assert ("Vary", "Origin") in headers


def test_only_who_came_over_tls_is_told_to_stay_there() -> None:
    assert "Strict-Transport-Security" in dict(build_headers(arrive(ANYBODY, "203.0.113.9", scheme="https"), []))
    assert "Strict-Transport-Security" not in dict(build_headers(arrive(ANYBODY, "203.0.113.9"), []))


@pytest.mark.parametrize("origin", ["https://anything.example", "http://localhost:1420", "tauri://localhost", "null"])
def test_any_origin_is_named_never_a_star(origin: str) -> None:
    headers = dict(build_headers(arrive(ANYBODY, "203.0.113.9", origin=origin), []))
    assert headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Allow-Credentials"] == "true"
    for name in ("X-Request-ID", "Retry-After", "RateLimit-Remaining"):
        assert name in headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://app.example.com", "https://app.example.com.evil.example", "https://app.example.com/",
     "null", ""],
)
def test_an_origin_that_is_not_on_the_list_may_not_read(origin: str) -> None:
    headers = build_headers(arrive(BEHIND_PROXIES, "203.0.113.9", origin=origin), [])
    assert not [name for name, _ in headers if name.startswith("Access-Control")]
    assert ("Vary", "Origin") in headers


def test_an_origin_on_the_list_may_read() -> None:
    headers = dict(build_headers(arrive(BEHIND_PROXIES, "203.0.113.9", origin="https://app.example.com"), []))
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"


# Preflight


ASKED = [
    (b"origin", b"https://app.example.com"),
    (b"access-control-request-method", b"DELETE"),
    (b"access-control-request-headers", b"authorization, x-device-id"),
]


def test_a_preflight_allows_what_it_asks_for() -> None:
    headers = dict(build_preflight(read_arrival(BEHIND_PROXIES, "203.0.113.9", "http", ASKED), ASKED))
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert headers["Access-Control-Allow-Methods"] == "DELETE"
    assert headers["Access-Control-Allow-Headers"] == "authorization, x-device-id"
    assert headers["Access-Control-Max-Age"] == "7200"
    assert headers["Vary"] == "Origin"


def test_a_preflight_without_headers_allows_none() -> None:
    headers = build_preflight(read_arrival(BEHIND_PROXIES, "203.0.113.9", "http", ASKED[:2]), ASKED[:2])
    assert "Access-Control-Allow-Headers" not in dict(headers)


def test_a_preflight_of_a_strange_origin_allows_nothing() -> None:
    asked = [(b"origin", b"https://evil.example"), *ASKED[1:]]
    headers = build_preflight(read_arrival(BEHIND_PROXIES, "203.0.113.9", "http", asked), asked)
    assert not [name for name, _ in headers if name.startswith("Access-Control")]


def test_options_is_a_preflight_only_with_both_headers() -> None:
    assert answers_preflight("OPTIONS", ASKED)
    assert not answers_preflight("OPTIONS", ASKED[:1])
    assert not answers_preflight("OPTIONS", ASKED[1:])
    assert not answers_preflight("POST", ASKED)
