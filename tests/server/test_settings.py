"""One setting: what is read out of it, and what is said of one that is wrong."""

from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network

import pytest

from server.settings import (
    Settings,
    is_loopback,
    read_amount_usd,
    read_flag,
    read_name,
    read_networks,
    read_origins,
    read_urls,
    read_words,
)


def test_what_is_wrong_is_remembered_and_the_default_stands_in() -> None:
    settings = Settings({"A": "x", "B": " 7 "})
    assert (settings.read("A", 1, int), settings.read("B", 1, int), settings.read("C", 1, int)) == (1, 7, 1)
    assert len(settings.problems) == 1
    assert settings.problems[0].startswith("A is wrong: ")


def test_what_is_required_is_told_with_an_example() -> None:
    settings = Settings({"A": "  ", "B": "there"})
    assert (settings.require("A", "an example", str), settings.require("B", "", str)) == ("", "there")
    assert settings.problems == ["A is missing: set it to an example"]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_flag, "YES", True),
        (read_flag, "0", False),
        (read_words, " a,, b ,", ("a", "b")),
        (read_urls, "https://a.example/x/,http://127.0.0.1:1", ("https://a.example/x", "http://127.0.0.1:1")),
        (read_name, "eu-west_1", "eu-west_1"),
        (read_origins, "*", frozenset({"*"})),
        (read_origins, "https://a.example:8443,http://[::1]:80", frozenset({"https://a.example:8443", "http://[::1]:80"})),
        (read_networks, "10.1.2.3/8,::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        (read_amount_usd, "2", Decimal(2)),
        (read_amount_usd, "0.000001", Decimal("0.000001")),
    ],
)
def test_a_setting_is_read(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_flag, "maybe"),
        (read_urls, "https://a.example,nowhere"),
        (read_name, "a b"),
        (read_name, "é"),
        (read_name, "-"),
        (read_origins, "https://a.example?x"),
        (read_origins, "https://user@a.example"),
        (read_origins, "null"),
        (read_networks, "everywhere"),
        (read_amount_usd, "2 dollars"),
        (read_amount_usd, "-1"),
        (read_amount_usd, "nan"),
        (read_amount_usd, "inf"),
        (read_amount_usd, "1e9"),
        (read_amount_usd, "0.0000001"),
    ],
)
def test_a_setting_that_is_wrong_says_what_it_must_be(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        read(text)


def test_this_machine_is_known_by_its_names() -> None:
    assert all(is_loopback(f"http://{host}:8080/x") for host in ("127.0.0.1", "[::1]", "localhost"))
    assert not any(is_loopback(url) for url in ("http://localhost.example.com", "http://10.0.0.1", "nowhere"))
