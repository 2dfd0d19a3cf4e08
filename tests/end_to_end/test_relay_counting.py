"""The account of terminal output can tell what is wrong with it."""

import pytest

from tests.end_to_end.relay_counting import Story, count_out, read_story


def test_what_is_whole_is_whole() -> None:
    assert read_story(count_out(0, 1600)) == Story(0, 1600, (), 0)
    assert read_story(b"") == Story(0, 0, (), 0)


def test_a_hole_a_repetition_and_a_missing_beginning_show() -> None:
    assert read_story(count_out(0, 32) + count_out(64, 16)) == Story(0, 80, ((32, 64),), 0)
    assert read_story(count_out(0, 64) + count_out(32, 64)) == Story(0, 96, (), 32)
    assert read_story(count_out(160, 32)) == Story(160, 192, (), 0)


def test_what_nobody_wrote_is_an_error() -> None:
    with pytest.raises(AssertionError):
        read_story(b"0" * 16)
    with pytest.raises(AssertionError):
        read_story(count_out(0, 32)[:-1])
