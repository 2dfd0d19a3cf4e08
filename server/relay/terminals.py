"""Terminals: bytes from a desktop to the one device that has bound a session. The desktop's process decides.

    terminal_route          one terminal: numbers, what is confirmed, what waits, when the desktop is paused. Pure
    terminal_window         how much may be on its way, and how much may wait. Pure
    terminal_confirmations  what the pongs of a device confirm. Pure
    terminal_desktop        one desktop of this process
    terminal_producers      all of them
    terminal_consumers      the devices of this process that have terminals bound
    terminal_search         where the desktop is that a device means
    terminal_moves          a desktop that connects to another process takes what waits along
    terminal_records        where terminals are, for when a process is lost
    terminal_post           letters, of terminal_letters (pure), between the two sides, on one process or on two

A desktop whose process was killed begins with a snapshot: what that process had in memory is lost, and the device is
told so by it. So it is where more has waited than there may, and where another device has had the terminal meanwhile.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import trio

from server.relay.bridge import Bridge
from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.messages import Bind
from server.relay.roster import Roster
from server.relay.terminal_consumers import Binding, Consumers, build_unwanted
from server.relay.terminal_desktop import Producer
from server.relay.terminal_frames import TerminalError, build_refusal, encode_session
from server.relay.terminal_moves import Moves
from server.relay.terminal_post import Post
from server.relay.terminal_producers import Producers
from server.relay.terminal_records import TerminalRecords
from server.relay.terminal_route import Deliver
from server.relay.terminal_search import LOOK_UP_SECONDS, Search
from storage.errors import RedisUnavailable
from storage.terminal_routes import TerminalRecord, TerminalRoutes

LOOK_SECONDS = 1.0
SETTLE_LOOK_SECONDS = 0.05


class Terminals:
    """One per process. `loops` are to run before the bridge brings letters."""

    def __init__(
        self,
        hub: Hub,
        roster: Roster,
        bridge: Bridge,
        table: TerminalRoutes,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._hub = hub
        self._roster = roster
        self._table = table
        self._post = Post(bridge)
        self._consumers = Consumers(self._post, clock)
        self._records = TerminalRecords(table, bridge.instance, self._note_foreign)
        self._producers = Producers(self._post, clock, self._find_local, self._records)
        self._search = Search(hub, roster, self._post, table, self._producers, self._consumers)
        self._moves = Moves(hub, self._post, self._producers, self._records, clock)
        hub.hear_leaving(self._note_left)
        bridge.hear_lost(self._note_lost)

    async def bind(self, consumer: Member, bind: Bind) -> None:
        """Answers with `bound`, or with an error frame: `missingSessionId` (no frame could name it),
        `producerNotConnected`, `forwardFailed`. A device whose terminal waits for its desktop is bound without one.
        """
        if encode_session(bind.session_id) is None:
            _refuse(consumer, "missingSessionId")
        elif (link := await self._search.find_desktop(consumer, bind)) is None:
            await self._bind_absent(consumer, bind)
        else:
            has_lost = await self._search.has_lost(consumer, link.device_id, bind.session_id)
            instance = self._search.locate(consumer.user_id, link)
            self._request(consumer, link.device_id, instance, bind, has_lost=has_lost)

    async def unbind(self, consumer: Member, session_id: str) -> None:
        """Changes nothing if the device does not have it bound. It may bind it again for a while without a loss."""
        if encode_session(session_id) is None:
            _refuse(consumer, "missingSessionId")
            return
        link = await self._roster.find_primary(consumer.user_id)
        bindings = self._consumers.list_bindings(consumer, session_id)
        for binding in bindings:
            binding.is_wanted = False
            unwanted = build_unwanted(consumer, binding.producer_id, session_id)
            if not self._post.tell(binding.instance, consumer.user_id, unwanted):
                self._consumers.drop(binding)
        if link is None:
            _refuse(consumer, "producerNotConnected")
        elif not bindings:
            unwanted = build_unwanted(consumer, link.device_id, session_id)
            self._post.tell(self._search.locate(consumer.user_id, link), consumer.user_id, unwanted)

    def pass_on(self, producer: Member, frame: bytes) -> None:
        """A binary message from a device. What is no terminal frame, or has no route, is dropped. Never waits."""
        self._producers.pass_on(producer, frame)

    def note_pong(self, consumer: Member, payload: bytes) -> None:
        """Everything before the ping that this answers has arrived. Not every ping is of terminals."""
        self._consumers.note_pong(consumer, payload)

    async def resume_producer(self, producer: Member) -> None:
        """A desktop has registered, and is in the hub: its sessions that somebody still has bound are bound again.
        Waits for what another process may have of them, for some seconds at most. Safe to repeat.
        """
        if producer.is_desktop:
            await self._moves.resume(producer)

    def prepare_end(self, producer: Member) -> bool:
        """The server is about to close this socket: its desktop is told to keep what comes from now on, which it would
        lose if it sent it. What it has sent is taken. False if it has nothing to be told.
        """
        return self._producers.hold(producer)

    async def wait_settled(self) -> None:
        """For the end of the process, when no socket is left: until nobody needs its memory, for all has arrived and
        that is written down, or another process has fetched it.
        """
        while self._producers.is_needed or self._records.is_behind:
            self._producers.look()
            await trio.sleep(SETTLE_LOOK_SECONDS)

    @property
    def waiting_bytes(self) -> int:
        """Of all terminals of this process, for metrics."""
        return self._producers.waiting_bytes

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        """Graces, what Redis is told, what other processes are handed, and binds that are tried again."""
        return self._look, self._moves.run, *self._records.loops, *self._search.loops

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            self._producers.look()
            self._moves.look()

    async def _bind_absent(self, consumer: Member, bind: Bind) -> None:
        """No desktop is connected. A terminal that the device had waits, and is bound when the desktop is back."""
        record = await self._search.find_waiting(consumer, bind)
        if record is None:
            _refuse(consumer, "producerNotConnected")
        elif self._producers.has_route(consumer.user_id, record.producer_id, bind.session_id):
            self._request(consumer, record.producer_id, self._post.instance, bind)
        elif record.owner != self._post.instance and self._post.reaches(record.owner):
            self._request(consumer, record.producer_id, record.owner, bind)
        else:
            await self._wait_written(consumer, bind, record)

    async def _wait_written(self, consumer: Member, bind: Bind, record: TerminalRecord) -> None:
        """No process has this terminal: the one to which the desktop comes reads who waits for it."""
        binding = self._open_binding(consumer, record.producer_id, bind)
        if binding is None:
            return
        binding.instance = record.owner
        new = replace(
            record, connection_id=consumer.connection_id, instance=self._post.instance, binding=binding.id
        )
        is_written = False
        with suppress(RedisUnavailable), trio.move_on_after(LOOK_UP_SECONDS):
            is_written = await self._table.save(consumer.user_id, new)
        if is_written:
            self._consumers.confirm_bound(binding)
        else:
            self._consumers.refuse(binding, "producerNotConnected")

    def _request(
        self, consumer: Member, producer_id: UUID, instance: str, bind: Bind, *, has_lost: bool = False
    ) -> None:
        if (binding := self._open_binding(consumer, producer_id, bind)) is not None:
            self._consumers.request(binding, instance, has_lost=has_lost)

    def _open_binding(self, consumer: Member, producer_id: UUID, bind: Bind) -> Binding | None:
        """None if the connection has ended meanwhile, or has bound too many."""
        if self._hub.find_connection(consumer.connection_id) is not consumer:
            return None
        binding = self._consumers.open_binding(consumer, producer_id, bind)
        if binding is None:
            _refuse(consumer, "forwardFailed")
        return binding

    def _find_local(self, connection_id: UUID, binding_id: int) -> Deliver | None:
        binding = self._consumers.find(connection_id, binding_id)
        return None if binding is None else binding.put

    def _note_foreign(self, producer: Producer) -> None:
        self._producers.note_foreign(producer)

    def _note_left(self, member: Member) -> None:
        self._producers.detach_member(member)
        self._moves.note_left(member)
        self._consumers.forget(member)

    def _note_lost(self, instance: str) -> None:
        self._producers.lose_instance(instance)
        self._consumers.lose_instance(instance)


def _refuse(consumer: Member, code: TerminalError) -> None:
    consumer.outbox.put_text(build_refusal(code, datetime.now(UTC)))
