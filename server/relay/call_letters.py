"""Letters about calls, between the process of a caller and that of a desktop. Pure."""

from uuid import UUID

import msgspec


class CallLetter(msgspec.Struct, array_like=True):
    """To a desktop: the frame is the letter's blob. `serial` is the sender's name for the call."""

    serial: int
    device_id: UUID
    connection_id: UUID


class MissLetter(msgspec.Struct, array_like=True):
    """Back again: that connection is not here, and has not been given the frame, which is the letter's blob."""

    serial: int
    connection_id: UUID


class GoneLetter(msgspec.Struct, array_like=True):
    """The connection of a desktop has ended. To every process that had sent calls to it."""

    connection_id: UUID


class RoomLetter(msgspec.Struct, array_like=True):
    """Whether the connection of a desktop takes more calls for now."""

    connection_id: UUID
    has_room: bool


class AnswerLetter(msgspec.Struct, array_like=True):
    """To the caller: the answer's payload is the letter's blob. `desktop_id` is the device that answers."""

    caller_id: UUID
    id: str
    desktop_id: UUID
    is_final: bool
    is_forwarded: bool = False
