"""Recorded exchanges with providers, as values: those kept in this repository, and the many kept beside it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MADE = Path(__file__).resolve().parent.parent / "recordings"
"""Small ones of our own making, so that the tests mean something where the real ones are not at hand."""


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """`expect` is what the answer says, in the words of the recordings' own description."""

    id: str
    request: dict[str, Any] = field(repr=False)
    """The request's body, parsed."""
    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    expect: dict[str, Any] = field(repr=False)
    path: str = ""
    parts: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """Of a request that was a form: `name`, and `value` or what is known of a file."""

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def is_stream(self) -> bool:
        return self.media_type.startswith("text/event-stream")


def read_exchanges(folder: Path, provider: str, endpoint: str) -> list[RecordedExchange]:
    """All of that provider and endpoint, by name."""
    return list(_read_exchanges(folder / provider, endpoint))


def _read_exchanges(folder: Path, endpoint: str) -> Iterator[RecordedExchange]:
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text())
        if recorded["endpoint"] == endpoint:
            response = recorded["response"]
            yield RecordedExchange(
                recorded["id"],
                recorded["request"].get("body") or {},
                response["status"],
                response["headers"],
                response["body"].encode(),
                recorded["expect"],
                recorded["request"].get("path", ""),
                tuple(recorded["request"].get("multipart", ())),
            )
