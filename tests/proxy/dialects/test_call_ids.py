"""Ids of calls that were made elsewhere."""

from proxy.dialects.call_ids import fit_call_id


def test_an_id_that_fits_stays_as_it_is() -> None:
    assert fit_call_id("call_1", 40) == "call_1"
    assert fit_call_id("x" * 500, None) == "x" * 500


def test_a_longer_one_is_always_the_same_short_one_and_no_others() -> None:
    one, other = fit_call_id("x" * 41, 40), fit_call_id("x" * 42, 40)
    assert one == fit_call_id("x" * 41, 40) != other
    assert len(one) <= 40
