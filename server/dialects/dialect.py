"""What a dialect is, for the code that serves it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from proxy.chat import ChatRequest
from proxy.collected import Collected
from proxy.events import ChatEvent, Usage
from proxy.routing import Model
from server.errors import Problem


@dataclass(frozen=True, slots=True)
class Decoded:
    """A client's request, and what it wants of the answer's form."""

    request: ChatRequest
    stream: bool
    include_usage: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What an encoder needs to know of the answer that it encodes. `created` is in Unix seconds."""

    request_id: UUID
    answer_id: str
    model: Model
    created: int
    include_usage: bool = False
    usage_so_far: Callable[[], Usage] = Usage
    """What has been used by now, counted here until the provider says."""


class Encoder(Protocol):
    """Encodes one stream. Stateful and pure: events in, bytes out."""

    def open(self) -> bytes:
        """What goes out before the first event."""
        ...

    def encode(self, events: list[ChatEvent]) -> bytes:
        """May be empty, where this dialect has no words for the events."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """`answers_at_once`: the stream opens before the provider has said anything, and its failures are events of it."""

    answers_at_once: bool
    decode: Callable[[bytes], Decoded]
    open_encoder: Callable[[Answer], Encoder]
    encode_whole: Callable[[Answer, Collected], bytes]
    encode_problem: Callable[[Problem], bytes]
