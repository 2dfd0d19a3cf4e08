"""Devices of this process that have terminals bound: what they are given, and what they confirm."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from uuid import UUID

import trio

from server.relay.member import Member
from server.relay.messages import Bind
from server.relay.terminal_confirmations import Confirmations
from server.relay.terminal_frames import TerminalError, build_bound, build_refusal
from server.relay.terminal_letters import (
    Bound,
    Check,
    Frame,
    Here,
    Left,
    Over,
    Refused,
    Taken,
    Unknown,
    Unwanted,
    Wanted,
    Where,
)
from server.relay.terminal_post import Post

MAX_BINDINGS = 200
"""Of a connection; its desktop's process lets go of the oldest before there are so many."""
SEARCH_SECONDS = 3.0
"""So long a desktop that is not where it was thought to be is looked for."""


class Binding:
    """A terminal as one connection has it bound. `instance` has its desktop, as far as is known; `asked` is the process
    that is to answer the last bind. `is_told`: the device knows that it is bound. `is_wanted`: it has not unbound it.
    """

    __slots__ = (
        "_consumer",
        "asked",
        "bind",
        "checked",
        "confirmed",
        "epoch",
        "has_lost",
        "id",
        "instance",
        "is_bound",
        "is_missing",
        "is_told",
        "is_unknown",
        "is_wanted",
        "next_number",
        "producer_id",
        "search_until",
    )

    def __init__(self, binding_id: int, consumer: "ConsumerSocket", producer_id: UUID, bind: Bind) -> None:
        self.id = binding_id
        self.producer_id = producer_id
        self.bind = bind
        self.instance = self.asked = ""
        self.epoch = 0
        self.next_number = 1
        self.confirmed = 0
        self.search_until = 0.0
        self.has_lost = False
        self.checked: UUID | None = None
        self.is_bound = self.is_told = self.is_missing = self.is_unknown = False
        self.is_wanted = True
        self._consumer = consumer

    @property
    def member(self) -> Member:
        return self._consumer.member

    def put(self, number: int, frame: bytes) -> bool:
        """The next frame. What is put on a connection that has ended is not confirmed, and so it is not lost."""
        consumer = self._consumer
        outbox = consumer.member.outbox
        self.next_number = number + 1
        outbox.put_frame(frame)
        if (ping := consumer.confirmations.note_put(self.id, number, len(frame))) is not None:
            outbox.put_ping(ping)
        return True

    def build_wanted(self) -> Wanted:
        return Wanted(
            self.producer_id,
            self.bind.session_id,
            self.member.device_id,
            self.member.connection_id,
            self.id,
            self.member.held.link.connected_at,
            self.bind.include_snapshot,
            self.bind.force_snapshot,
            self.has_lost,
            self.next_number,
            self.confirmed,
            self.epoch,
        )

    def build_check(self) -> Check:
        return Check(self.producer_id, self.bind.session_id, self.member.connection_id, self.id)

    def build_here(self) -> Here:
        place = (self.producer_id, self.bind.session_id, self.member.connection_id, self.id)
        return Here(*place, self.next_number, self.confirmed)


def build_unwanted(member: Member, producer_id: UUID, session_id: str) -> Unwanted:
    return Unwanted(producer_id, session_id, member.device_id, member.held.link.connected_at)


