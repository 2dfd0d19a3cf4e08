"""Letters as they stand in a stream: in pieces and whole again, twice and too few."""

import random
from itertools import count
from uuid import UUID, uuid4

import msgspec
import pytest

from server.relay.letters import (
    MOST_SENDERS,
    PIECE_BYTES,
    Arrivals,
    Draft,
    Received,
    build_entries,
    read_body,
    read_header,
)
from storage.relay_streams import Entry

ANN = uuid4()


class Body(msgspec.Struct, array_like=True):
    name: str
    device_id: UUID


DECODER = msgspec.json.Decoder(Body)


def write(numbers: "count[int]", *blobs: bytes, sender: str = "one") -> list[Entry]:
    drafts = [Draft(ANN, "kind", Body(f"letter {len(blob)}", ANN), blob, after_event=7) for blob in blobs]
    return [entry for draft in drafts for entry in build_entries(sender, draft, lambda: next(numbers))]


def read(arrivals: Arrivals, entry: Entry) -> Received | None:
    return arrivals.add(read_header(entry), entry.blob)


def read_all(arrivals: Arrivals, entries: list[Entry]) -> list[bytes]:
    return [letter.blob for entry in entries if (letter := read(arrivals, entry)) is not None]


def test_a_letter_is_read_as_it_was_written() -> None:
    [entry] = write(count(1), bytes(range(256)))
    letter = read(Arrivals(), entry)
    assert letter is not None
    header = letter.header
    assert (header.sender, header.user_id, header.kind, header.after_event) == ("one", ANN, "kind", 7)
    assert read_body(header, DECODER) == Body("letter 256", ANN)
    assert letter.blob == bytes(range(256))


@pytest.mark.parametrize(
    ("size_bytes", "entries"),
    [(0, 1), (1, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 1, 2), (2 * PIECE_BYTES, 2), (3 * PIECE_BYTES + 5, 4)],
)
def test_a_large_blob_travels_in_pieces_and_arrives_whole(size_bytes: int, entries: int) -> None:
    blob = random.Random(1).randbytes(size_bytes)  # noqa: S311 - not for secrets
    written = write(count(1), blob, b"next")
    assert len(written) == entries + 1
    assert max(len(entry.blob) for entry in written) <= PIECE_BYTES
    assert read_all(Arrivals(), written) == [blob, b"next"]


def test_what_comes_again_is_known() -> None:
    entries = write(count(1), b"a", bytes(2 * PIECE_BYTES), b"b")
    assert read_all(Arrivals(), [*entries[:2], *entries[:3], *entries]) == [b"a", bytes(2 * PIECE_BYTES), b"b"]


def test_what_is_missing_is_known() -> None:
    entries, arrivals = write(count(1), b"a", b"b", b"c"), Arrivals()
    read(arrivals, entries[0])
    assert [arrivals.is_missing(read_header(entry)) for entry in entries] == [False, False, True]
    assert read_all(arrivals, [entries[2]]) == [b"c"]
    assert read_all(arrivals, [entries[1]]) == []


def test_the_first_that_comes_of_a_sender_is_its_first() -> None:
    _, second = write(count(1), b"a", b"b")
    assert Arrivals().is_missing(read_header(second))


def test_a_letter_whose_pieces_are_missing_is_not_read() -> None:
    numbers = count(1)
    large, small = write(numbers, bytes(3 * PIECE_BYTES)), write(numbers, b"small")
    assert read_all(Arrivals(), [*large[1:], *small]) == [b"small"]
    assert read_all(Arrivals(), [large[0], large[2], *small]) == [b"small"]
    assert read_all(Arrivals(), [*large[:2], *small]) == [b"small"]


def test_senders_do_not_know_of_each_other() -> None:
    ones, others = write(count(1), bytes(2 * PIECE_BYTES)), write(count(1), bytes(2 * PIECE_BYTES), sender="other")
    mixed = [entry for pair in zip(ones, others, strict=True) for entry in pair]
    assert read_all(Arrivals(), mixed) == [bytes(2 * PIECE_BYTES)] * 2


def test_those_that_were_heard_of_last_are_remembered() -> None:
    arrivals, [first] = Arrivals(), write(count(1), b"a")
    read(arrivals, first)
    for name in range(MOST_SENDERS - 1):
        read_all(arrivals, write(count(1), b"a", sender=str(name)))
    assert read_all(arrivals, [first]) == []
    for name in range(MOST_SENDERS):
        read_all(arrivals, write(count(1), b"a", sender=f"new {name}"))
    assert read_all(arrivals, [first]) == [b"a"]


def test_what_a_letter_says_is_in_no_repr() -> None:
    [entry] = write(count(1), b"secret")
    assert "secret" not in repr(read(Arrivals(), entry))
    assert "secret" not in repr(Draft(ANN, "kind", Body("name", ANN), b"secret"))
