"""Replaying recorded exchanges: what an answer says however it is split, what it may do to us, what we would send.

A provider's own test module says what is its own: how its usage maps to our buckets, how its requests are said in our
vocabulary, and which fields of a recorded request we do not send, each with its reason.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from proxy.chat import ToolCall
from proxy.collected import Collected
from proxy.events import ChatEvent, Citation, Failed, Finished, Usage
from proxy.provider import Reader
from tests.proxy.exchanges import RecordedExchange

OpenReader = Callable[[str], Reader]
EVENT_TYPES = get_args(ChatEvent)
WHOLE_SPLIT_BYTES = 20_000
"""Bodies up to this size are also fed byte by byte."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says, however it came."""

    text: str
    reasoning: str
    refusal: str
    tool_calls: tuple[ToolCall, ...]
    finish_reasons: tuple[str, ...]
    usage: Usage | None
    citations: int
    failed: bool


def read(open_reader: OpenReader, exchange: RecordedExchange, pieces: Iterable[bytes]) -> Answer:
    return summarize(feed(open_reader(exchange.media_type), pieces))


def feed(reader: Reader, pieces: Iterable[bytes]) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    for piece in pieces:
        events += reader.feed(piece)
    return events + reader.finish()


def summarize(events: list[ChatEvent]) -> Answer:
    """Signatures and what stands beside a call are left out here: the recordings' expectations do not have them."""
    collected = Collected()
    collected.add(events)
    usages = [event for event in events if isinstance(event, Usage)]
    return Answer(
        collected.text,
        collected.reasoning,
        collected.refusal,
        tuple(ToolCall(call.id, call.name, call.arguments) for call in collected.tool_calls),
        tuple(event.reason for event in events if isinstance(event, Finished)),
        usages[-1] if usages else None,
        sum(isinstance(event, Citation) for event in events),
        any(isinstance(event, Failed) for event in events),
    )


def splits(exchange: RecordedExchange, dice: random.Random) -> Iterator[Iterable[bytes]]:
    """Whole, three times at random, and byte by byte: of a long body its first and last bytes."""
    body = exchange.body
    yield [body]
    for _ in range(3):
        yield split_randomly(body, dice)
    middle = body[WHOLE_SPLIT_BYTES // 2 : -WHOLE_SPLIT_BYTES // 2] if len(body) > WHOLE_SPLIT_BYTES else b""
    start, end = body[: WHOLE_SPLIT_BYTES // 2], body[WHOLE_SPLIT_BYTES // 2 + len(middle) :]
    yield [*(bytes([byte]) for byte in start), middle, *(bytes([byte]) for byte in end)]


def split_randomly(data: bytes, dice: random.Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = dice.choice([1, 2, 3, 17, 200, 5000])
        yield data[start : start + size]
        start += size


def assert_says(open_reader: OpenReader, exchange: RecordedExchange, expected: Answer) -> None:
    """However it is split."""
    dice = random.Random(exchange.id)  # noqa: S311 - not for secrets
    for pieces in splits(exchange, dice):
        assert read(open_reader, exchange, pieces) == expected, exchange.id


FRAGMENTS = [b"null", b"{}", b"[]", b"-1", b"1e400", b'"\\ud800"', b"\xff", b"\n\n", b"data: ", b"\r", b"[" * 5000]


def mutate(body: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, lost, doubled or replaced by something else."""
    data = bytearray(body)
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(data) + 1)
        until = min(len(data), at + dice.choice([1, 3, 40]))
        piece = bytes(data[at:until])
        data[at:until] = dice.choice([b"", piece * 2, dice.randbytes(len(piece)), dice.choice(FRAGMENTS)])
    return bytes(data)


def assert_harmless(open_reader: OpenReader, exchange: RecordedExchange, body: bytes, dice: random.Random) -> None:
    """Only events come, nothing after a Failed, and the end is a Failed or one Finished."""
    events = feed(open_reader(exchange.media_type), split_randomly(body, dice))
    assert all(isinstance(event, EVENT_TYPES) for event in events)
    assert not any(isinstance(event, Failed) for event in events[:-1])
    assert isinstance(events[-1], Failed) or sum(isinstance(event, Finished) for event in events) == 1


def missing_fields(recorded: object, sent: object, left_out: Mapping[str, str], path: str = "") -> list[str]:
    """The fields of a recorded body that are not in what we send, or have another value there, as `a.b[0].c`.

    `left_out` maps a field's path without its indexes (`messages.name`) to the reason why we do not send it, or not so.
    """
    if path.replace("[]", "") in left_out:
        return []
    if isinstance(recorded, dict) and isinstance(sent, dict):
        return _missing_members(recorded, sent, left_out, path)
    if isinstance(recorded, list) and isinstance(sent, list) and len(recorded) == len(sent):
        pairs = zip(recorded, sent, strict=True)
        return [field for one, other in pairs for field in missing_fields(one, other, left_out, f"{path}[]")]
    return [] if recorded == sent else [path]


def _missing_members(
    recorded: dict[str, Any], sent: dict[str, Any], left_out: Mapping[str, str], path: str
) -> list[str]:
    missing = []
    for name, value in recorded.items():
        inner = f"{path}.{name}" if path else name
        if name in sent:
            missing += missing_fields(value, sent[name], left_out, inner)
        elif inner.replace("[]", "") not in left_out:
            missing.append(inner)
    return missing
