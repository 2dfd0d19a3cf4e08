"""What the HTTP/1.1 protocol may ask of its connection, beside hypercorn's own events."""

from dataclasses import dataclass

from hypercorn.events import Event


@dataclass(frozen=True, slots=True)
class AnsweredEarly(Event):
    """The answer is complete, the client may still be sending: half-close, and read a while without looking."""


@dataclass(frozen=True, slots=True)
class Pipelined(Event):
    """The next request has been received already: parse it in the reader's task."""
