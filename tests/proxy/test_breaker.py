"""Which failures count against a provider, and what fits the gateway's Protocol."""

import pytest

from proxy.breaker import Breakers, counts_against
from proxy.errors import UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable
from proxy.events import Failed
from proxy.failures import failed_status, failed_upstream
from server.breakers import SharedBreakers
from tests.fake_breakers import FakeBreakers


def failed(status: int, error_type: str = "", message: str = "words", **headers: str) -> Failed:
    return failed_status("openai", status, message, error_type, headers=headers)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529, 599])
def test_a_provider_that_breaks_down_counts(status: int) -> None:
    assert counts_against(failed(status))


@pytest.mark.parametrize(
    "error", [UpstreamBroken("cut"), UpstreamUnreachable("no host"), UpstreamTimedOut("silent", "idle")], ids=repr
)
def test_a_provider_that_cannot_be_heard_counts(error: UpstreamBroken) -> None:
    assert counts_against(failed_upstream("openai", error))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422])
def test_what_is_wrong_with_the_request_or_our_account_does_not(status: int) -> None:
    assert not counts_against(failed(status))


def test_nor_does_a_context_that_is_too_long_or_a_filter() -> None:
    assert not counts_against(failed(400, "context_length_exceeded"))
    assert not counts_against(failed(400, "content_filter"))


def test_a_mistake_of_our_own_does_not() -> None:
    assert not counts_against(Failed("internal_error", "the answer could not be read", "openai"))


def test_a_rate_limit_counts_if_the_provider_says_when_it_ends() -> None:
    assert counts_against(failed(429, "rate_limit_error", **{"retry-after": "7"}))
    assert not counts_against(failed(429, "rate_limit_error"))


def test_a_request_that_no_limit_has_room_for_closes_nothing_to_others() -> None:
    words = "Request too large for gpt-x on tokens per min (TPM): Limit 30000, Requested 40000."
    assert not counts_against(failed(429, "tokens", words, **{"retry-after": "7"}))


async def test_what_the_gateway_is_given_fits() -> None:
    kinds: list[type[Breakers]] = [FakeBreakers, SharedBreakers]
    assert kinds
    fake: Breakers = FakeBreakers(opened={("openai", "a")})
    assert [await fake.admit("openai", model) for model in "ab"] == [False, True]
    assert [fake.state("openai", model) for model in "ab"] == ["open", "closed"]
