"""The calls of this process's devices that wait for an answer, and what becomes of each. Pure.

Every call is answered once: by its desktop, or by us, and then what the desktop says of it later is dropped. A call
whose desktop's connection has ended waits for the device to come back: then it is sent again if it has a key, and else
answered, for nobody knows whether it was carried out. What the desktop is known not to have got may always be sent.
"""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from server.relay.call_frames import ID_TOO_LONG, OFFLINE, TOO_LATE, TOO_MANY, Failure

ANSWER_SECONDS = 120.0
"""So long a desktop may take, for an answer or for its next piece."""
GRACE_SECONDS = 10.0
"""So long a desktop whose connection has ended may take to be back."""
MISSED_SECONDS = 0.5
"""So long a call whose desktop was not where it was said to be is tried again: it may just be registering."""
MAX_PENDING = 1_000
"""Of one caller; and so many ids of calls that we have answered ourselves."""
MAX_ID_CHARS = 512
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Calls that are kept to be sent again: a process's, together."""
MAX_KEPT_BYTES_OF_USER = 16 * 1024 * 1024
"""Less than a desktop may leave unread, for it gets all of them at once. One that is not kept is not sent again."""

NO_PINGS = ("system.ping", "ping")
"""Answered at once, or for nobody: whoever asks waits three seconds."""

DeviceKey = tuple[UUID, UUID]
"""A user, and a device of theirs."""


@dataclass(frozen=True, slots=True)
class Desktop:
    """One connection of a desktop, on whichever process."""

    device_id: UUID
    connection_id: UUID
    instance: str


@dataclass(eq=False, slots=True)
class Call:
    """`caller_id` is a connection. `frame` is empty unless it is kept to be sent again. `missed_at`: when its desktop
    was not there to get it; `has_been_lost`: it may have got it all the same, or another connection of its before.
    `grace_ends_at`: of the last grace that it had. `is_repeated`: more than one answer may come.
    """

    serial: int
    user_id: UUID
    caller_id: UUID
    id: str
    desktop: Desktop
    idempotency_key: str | None
    is_ping: bool
    ends_at: float
    frame: bytes = field(default=b"", repr=False)
    grace_ends_at: float = -math.inf
    missed_at: float | None = None
    has_been_lost: bool = False
    is_repeated: bool = False
    has_pieces: bool = False

    @property
    def device_key(self) -> DeviceKey:
        return self.user_id, self.desktop.device_id


@dataclass(frozen=True, slots=True)
class Met:
    """A desktop is back. `again`: calls and their frames, which count as sent to it now; `failed` have ended."""

    again: Sequence[tuple[Call, bytes]]
    failed: Sequence[Call]


