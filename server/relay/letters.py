"""Letters between processes as they stand in a stream, and what a reader knows of those that have come. Pure.

A sender numbers what it sends to one receiver, so what comes twice is known, and so is what is missing. A large blob
travels in pieces, so that nobody has to hold much at once, and nobody else waits long.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from storage.relay_streams import Entry

PIECE_BYTES = 1024 * 1024
MOST_SENDERS = 1_000
"""So many are remembered, those that were heard of last."""

_PIECE = ""


class Header(msgspec.Struct, array_like=True, frozen=True):
    """`pieces` of the blob have come before this letter, which has the rest."""

    sender: str
    number: int
    user_id: UUID
    kind: str
    pieces: int = 0
    after_event: int = 0
    body: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


_decoder = msgspec.json.Decoder(Header)


@dataclass(frozen=True, slots=True)
class Draft:
    """A letter that is to be sent."""

    user_id: UUID
    kind: str
    body: msgspec.Struct
    blob: bytes = field(default=b"", repr=False)
    after_event: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    header: Header = field(repr=False)
    blob: bytes = field(repr=False)


def build_entries(sender: str, draft: Draft, next_number: Callable[[], int]) -> Iterator[Entry]:
    """One, or more where the blob is large."""
    blob, pieces = draft.blob, 0
    while len(blob) - pieces * PIECE_BYTES > PIECE_BYTES:
        at = pieces * PIECE_BYTES
        header = Header(sender, next_number(), draft.user_id, _PIECE)
        yield Entry(msgspec.json.encode(header), blob[at : at + PIECE_BYTES])
        pieces += 1
    body = msgspec.Raw(msgspec.json.encode(draft.body))
    last = Header(sender, next_number(), draft.user_id, draft.kind, pieces, draft.after_event, body)
    yield Entry(msgspec.json.encode(last), blob[pieces * PIECE_BYTES :] if pieces else blob)


def read_header(entry: Entry) -> Header:
    """Raises msgspec.MsgspecError."""
    return _decoder.decode(entry.header)


def read_body(header: Header, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Raises msgspec.MsgspecError."""
    return decoder.decode(header.body)


@dataclass(slots=True)
class _Sender:
    last_number: int = 0
    pieces: list[bytes] = field(default_factory=list, repr=False)



class Arrivals:
    """What has come to one process, of all senders."""

    def __init__(self) -> None:
        self._senders: dict[str, _Sender] = {}

    def is_missing(self, header: Header) -> bool:
        """Whether something of its sender has been lost before this."""
        sender = self._senders.get(header.sender)
        return header.number > (sender.last_number if sender else 0) + 1

    def add(self, header: Header, blob: bytes) -> Received | None:
        """A whole letter; None if it has come before, or there is more to come, or too little has come."""
        sender = self._find(header.sender)
        if header.number <= sender.last_number:
            return None
        if header.number > sender.last_number + 1:
            sender.pieces.clear()
        sender.last_number = header.number
        if header.kind == _PIECE:
            sender.pieces.append(blob)
            return None
        return _join(header, sender, blob)

    def _find(self, name: str) -> _Sender:
        sender = self._senders.pop(name, None) or _Sender()
        self._senders[name] = sender
        if len(self._senders) > MOST_SENDERS:
            del self._senders[next(iter(self._senders))]
        return sender


def _join(header: Header, sender: _Sender, blob: bytes) -> Received | None:
    pieces, sender.pieces = sender.pieces, []
    if len(pieces) != header.pieces:
        return None
    return Received(header, b"".join((*pieces, blob)) if pieces else blob)
