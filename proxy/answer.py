"""Reading a provider's answer: what all dialects have in common, so that each only says what its JSON means.

A dialect brings an AnswerReader for one answer. Around it this module keeps what every answer owes the gateway: nothing
after a Failed, one Finished, a Failed for an answer that was cut short, and bounded memory whatever comes.
"""

from typing import Protocol

import msgspec

from proxy.events import ChatEvent, Failed, Finished
from proxy.failures import failed_here
from proxy.provider import Reader
from proxy.sse import EventTooLarge, ServerSentEvent, SseDecoder

MAX_WHOLE_ANSWER_BYTES = 64 * 1024 * 1024

_BLANK = b" \t\r\n\xef\xbb\xbf"
_BEGINNINGS = (b"d", b"e", b"i", b"r", b":")
"""Of an event stream's fields `data`, `event`, `id`, `retry`, of which one byte may have come, and of its comments."""

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes from outside; the last for thousands of brackets."""


class AnswerReader(Protocol):
    """What the JSON of one dialect means, for one answer. Keeps what must be remembered between its events.

    Its methods append to `events` and never raise for what a provider sends: what cannot be read is a Failed.
    """

    @property
    def is_done(self) -> bool:
        """Whether the mark of the answer's end was seen (`[DONE]`, `message_stop`, …); nothing counts after it."""
        ...

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        """One event of a stream."""
        ...

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        """An answer in one piece. What has no Finished and no Failed afterwards was no answer."""
        ...


def open_reader(provider: str, answer: AnswerReader, media_type: str) -> Reader:
    """For an event stream, or for a whole answer from a server that does not stream. What calls itself neither shows
    by how it begins: servers in between may say `text/plain`, or nothing.
    """
    kind = media_type.lower()
    if kind.startswith("text/event-stream"):
        return StreamReader(provider, answer)
    return WholeReader(provider, answer) if "json" in kind else UndecidedReader(provider, answer)


def not_an_answer(provider: str) -> Failed:
    return failed_here(provider, "parsing_error", "the provider sent something that is no chat answer")


class StreamReader:
    """Reads an event stream. Says Failed if it ends before its answer did."""

    def __init__(self, provider: str, answer: AnswerReader) -> None:
        self._provider = provider
        self._answer = answer
        self._decoder = SseDecoder()
        self._saw_finish = False
        self._failed = False

    @property
    def is_done(self) -> bool:
        return self._answer.is_done

    def feed(self, data: bytes) -> list[ChatEvent]:
        if self._failed:
            return []
        try:
            server_events = self._decoder.feed(data)
        except EventTooLarge as error:
            self._failed = True
            return [failed_here(self._provider, "parsing_error", str(error))]
        return self._read_all(server_events)

    def finish(self) -> list[ChatEvent]:
        if self._failed:
            return []
        events = self._read_all(self._decoder.finish())
        if self._saw_finish or self._failed:
            return events
        if self._answer.is_done:
            events.append(Finished("stop"))
        else:
            events.append(failed_here(self._provider, "network_error", "the provider's answer was cut short"))
        return events

    def _read_all(self, server_events: list[ServerSentEvent]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for server_event in server_events:
            if self._answer.is_done or self._failed:
                break
            start = len(events)
            self._answer.read_event(server_event, events)
            if len(events) > start:
                self._check(events, start)
        return events

    def _check(self, events: list[ChatEvent], start: int) -> None:
        """Some servers repeat the reason to finish in the chunk that carries the usage: the first counts."""
        position = start
        while position < len(events):
            event = events[position]
            if isinstance(event, Failed):
                self._failed = True
                del events[position + 1 :]
            elif isinstance(event, Finished):
                if self._saw_finish:
                    del events[position]
                    continue
                self._saw_finish = True
            position += 1


class WholeReader:
    """Reads an answer that came in one piece, although a stream was asked for or because none was."""

    def __init__(self, provider: str, answer: AnswerReader, max_bytes: int = MAX_WHOLE_ANSWER_BYTES) -> None:
        self._provider = provider
        self._answer = answer
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._failed = False

    @property
    def is_done(self) -> bool:
        """Only the end of the body says so."""
        return False

    def feed(self, data: bytes) -> list[ChatEvent]:
        if self._failed:
            return []
        if len(self._body) + len(data) > self._max_bytes:
            self._failed = True
            return [failed_here(self._provider, "parsing_error", "the provider's answer is too large")]
        self._body += data
        return []

    def finish(self) -> list[ChatEvent]:
        if self._failed:
            return []
        events: list[ChatEvent] = []
        self._answer.read_whole(bytes(self._body), events)
        for position, event in enumerate(events):
            if isinstance(event, Failed):
                return events[: position + 1]
        if not any(isinstance(event, Finished) for event in events):
            events.append(not_an_answer(self._provider))
        return events


class UndecidedReader:
    """Reads an answer of unknown form, as soon as its beginning tells."""

    def __init__(self, provider: str, answer: AnswerReader) -> None:
        self._provider = provider
        self._answer = answer
        self._reader: Reader | None = None

    @property
    def is_done(self) -> bool:
        return self._reader is not None and self._reader.is_done

    def feed(self, data: bytes) -> list[ChatEvent]:
        if self._reader is None:
            begun = data.lstrip(_BLANK)
            if not begun:
                return []
            kind = StreamReader if begun.startswith(_BEGINNINGS) else WholeReader
            self._reader = kind(self._provider, self._answer)
        return self._reader.feed(data)

    def finish(self) -> list[ChatEvent]:
        reader = self._reader or WholeReader(self._provider, self._answer)
        return reader.finish()
