"""What processes write to each other of terminals. Pure.

A desktop's process and the process of the device that has its terminal bound, and two processes of which one had a
desktop and the other has it now. None of them is answered for sure: what is not is asked for again.
"""

from uuid import UUID

import msgspec


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """To the desktop's process: bind. `has_lost`: if nothing is known of this terminal there, it begins with a
    snapshot. `connected_at`: since when the connection stands; a letter of an older one than has it bound is late.
    `next_number` and `confirmed`: what of an earlier bind of the same connection has come; `epoch`: what is
    sent under an older one is not taken.
    """

    producer_id: UUID
    session_id: str
    device_id: UUID
    connection_id: UUID
    binding: int
    connected_at: int
    include_snapshot: bool
    force_snapshot: bool
    has_lost: bool = False
    next_number: int = 1
    confirmed: int = 0
    epoch: int = 0


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """It is; frames follow."""

    connection_id: UUID
    binding: int


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """The desktop is not there."""

    connection_id: UUID
    binding: int


class Unwanted(msgspec.Struct, frozen=True, array_like=True):
    """Unbind, if the device has it bound, and not by a newer connection."""

    producer_id: UUID
    session_id: str
    device_id: UUID
    connected_at: int


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """The letter's blob is the WebSocket frame."""

    connection_id: UUID
    binding: int
    epoch: int
    number: int


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """The device has confirmed all frames up to this one."""

    producer_id: UUID
    session_id: str
    connection_id: UUID
    binding: int
    number: int


class Where(msgspec.Struct, frozen=True, array_like=True):
    """Is the connection there, and what has it been given? Who asks has the terminal now, unless the epoch is old."""

    producer_id: UUID
    session_id: str
    connection_id: UUID
    binding: int
    epoch: int


class Here(msgspec.Struct, frozen=True, array_like=True):
    """The answer; also sent unasked where a frame is missing: go on with `next_number`."""

    producer_id: UUID
    session_id: str
    connection_id: UUID
    binding: int
    next_number: int
    confirmed: int


class Check(msgspec.Struct, frozen=True, array_like=True):
    """To the desktop's process, where the desktop has a new connection: this binding is thought to have the terminal.
    Not answered if it has.
    """

    producer_id: UUID
    session_id: str
    connection_id: UUID
    binding: int


class Unknown(msgspec.Struct, frozen=True, array_like=True):
    """The answer if it has not."""

    connection_id: UUID
    binding: int


class Left(msgspec.Struct, frozen=True, array_like=True):
    """The connection is gone, or, with a `binding`, does not know that one."""

    connection_id: UUID
    binding: int | None = None


class Over(msgspec.Struct, frozen=True, array_like=True):
    """The terminal is no longer this binding's: it may be forgotten."""

    connection_id: UUID
    binding: int


class HandOver(msgspec.Struct, frozen=True, array_like=True):
    """The desktop is here, since then: what of its terminals is there?"""

    producer_id: UUID
    connected_at: int


class RouteState(msgspec.Struct, frozen=True, array_like=True):
    """A terminal as its former process had it. `sizes` are those of its frames, the first `unconfirmed` of which have
    been sent.
    """

    session_id: str
    device_id: UUID
    connection_id: UUID
    instance: str
    binding: int
    connected_at: int
    epoch: int
    presence: str
    lost_seconds: float
    first_number: int
    unconfirmed: int
    sizes: tuple[int, ...]
    must_reset: bool
    must_tell: bool
    include_snapshot: bool


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """What was asked for, in parts: frames in the letter's blob; then, when all of its frames have gone, `route`. The
    last letter is `is_all`.
    """

    producer_id: UUID
    route: RouteState | None = None
    is_all: bool = False
