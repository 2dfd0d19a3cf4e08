"""A desktop and a phone, as far as terminals go: they behave as the shipped ones do. No socket, no clock."""

import json
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from server.relay.member import Member
from server.relay.outbox import Outbox
from server.relay.terminal_frames import build_frame
from server.relay.terminals import Terminals

PENDING_BYTES = 8 * 1024 * 1024
FRAME_BYTES = 16 * 1024
SNAPSHOT_BYTES = 64 * 1024

TEXT, BINARY, PING = 1, 2, 9


@dataclass
class Connection:
    """A socket: what the server has put into its outbox is on the wire until the device takes it."""

    member: Member
    terminals: Terminals
    leave: Callable[[], None]
    wire: deque[tuple[int, bytes]] = field(default_factory=deque)

    def pull(self) -> None:
        outbox = self.member.outbox
        while outbox.waiting_bytes:
            data = take_nowait(outbox)
            outbox.note_written(len(data))
            while data:
                opcode, payload, data = split_frame(data)
                self.wire.append((opcode, payload))


@dataclass
class Session:
    """`said` is all that the program has written."""

    said: bytearray = field(default_factory=bytearray)
    pending: bytearray = field(default_factory=bytearray)
    is_bound: bool = False
    is_trimmed: bool = False


class Desktop:
    """`ignores_unbind`: one that floods. `snapshots` counts those that it has sent."""

    def __init__(self, *, ignores_unbind: bool = False) -> None:
        self.sessions: dict[str, Session] = defaultdict(Session)
        self.connection: Connection | None = None
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.snapshots = 0
        self._ignores_unbind = ignores_unbind

    def connect(self, connection: Connection) -> None:
        self.connection = connection
        for session in self.sessions.values():
            session.is_bound = False

    def say(self, session_id: str, data: bytes) -> None:
        session = self.sessions[session_id]
        session.said += data
        if session.is_bound and self.connection is not None:
            self._send(session_id, data)
            return
        session.pending += data
        if len(session.pending) > PENDING_BYTES:
            del session.pending[:-PENDING_BYTES]
            session.is_trimmed = True

    def lose_link(self) -> None:
        self.connection = None
        for session in self.sessions.values():
            session.is_bound = False

    def listen(self) -> bool:
        """Do what has been asked for. False if there was nothing."""
        if self.connection is None:
            return False
        self.connection.pull()
        wire, self.connection.wire = self.connection.wire, deque()
        for opcode, payload in wire:
            assert opcode == TEXT
            message = json.loads(payload)
            self.heard.append((message["type"].rpartition(".")[2], message["payload"]))
            self._do(*self.heard[-1])
        return bool(wire)

    def _do(self, kind: str, payload: dict[str, Any]) -> None:
        session_id = payload["sessionId"]
        session = self.sessions[session_id]
        if kind == "unbind":
            if not self._ignores_unbind:
                session.is_bound = session.is_trimmed = False
                session.pending.clear()
            return
        session.is_bound = True
        if session.is_trimmed or payload["forceSnapshot"]:
            session.pending.clear()
            self._snapshot(session_id)
        elif payload["includeSnapshot"] and not session.pending:
            self._snapshot(session_id)
        pending, session.pending, session.is_trimmed = bytes(session.pending), bytearray(), False
        self._send(session_id, pending)

    def _snapshot(self, session_id: str) -> None:
        self.snapshots += 1
        self._send(session_id, bytes(self.sessions[session_id].said[-SNAPSHOT_BYTES:]))

    def _send(self, session_id: str, data: bytes) -> None:
        for start in range(0, len(data), FRAME_BYTES):
            if self.connection is not None:
                frame = build_frame(session_id.encode(), data[start : start + FRAME_BYTES])
                self.connection.terminals.pass_on(self.connection.member, frame)


class Phone:
    """`got` is what has come of each session; `is_reading` false: it takes nothing. `has_pongs` false: what it takes it
    does not confirm.
    """

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.got: dict[str, bytearray] = defaultdict(bytearray)
        self.bound: list[str] = []
        self.errors: list[str] = []
        self.is_reading = True
        self.has_pongs = True

    def connect(self, connection: Connection) -> None:
        self.connection = connection

    def lose_link(self) -> None:
        self.connection = None

    def listen(self) -> bool:
        return self.is_reading and self.take(1 << 40) > 0

    def take(self, size_bytes: int) -> int:
        """Off the wire, so many bytes or a frame more. Returns how many messages."""
        if self.connection is None:
            return 0
        self.connection.pull()
        taken = 0
        while size_bytes > 0 and self.connection.wire:
            opcode, payload = self.connection.wire.popleft()
            self._read(opcode, payload)
            size_bytes -= len(payload)
            taken += 1
        return taken

    def _read(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            if self.has_pongs and self.connection is not None:
                self.connection.terminals.note_pong(self.connection.member, payload)
        elif opcode == BINARY:
            end = 6 + int.from_bytes(payload[4:6], "big")
            assert payload[:4] == b"PTC1"
            session_id = payload[6:end].decode()
            assert session_id in self.bound, "a frame came before `bound`"
            self.got[session_id] += payload[end:]
        else:
            message = json.loads(payload)
            if message["type"] == "error":
                self.errors.append(message["code"])
            else:
                assert message["type"] == "terminal.binary.bound"
                self.bound.append(message["payload"]["sessionId"])


def take_nowait(outbox: Outbox) -> bytes:
    taking = outbox.take()
    try:
        taking.send(None)  # it does not wait while there is something
    except StopIteration as done:
        return cast(bytes, done.value)
    raise AssertionError("there was nothing to take")


def split_frame(data: bytes) -> tuple[int, bytes, bytes]:
    """The opcode and payload of the first frame, and the rest."""
    start, size = 2, data[1]
    if size >= 126:
        width = 2 if size == 126 else 8
        start, size = 2 + width, int.from_bytes(data[2 : 2 + width], "big")
    return data[0] & 15, data[start : start + size], data[start + size :]
