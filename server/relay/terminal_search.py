"""Where the desktop is whose terminals a device of this process binds: now, when it was not there, and from then on.

Letters between processes, and what is written down of a terminal, lag behind the desktop. So a bind that was refused is
tried again where the desktop is by then; and a terminal whose desktop has gone elsewhere is asked for there, if nobody
there has asked for it.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import trio

from server.relay.hub import Hub
from server.relay.member import Member
from server.relay.messages import Bind
from server.relay.roster import Roster
from server.relay.terminal_consumers import Binding, Consumers
from server.relay.terminal_post import Post
from server.relay.terminal_producers import Producers
from storage.errors import RedisUnavailable
from storage.presence import Link
from storage.terminal_routes import TerminalRecord, TerminalRoutes

LOOK_UP_SECONDS = 1.0
"""While Redis does not answer, a bind waits no longer for what is written down of its terminal."""
RETRY_SECONDS = 0.05
"""A desktop that has just connected may not have been let in yet."""
FOLLOW_SECONDS = 3.0
"""More than a desktop's new process needs to fetch what the one before had, which tells the device's process."""


@dataclass(eq=False, slots=True)
class Search:
    """One per process."""

    hub: Hub
    roster: Roster
    post: Post
    table: TerminalRoutes
    producers: Producers
    consumers: Consumers
    _astray: dict[Binding, str] = field(default_factory=dict)

    async def find_desktop(self, consumer: Member, bind: Bind) -> Link | None:
        """The one that is meant."""
        if bind.target_device_id is None:
            return await self.roster.find_primary(consumer.user_id)
        link = await self.roster.find(consumer.user_id, bind.target_device_id)
        return link if link is not None and link.client_type == "desktop" and link.is_visible else None

    def locate(self, user_id: UUID, link: Link) -> str:
        """The process that has the device."""
        return self.post.instance if self.hub.find(user_id, link.device_id) is not None else link.instance

    async def has_lost(self, consumer: Member, producer_id: UUID, session_id: str) -> bool:
        """Whether bytes that this device has not been given are gone, unless a process has them in memory."""
        if self.producers.has_route(consumer.user_id, producer_id, session_id):
            return False
        record = await self._read_record(consumer, producer_id, session_id)
        return record is not None and not _is_complete(record, consumer)

    async def find_waiting(self, consumer: Member, bind: Bind) -> TerminalRecord | None:
        """A terminal that the device had, and that waits for its desktop."""
        records: Sequence[TerminalRecord] = ()
        with suppress(RedisUnavailable), trio.move_on_after(LOOK_UP_SECONDS):
            records = await self.table.list(consumer.user_id)
        own = (one for one in records if one.session_id == bind.session_id and one.device_id == consumer.device_id)
        return next((one for one in own if bind.target_device_id in {None, one.producer_id}), None)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[object]], ...]:
        return self._retry, self._follow

    async def _retry(self) -> None:
        while True:
            await self.consumers.wait_refused()
            await trio.sleep(RETRY_SECONDS)
            for binding in self.consumers.take_refused():
                await self._retry_bind(binding)

    async def _retry_bind(self, binding: Binding) -> None:
        member, bind = binding.member, binding.bind
        self.roster.note_changed(member.user_id)
        link = await self.find_desktop(member, bind)
        if not self._is_open(binding):
            return
        if link is None or link.device_id != binding.producer_id:
            self.consumers.refuse(binding, "producerNotConnected")
        else:
            self.consumers.request(binding, self.locate(member.user_id, link), has_lost=binding.has_lost)

    async def _follow(self) -> None:
        while True:
            await trio.sleep(FOLLOW_SECONDS)
            astray = {}
            for binding in self.consumers.list_all():
                if not (binding.is_bound and binding.is_wanted):
                    continue
                link = await self.roster.find(binding.member.user_id, binding.producer_id)
                if link is not None and (instance := self._look_after(binding, link)) is not None:
                    astray[binding] = instance
            self._astray, former = astray, self._astray
            for binding, instance in astray.items():
                if binding.is_unknown or former.get(binding) == instance:
                    await self._send_after(binding, instance)

    def _look_after(self, binding: Binding, link: Link) -> str | None:
        """Where its desktop is, if that is not where it has it, or not known there."""
        instance = self.locate(binding.member.user_id, link)
        if instance != binding.instance or binding.is_unknown:
            return instance
        if link.connection_id != binding.checked:
            self.consumers.check(binding, link.connection_id)
        return None

    async def _send_after(self, binding: Binding, instance: str) -> None:
        record = await self._read_record(binding.member, binding.producer_id, binding.bind.session_id)
        has_lost = record is None or not _is_complete(record, binding.member)
        if self._is_open(binding) and binding.is_bound:
            self.consumers.follow(binding, instance, has_lost=has_lost)

    async def _read_record(self, consumer: Member, producer_id: UUID, session_id: str) -> TerminalRecord | None:
        with suppress(RedisUnavailable), trio.move_on_after(LOOK_UP_SECONDS):
            return await self.table.find(consumer.user_id, producer_id, session_id)
        return None

    def _is_open(self, binding: Binding) -> bool:
        return self.consumers.find(binding.member.connection_id, binding.id) is binding


def _is_complete(record: TerminalRecord, consumer: Member) -> bool:
    return record.is_whole and record.device_id == consumer.device_id
