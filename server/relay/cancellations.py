"""Calls that their users cancel, wherever they run: whoever is asked asks the other processes, by letters.

Nobody keeps a list of who runs which call: all are asked, and each says what it knows. A letter that comes twice,
or late, finds the call over, and an answer that nobody waits for any more is dropped.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

import msgspec
import trio

from proxy.audience import RunningCall
from server.relay.bridge import Bridge, Letter
from server.running_calls import RunningCalls

END_SECONDS = 60
"""So long one call may take to end. It goes on ending by itself: this only frees who waits for it."""

logger = logging.getLogger(__name__)


class CancelLetter(msgspec.Struct, array_like=True):
    """To every other process, from one that a user has asked. `serial` is the sender's name for its question."""

    serial: int
    call_id: UUID


class CancelledLetter(msgspec.Struct, array_like=True):
    """Back again: whether the receiver has ended that call, which is charged then, or it was over before; None if the
    receiver does not run it.
    """

    serial: int
    has_ended: bool | None


@dataclass(slots=True)
class _Question:
    """`unheard` are those who have not answered. Over when who runs the call has, or all have."""

    unheard: set[str]
    has_ended: bool | None = None
    is_over: trio.Event = field(default_factory=trio.Event)

    def note(self, instance: str, has_ended: bool | None) -> None:
        self.unheard.discard(instance)
        if has_ended is not None:
            self.has_ended = has_ended
        if self.has_ended is not None or not self.unheard:
            self.is_over.set()


class Cancellations:
    """One per process."""

    def __init__(self, running: RunningCalls, bridge: Bridge) -> None:
        self._running = running
        self._bridge = bridge
        self._questions: dict[int, _Question] = {}
        self._serials = count(1)
        self._ends: trio.Nursery | None = None
        bridge.handle("cancel", CancelLetter, self._receive)
        bridge.handle("cancelled", CancelledLetter, self._note_answer)
        bridge.hear_gone(self._note_gone)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return (self._keep_ending,)

    async def ask_others(self, user_id: UUID, call_id: UUID) -> bool | None:
        """Whether the process that runs this call has ended it, or it was over before; None if nobody runs it. Takes as
        long as whoever is slow, until it is known to be gone: the caller owns the time. Raises RedisUnavailable.
        """
        serial, question = next(self._serials), _Question(set(await self._bridge.find_others()))
        self._questions[serial] = question
        try:
            letter = CancelLetter(serial, call_id)
            for instance in tuple(question.unheard):
                if not self._bridge.send(instance, user_id, "cancel", letter):
                    question.note(instance, None)
            if question.unheard:
                await question.is_over.wait()
            return question.has_ended
        finally:
            del self._questions[serial]

    async def _receive(self, letter: Letter, body: CancelLetter) -> None:
        """The user is compared here too: whoever asks may have been wrong."""
        call = self._running.find(letter.user_id, body.call_id)
        if call is None or self._ends is None:
            self._answer(letter, body, None)
        else:
            self._ends.start_soon(self._end_and_answer, call, letter, body)

    def end_call(self, call_id: UUID) -> None:
        """One of this process, in the background; its user wants it. Safe to repeat."""
        if (call := self._running.get(call_id)) is not None and self._ends is not None:
            self._ends.start_soon(self._end, call)

    async def _end_and_answer(self, call: RunningCall, letter: Letter, body: CancelLetter) -> None:
        if (has_ended := await self._end(call)) is not None:
            self._answer(letter, body, has_ended)

    async def _end(self, call: RunningCall) -> bool | None:
        """None if that is not known."""
        try:
            with trio.move_on_after(END_SECONDS):
                return await call.cancel()
        except Exception:  # the edge of the task: the others are ended all the same
            logger.exception("a call could not be cancelled", extra={"call_id": call.request_id})
        return None

    def _answer(self, letter: Letter, body: CancelLetter, has_ended: bool | None) -> None:
        self._bridge.send(letter.sender, letter.user_id, "cancelled", CancelledLetter(body.serial, has_ended))

    async def _note_answer(self, letter: Letter, body: CancelledLetter) -> None:
        if (question := self._questions.get(body.serial)) is not None:
            question.note(letter.sender, body.has_ended)

    def _note_gone(self, instance: str) -> None:
        for question in tuple(self._questions.values()):
            question.note(instance, None)

    async def _keep_ending(self) -> None:
        async with trio.open_nursery() as nursery:
            self._ends = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._ends = None
