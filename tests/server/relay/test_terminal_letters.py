"""Letters of terminals come out as they went in."""

from uuid import uuid4

import msgspec
import pytest

from server.relay.terminal_letters import Frame, Handed, Left, RouteState, Wanted

STATE = RouteState("t-1", uuid4(), uuid4(), "one", 1, 5, 2, "live", 0.5, 7, 1, (3, 4), True, False, True)


@pytest.mark.parametrize(
    "letter",
    [
        Wanted(uuid4(), 'Ä "1" \\ 💻', uuid4(), uuid4(), 1, 5, True, False, True, 57, 56, 3),
        Frame(uuid4(), 1, 2, 2**50),
        Left(uuid4()),
        Left(uuid4(), 3),
        Handed(uuid4()),
        Handed(uuid4(), STATE),
        Handed(uuid4(), is_all=True),
    ],
)
def test_a_letter_is_read_as_it_was_written(letter: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(letter), type=type(letter)) == letter
