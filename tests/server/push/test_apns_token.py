"""APNs's provider token: one for many pushes, never too old, never too new."""

from datetime import UTC, datetime

import jwt
import pytest

from server.push.apns_token import LIFE_SECONDS, REFUSED_RENEWAL_SECONDS, RENEWAL_SECONDS, ProviderTokens
from tests.push_stand_in.keys import find_apns_key
from tests.server.push.apns_samples import NOW, build_settings


class Clocks:
    """Both start at a moment of their own."""

    def __init__(self) -> None:
        self.steady = 5_000.0
        self.unix = NOW.timestamp()

    def advance(self, seconds: float) -> None:
        self.steady += seconds
        self.unix += seconds

    def build_tokens(self) -> ProviderTokens:
        return ProviderTokens(build_settings(), lambda: self.steady, lambda: self.unix)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def tokens(clocks: Clocks) -> ProviderTokens:
    return clocks.build_tokens()


def read_issued_at(token: str) -> datetime:
    claims = jwt.decode(token, find_apns_key().public_key(), algorithms=["ES256"], options={"verify_iat": False})
    return datetime.fromtimestamp(claims["iat"], UTC)


def test_a_token_says_who_we_are_with_which_key_and_since_when_and_no_more(tokens: ProviderTokens) -> None:
    token = tokens.take()
    claims = jwt.decode(token, find_apns_key().public_key(), algorithms=["ES256"], options={"verify_iat": False})
    assert claims == {"iss": "TEAM123456", "iat": int(NOW.timestamp())}
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == ("ES256", "KEY1234567")


def test_one_token_serves_for_forty_minutes(tokens: ProviderTokens, clocks: Clocks) -> None:
    token = tokens.take()
    clocks.advance(LIFE_SECONDS - 1)
    assert tokens.take() == token
    clocks.advance(1)
    assert tokens.take() != token
    assert read_issued_at(tokens.take()).timestamp() == clocks.unix


@pytest.mark.parametrize("seconds", [LIFE_SECONDS, -RENEWAL_SECONDS - 1])
def test_a_token_whose_time_is_wrong_since_the_clock_was_set_is_made_anew(
    tokens: ProviderTokens, clocks: Clocks, seconds: float
) -> None:
    token = tokens.take()
    clocks.unix += seconds
    assert tokens.take() != token


def test_a_steady_clock_counts_even_if_the_other_one_stands_still(tokens: ProviderTokens, clocks: Clocks) -> None:
    token = tokens.take()
    clocks.steady += LIFE_SECONDS
    assert tokens.take() != token


def test_a_refused_token_is_renewed_at_most_once_a_minute(tokens: ProviderTokens, clocks: Clocks) -> None:
    refused = tokens.take()
    assert tokens.renew(refused) is None
    clocks.advance(RENEWAL_SECONDS)
    renewed = tokens.renew(refused)
    assert renewed is not None
    assert renewed != refused
    assert tokens.take() == renewed
    assert tokens.renew(renewed) is None


def test_of_all_whose_token_was_refused_one_makes_the_next(tokens: ProviderTokens, clocks: Clocks) -> None:
    refused = tokens.take()
    clocks.advance(RENEWAL_SECONDS)
    assert len({tokens.renew(refused) for _ in range(100)}) == 1


def test_after_too_many_updates_a_token_is_kept_for_twenty_minutes(tokens: ProviderTokens, clocks: Clocks) -> None:
    token = tokens.take()
    tokens.slow_down()
    clocks.advance(REFUSED_RENEWAL_SECONDS - 1)
    assert tokens.renew(token) is None
    clocks.advance(1)
    assert tokens.renew(token) is not None


def test_a_token_shows_in_no_repr(tokens: ProviderTokens) -> None:
    token = tokens.take()
    assert token not in repr(tokens) + repr(tokens._token)  # nobody else sees the record
