"""What is sealed in the audit log, and how: plain values, one way to write them, an HMAC over them. Pure."""

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec

from storage.errors import StorageError

VERSION = "cloche-audit-1"
"""Part of every sealed row. What is written in another way gets another name."""

SEAL_BYTES = 32
FIRST_SEAL = bytes(SEAL_BYTES)
"""What the first row of a chain is sealed over."""

MAX_TEXT = 500
MAX_ITEMS = 50
MAX_DEPTH = 4
MAX_DETAILS_BYTES = 8192

# PostgreSQL stores neither NUL nor half of a surrogate pair: https://www.postgresql.org/docs/current/datatype-json.html
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")

class DetailsForeign(StorageError):
    """Details that no server of ours has written."""


_encoder = msgspec.json.Encoder(order="deterministic")


def seal_row(secret: str, previous: bytes, row: Sequence[object]) -> bytes:
    """HMAC-SHA256 over the seal before it (of a fixed length) and the row as a JSON array: no two rows have the same.

    The row: region, sequence, Unix seconds with six places (text), action, status, actor, subject, entity type and id,
    address, user agent, request id, details.
    """
    return hmac.digest(secret.encode(), previous + _encoder.encode([VERSION, *row]), "sha256")


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """As PostgreSQL gives it back: what it cannot store is U+FFFD, and what is too long ends with an ellipsis."""
    short = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return _NOT_STORABLE.sub("\ufffd", short)


def clean_details(details: Mapping[str, object]) -> Mapping[str, object]:
    """Values that jsonb gives back as they are: text, whole numbers of 64 bits, true, false, null, lists and mappings.

    Anything else becomes text, fractions too, for PostgreSQL writes them otherwise. What is too much is left out and
    said so.
    """
    plain = {clean_text(key): _clean(value, MAX_DEPTH) for key, value in list(details.items())[:MAX_ITEMS]}
    size_bytes = len(encode_details(plain))
    return plain if size_bytes <= MAX_DETAILS_BYTES else {"omitted_bytes": size_bytes}


def _clean(value: object, depth: int) -> object:
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case Mapping() if depth:
            items = list(value.items())[:MAX_ITEMS]
            return {clean_text(str(key)): _clean(item, depth - 1) for key, item in items}
        case list() | tuple() if depth:
            return [_clean(item, depth - 1) for item in value[:MAX_ITEMS]]
    return clean_text(str(value))


def encode_details(details: object) -> str:
    return _encoder.encode(details).decode()


def read_details(text: str) -> object:
    """The details of a stored row. Raises DetailsForeign if they are none that `clean_details` lets through."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DetailsForeign("a fraction, no JSON, or too deep") from error


def _refuse_fraction(_text: str) -> NoReturn:
    raise ValueError("no details of ours have fractions")


_decoder = msgspec.json.Decoder(float_hook=_refuse_fraction)