class ConsumerSocket:
    """A connection with the terminals that it has bound, or is about to."""

    __slots__ = ("bindings", "by_terminal", "confirmations", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.confirmations = Confirmations()
        self.bindings: dict[int, Binding] = {}
        self.by_terminal: dict[tuple[UUID, str], Binding] = {}


class Consumers:
    """One per process."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._clock = clock
        self._sockets: dict[UUID, ConsumerSocket] = {}
        self._ids = count(1)
        self._refused: list[Binding] = []
        self._has_refused = trio.Event()
        post.handle(Bound, self._note_bound)
        post.handle(Refused, self._note_refused)
        post.handle(Frame, self._put)
        post.handle(Where, self._answer_where)
        post.handle(Unknown, self._note_unknown)
        post.handle(Over, self._forget_binding)

    def open_binding(self, member: Member, producer_id: UUID, bind: Bind) -> Binding | None:
        """The one that there is, or a new one. None if there are too many."""
        socket = self._sockets.get(member.connection_id)
        if socket is None:
            socket = self._sockets[member.connection_id] = ConsumerSocket(member)
        binding = socket.by_terminal.get((producer_id, bind.session_id))
        if binding is None:
            if len(socket.bindings) >= MAX_BINDINGS:
                return None
            binding = Binding(next(self._ids), socket, producer_id, bind)
            socket.bindings[binding.id] = socket.by_terminal[producer_id, bind.session_id] = binding
        binding.bind, binding.is_told, binding.is_wanted = bind, False, True
        binding.search_until = self._clock() + SEARCH_SECONDS
        return binding

    def find(self, connection_id: UUID, binding_id: int) -> Binding | None:
        socket = self._sockets.get(connection_id)
        return None if socket is None else socket.bindings.get(binding_id)

    def list_bindings(self, member: Member, session_id: str) -> list[Binding]:
        """Of whichever desktop."""
        socket = self._sockets.get(member.connection_id)
        return [] if socket is None else [one for one in socket.bindings.values() if one.bind.session_id == session_id]

    def request(self, binding: Binding, instance: str, *, has_lost: bool) -> None:
        """Ask the desktop's process, which answers with a letter."""
        if binding.instance not in {"", instance}:
            binding.epoch += 1
        binding.instance = binding.asked = instance
        binding.is_bound, binding.is_unknown, binding.has_lost = False, False, has_lost
        if not self._post.tell(instance, binding.member.user_id, binding.build_wanted()):
            self.refuse(binding, "forwardFailed")

    def check(self, binding: Binding, desktop_connection_id: UUID) -> None:
        """The desktop has a connection that this binding was not used with."""
        binding.checked = desktop_connection_id
        self._post.tell(binding.instance, binding.member.user_id, binding.build_check())

    def follow(self, binding: Binding, instance: str, *, has_lost: bool) -> None:
        """Its desktop has gone there, and that process does not know of it. The device need not know."""
        binding.bind = replace(binding.bind, include_snapshot=False, force_snapshot=False)
        binding.search_until = self._clock() + SEARCH_SECONDS
        self.request(binding, instance, has_lost=has_lost)

    def confirm_bound(self, binding: Binding) -> None:
        binding.is_bound = True
        if not binding.is_told:
            binding.is_told = True
            binding.member.outbox.put_text(build_bound(binding.bind.session_id))

    def refuse(self, binding: Binding, code: TerminalError) -> None:
        binding.member.outbox.put_text(build_refusal(code, datetime.now(UTC)))
        self.drop(binding)

    def drop(self, binding: Binding) -> None:
        """Nothing more is given to it, and whoever asks where it is hears that it is gone."""
        if (socket := self._sockets.get(binding.member.connection_id)) is not None:
            socket.bindings.pop(binding.id, None)
            socket.by_terminal.pop((binding.producer_id, binding.bind.session_id), None)

    def note_pong(self, member: Member, payload: bytes) -> None:
        socket = self._sockets.get(member.connection_id)
        if socket is None or (confirmed := socket.confirmations.note_pong(payload)) is None:
            return
        if confirmed.ping is not None:
            member.outbox.put_ping(confirmed.ping)
        for binding_id, number in confirmed.numbers.items():
            if (binding := socket.bindings.get(binding_id)) is not None:
                binding.confirmed = number
                place = (binding.producer_id, binding.bind.session_id, member.connection_id, binding_id)
                self._post.tell(binding.instance, member.user_id, Taken(*place, number))

    def forget(self, member: Member) -> None:
        """The connection has ended: whoever has terminals for it is told."""
        socket = self._sockets.pop(member.connection_id, None)
        if socket is not None:
            for instance in dict.fromkeys(binding.instance for binding in socket.bindings.values()):
                self._post.tell(instance, member.user_id, Left(member.connection_id))

    def lose_instance(self, instance: str) -> None:
        """Binds that it has not answered it never will."""
        for binding in self.list_all():
            if binding.asked == instance and not binding.is_bound:
                self.refuse(binding, "forwardFailed")

    async def wait_refused(self) -> None:
        """Until there are binds whose desktop is to be looked for once more."""
        await self._has_refused.wait()

    def take_refused(self) -> Sequence[Binding]:
        refused, self._refused = self._refused, []
        self._has_refused = trio.Event()
        return refused

    def list_all(self) -> list[Binding]:
        """As they are now, of all connections."""
        return [binding for socket in self._sockets.values() for binding in socket.bindings.values()]

    def _note_bound(self, sender: str, user_id: UUID, body: Bound, blob: bytes) -> None:
        if (binding := self.find(body.connection_id, body.binding)) is not None and binding.asked == sender:
            self.confirm_bound(binding)

    def _note_refused(self, sender: str, user_id: UUID, body: Refused, blob: bytes) -> None:
        binding = self.find(body.connection_id, body.binding)
        if binding is None or binding.asked != sender or binding.is_bound:
            return
        if self._clock() >= binding.search_until:
            self.refuse(binding, "producerNotConnected")
            return
        self._refused.append(binding)
        self._has_refused.set()

    def _put(self, sender: str, user_id: UUID, body: Frame, blob: bytes) -> None:
        """From another process. One that comes too early has lost others before it, which are asked for, once."""
        binding = self.find(body.connection_id, body.binding)
        if binding is None or body.epoch < binding.epoch or body.number < binding.next_number:
            return
        if body.number == binding.next_number:
            binding.is_missing = False
            binding.put(body.number, blob)
        elif not binding.is_missing:
            binding.is_missing = True
            self._post.tell(sender, user_id, binding.build_here())

    def _answer_where(self, sender: str, user_id: UUID, body: Where, blob: bytes) -> None:
        binding = self.find(body.connection_id, body.binding)
        if binding is None:
            self._post.tell(sender, user_id, Left(body.connection_id, body.binding))
        elif body.epoch >= binding.epoch:
            binding.instance, binding.epoch = sender, body.epoch
            self._post.tell(sender, user_id, binding.build_here())

    def _note_unknown(self, sender: str, user_id: UUID, body: Unknown, blob: bytes) -> None:
        """It is asked for again where the desktop is, before long."""
        if (binding := self.find(body.connection_id, body.binding)) is not None and binding.instance == sender:
            binding.is_unknown = True

    def _forget_binding(self, sender: str, user_id: UUID, body: Over, blob: bytes) -> None:
        """Unless it has been asked for again meanwhile: the answer to that follows."""
        binding = self.find(body.connection_id, body.binding)
        if binding is not None and binding.instance == sender and binding.is_bound:
            self.drop(binding)