@dataclass(eq=False, slots=True)
class _Caller:
    calls: dict[str, list[Call]] = field(default_factory=dict)
    count: int = 0
    answered: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Ids whose answers are to be dropped, should they come."""

    def note_answered(self, call_id: str) -> None:
        self.answered[call_id] = None
        if len(self.answered) > MAX_PENDING:
            self.answered.popitem(last=False)


@dataclass(eq=False, slots=True)
class _Lost:
    """Calls to a device whose connection has ended, or was not there, in the order in which they were made. Its process
    was noticed to be gone when the grace was over, perhaps: the device `is_unsought` until somebody has looked for it.
    """

    ends_at: float = -math.inf
    is_unsought: bool = False
    calls: dict[int, Call] = field(default_factory=dict)


class CallTable:
    """Times are seconds of the caller's clock, which never goes back."""

    def __init__(self) -> None:
        self._last_serial = 0
        self._calls: OrderedDict[int, Call] = OrderedDict()
        """By the time at which they end."""
        self._callers: defaultdict[UUID, _Caller] = defaultdict(_Caller)
        self._asked: defaultdict[UUID, dict[int, Call]] = defaultdict(dict)
        self._lost: dict[DeviceKey, _Lost] = {}
        self._kept_bytes: defaultdict[UUID, int] = defaultdict(int)
        self._all_kept_bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def kept_bytes(self) -> int:
        return self._all_kept_bytes

    @property
    def lost(self) -> Collection[DeviceKey]:
        """Devices that calls wait for; those that were looked for last come last."""
        return self._lost.keys()

    @property
    def next_at(self) -> float:
        """Not before this time is there anything to expire, unless a desktop is lost."""
        return next(iter(self._calls.values())).ends_at if self._calls else math.inf

    def has_lost(self, user_id: UUID) -> bool:
        return any(user_id == lost_id for lost_id, _ in self._lost)

    def check(self, caller_id: UUID, call_id: str) -> Failure | None:
        """Why a call cannot be taken."""
        if len(call_id) > MAX_ID_CHARS:
            return ID_TOO_LONG
        is_full = caller_id in self._callers and self._callers[caller_id].count >= MAX_PENDING
        return TOO_MANY if is_full else None

    def find_repeated(self, caller_id: UUID, call_id: str, idempotency_key: str | None) -> Call | None:
        """The call that its caller makes again while it waits: with the same id and the same key. It gets one answer.
        Another that only shares its id is a call of its own.
        """
        if idempotency_key is None or caller_id not in self._callers:
            return None
        calls = self._callers[caller_id].calls.get(call_id, ())
        return next((call for call in calls if call.idempotency_key == idempotency_key), None)

    def is_asked(self, call: Call, connection_id: UUID) -> bool:
        return call.serial in self._asked.get(connection_id, ())

    def add(self, call: Call, frame: bytes) -> None:
        """It is about to be sent. `call.ends_at` is by `ANSWER_SECONDS` from now."""
        caller = self._callers[call.caller_id]
        if call.id in caller.answered:  # a late answer of the call before it would be taken for its own
            del caller.answered[call.id]
            call.is_repeated = True
        caller.calls.setdefault(call.id, []).append(call)
        caller.count += 1
        self._calls[call.serial] = call
        self._asked[call.desktop.connection_id][call.serial] = call
        if call.idempotency_key is not None and not call.is_ping and self._fits(call.user_id, len(frame)):
            self._keep(call, frame)

    def next_serial(self) -> int:
        self._last_serial += 1
        return self._last_serial

    def answer(self, caller_id: UUID, call_id: str, device_id: UUID, now: float, *, is_final: bool) -> bool:
        """A device answers. False if its caller is not to get it: it has had its answer, or asked another desktop.
        True also for a call that nobody here knows of: whoever made it had another connection.
        """
        if (caller := self._callers.get(caller_id)) is None:
            return True
        if not (calls := caller.calls.get(call_id)):
            return call_id not in caller.answered
        call = next((call for call in calls if call.desktop.device_id == device_id), None)
        if call is not None and is_final:
            self._end(call)
            if call.is_repeated:
                caller.note_answered(call_id)
        elif call is not None:
            call.has_pieces, call.ends_at = True, now + ANSWER_SECONDS
            self._calls.move_to_end(call.serial)
        return call is not None

    def fail(self, call: Call) -> None:
        """We answer it."""
        self._end(call)
        self._callers[call.caller_id].note_answered(call.id)

    def forget(self, caller_id: UUID) -> None:
        """The caller's connection has ended: nobody waits any more."""
        if (caller := self._callers.pop(caller_id, None)) is not None:
            for call in [call for calls in caller.calls.values() for call in calls]:
                self._leave(call)

    def lose(self, connection_id: UUID, ended_at: float) -> Sequence[Call]:
        """A desktop's connection has ended. What it was asked waits for the device, but for those that are returned:
        they have failed.
        """
        calls = tuple(self._asked.get(connection_id, {}).values())
        for call in calls:
            call.grace_ends_at, call.has_been_lost = ended_at + GRACE_SECONDS, True
            if call.is_ping:
                self.fail(call)
            else:
                self._set_aside(call)
        return [call for call in calls if call.is_ping]

    def lose_instance(self, instance: str, now: float, last_sign_at: float) -> Sequence[Call]:
        """The same for all of a process, which was heard of last at that time. Its connections may still be there, and
        letters be lost: what is safe to send twice is sent again, also to the same connection. However long ago that
        is, nothing ends before its device was looked for.
        """
        lost = [call for call in self._calls.values() if call.desktop.instance == instance]
        for call in lost:
            call.missed_at = now
        connections = dict.fromkeys(call.desktop.connection_id for call in lost)
        ended_at = max(last_sign_at, now + MISSED_SECONDS - GRACE_SECONDS)
        failed = [call for connection_id in connections for call in self.lose(connection_id, ended_at)]
        for call in lost:
            if (waiting := self._lost.get(call.device_key)) is not None:
                waiting.is_unsought = True
        return failed

    def note_sought(self, device_key: DeviceKey) -> None:
        """Its device was looked for."""
        if (lost := self._lost.pop(device_key, None)) is not None:
            lost.is_unsought = False
            self._lost[device_key] = lost

    def miss(self, serial: int, connection_id: UUID, frame: bytes, now: float) -> Call | None:
        """The connection was not there, and has not got the call. Returned if it has failed."""
        call = self._calls.get(serial)
        if call is None or not self.is_asked(call, connection_id):
            return None
        if call.grace_ends_at == -math.inf:
            call.grace_ends_at = now + MISSED_SECONDS
        if now >= call.grace_ends_at:
            self.fail(call)
            return call
        call.missed_at = now
        if not call.frame:
            self._keep(call, frame)
        self._set_aside(call)
        return None

    def meet(self, user_id: UUID, desktop: Desktop, missed_until: float) -> Met:
        """The device has this connection now: what waits for it is sent to it, or fails. What this very connection has
        missed is tried again if that was at the given time, or before.
        """
        lost = self._lost.get((user_id, desktop.device_id))
        calls = [] if lost is None else sorted(lost.calls.values(), key=lambda call: call.serial)
        again, failed = [], []
        for call in calls:
            is_new = call.desktop.connection_id != desktop.connection_id
            has_missed = call.missed_at is not None and call.missed_at <= missed_until
            if _is_safe_to_send(call) and (is_new or has_missed):
                again.append((call, call.frame))
            elif is_new:
                failed.append(call)
        for call, _ in again:
            self._send_again(call, desktop)
        for call in failed:
            self.fail(call)
        return Met(again, failed)

    def give_up(self, user_id: UUID, device_id: UUID) -> Sequence[Call]:
        """The device has no connection: what it never got fails without a grace."""
        lost = self._lost.get((user_id, device_id))
        failed = [call for call in lost.calls.values() if not call.has_been_lost] if lost else []
        for call in failed:
            self.fail(call)
        return failed

    def expire(self, now: float) -> Mapping[Call, Failure]:
        """Those whose time is over have failed."""
        ended = [lost for lost in self._lost.values() if now >= lost.ends_at and not lost.is_unsought]
        over = {call: OFFLINE for lost in ended for call in lost.calls.values()}
        for call in self._calls.values():
            if now < call.ends_at:
                break
            over.setdefault(call, OFFLINE if call.device_key in self._lost else TOO_LATE)
        for call in over:
            self.fail(call)
        return over

    def _send_again(self, call: Call, desktop: Desktop) -> None:
        self._take_back(call)
        call.is_repeated |= call.has_been_lost
        call.missed_at, call.desktop = None, desktop
        if call.idempotency_key is None or call.is_ping:
            self._unkeep(call)
        self._asked[desktop.connection_id][call.serial] = call

    def _set_aside(self, call: Call) -> None:
        self._unask(call)
        lost = self._lost.setdefault(call.device_key, _Lost())
        lost.ends_at = max(lost.ends_at, call.grace_ends_at)
        lost.calls[call.serial] = call

    def _take_back(self, call: Call) -> None:
        lost = self._lost.get(call.device_key)
        if lost is not None and lost.calls.pop(call.serial, None) is not None and not lost.calls:
            del self._lost[call.device_key]

    def _unask(self, call: Call) -> None:
        connection_id = call.desktop.connection_id
        asked = self._asked.get(connection_id, {})
        if asked.pop(call.serial, None) is not None and not asked:
            del self._asked[connection_id]

    def _end(self, call: Call) -> None:
        caller = self._callers[call.caller_id]
        caller.count -= 1
        calls = caller.calls[call.id]
        calls.remove(call)
        if not calls:
            del caller.calls[call.id]
        self._leave(call)

    def _leave(self, call: Call) -> None:
        del self._calls[call.serial]
        self._unask(call)
        self._take_back(call)
        self._unkeep(call)

    def _fits(self, user_id: UUID, size_bytes: int) -> bool:
        of_user = self._kept_bytes.get(user_id, 0) + size_bytes
        return of_user <= MAX_KEPT_BYTES_OF_USER and self._all_kept_bytes + size_bytes <= MAX_KEPT_BYTES

    def _keep(self, call: Call, frame: bytes) -> None:
        call.frame = frame
        self._all_kept_bytes += len(frame)
        self._kept_bytes[call.user_id] += len(frame)

    def _unkeep(self, call: Call) -> None:
        if call.frame:
            self._all_kept_bytes -= len(call.frame)
            self._kept_bytes[call.user_id] -= len(call.frame)
            if not self._kept_bytes[call.user_id]:
                del self._kept_bytes[call.user_id]
            call.frame = b""


def _is_safe_to_send(call: Call) -> bool:
    """Pieces of an answer that were passed on already would come twice."""
    is_safe_twice = call.idempotency_key is not None and not call.has_pieces
    return bool(call.frame) and (is_safe_twice or not call.has_been_lost)
