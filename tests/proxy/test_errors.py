"""Errors: two levels, and nothing in them that is not meant to be read."""

import pytest

from proxy import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_base_of_the_package_and_says_when_it_is_raised(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.ProxyError)
    assert len(kind.__mro__) - len(errors.ProxyError.__mro__) <= 2
    assert kind.__doc__


def test_a_timeout_knows_its_phase() -> None:
    error = errors.UpstreamTimedOut("api.test was silent for 3 seconds (idle)", "idle")
    assert (error.phase, str(error)) == ("idle", "api.test was silent for 3 seconds (idle)")
