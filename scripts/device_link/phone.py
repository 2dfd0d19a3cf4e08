"""What a phone does with its link: it calls, and shows terminals."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import trio

from scripts.device_link.device import Device
from scripts.device_link.link import Link, Message
from scripts.device_link.methods import is_mutating
from scripts.device_link.terminal_frames import read_frame

RING_BYTES = 8 * 1024 * 1024
PATIENCE_SECONDS = 30
PATIENCES: dict[str, float] = {
    "system.ping": 3,
    "files.search": 60,
    **dict.fromkeys(("session.list", "session.get", "session.update", "terminal.start"), 60),
    **dict.fromkeys(("job.list", "job.get", "session.syncHistoryState", "session.mergeHistoryState"), 90),
    "session.getHistoryState": 90,
}
"""Seconds for which the phone waits for an answer."""


class CallFailed(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class CallLost(Exception):
    """There is no connection, or it ended before the answer came."""


@dataclass(slots=True)
class Waiting:
    id: str
    method: str
    is_answered: trio.Event = field(default_factory=trio.Event)
    payload: Message | None = None


class Phone:
    """`output` holds what came of each terminal, as the phone's ring does; `chunks` is called with each piece of it.
    `strays` are answers to calls that this connection does not know of, `repeats` second answers to one that it does.
    """

    kind: Literal["phone"] = "phone"

    def __init__(self, *, hear_output: Callable[[str, bytes], None] | None = None) -> None:
        self.output: dict[str, bytearray] = {}
        self.bound: Counter[str] = Counter()
        self.strays: list[Message] = []
        self.repeats: list[Message] = []
        self._hear_output = hear_output
        self._device: Device | None = None
        self._waiting: dict[str, Waiting] = {}
        self._answered: set[str] = set()
        self._shown: set[str] = set()
        self._ready: set[str] = set()

    async def call(
        self, method: str, params: object = None, *, id_: str | None = None, key: str | None = None
    ) -> Any:
        """The result. Raises CallFailed, CallLost, TooSlowError after the phone's own patience."""
        payload = await self.exchange(method, params, id_=id_, key=key)
        if (error := payload.get("error")) is not None:
            raise CallFailed(error["code"], error["message"])
        return payload["result"]

    async def exchange(
        self,
        method: str,
        params: object = None,
        *,
        id_: str | None = None,
        key: str | None = None,
        **members: object,
    ) -> Message:
        """The answer's payload, as it is."""
        waiting = Waiting(id_ or str(uuid4()).upper(), method)
        keyed = {"idempotencyKey": key or waiting.id} if key or is_mutating(method) else {}
        request = {"id": waiting.id, "method": method, "params": {} if params is None else params, **keyed, **members}
        self._waiting[waiting.id] = waiting
        try:
            if not await self._say("rpc.request", request):
                raise CallLost(method)
            with trio.fail_after(PATIENCES.get(method, PATIENCE_SECONDS)):
                await waiting.is_answered.wait()
        finally:
            self._waiting.pop(waiting.id, None)
        if waiting.payload is None:
            raise CallLost(method)
        return waiting.payload

    async def bind(self, session_id: str, *, forces: bool = False) -> None:
        """From now on, over all connections. `forces`: the ring is emptied, and a snapshot comes first."""
        if forces:
            self.output.pop(session_id, None)
        self._shown.add(session_id)
        await self._bind(session_id, forces=forces)

    async def unbind(self, session_id: str) -> None:
        self._shown.discard(session_id)
        self._ready.discard(session_id)
        await self._say("terminal.binary.unbind", {"sessionId": session_id})

    def begin(self, device: Device, _link: Link, nursery: trio.Nursery) -> None:
        self._device = device
        for session_id in self._shown - self._ready:
            nursery.start_soon(self._bind, session_id)

    def hear(self, message: Message) -> None:
        match message:
            case {"type": "rpc.response", "payload": payload}:
                self._take_answer(payload)
            case {"type": "terminal.binary.bound", "payload": {"sessionId": session_id}}:
                self.bound[session_id] += 1
                self._ready.add(session_id)

    def hear_bytes(self, data: bytes) -> None:
        if (found := read_frame(data)) is None:
            return
        session_id, output = found
        ring = self.output.setdefault(session_id, bytearray())
        ring += output
        del ring[: max(0, len(ring) - RING_BYTES)]
        if self._hear_output is not None:
            self._hear_output(session_id, output)

    def end(self) -> None:
        """The app makes a new client for each connection: nobody waits for answers of the old one any more."""
        self._ready.clear()
        self._answered.clear()
        for waiting in self._waiting.values():
            waiting.is_answered.set()
        self._waiting.clear()

    async def _bind(self, session_id: str, *, forces: bool = False) -> None:
        includes = not self.output.get(session_id)
        payload = {"sessionId": session_id, "includeSnapshot": includes, "forceSnapshot": forces}
        await self._say("terminal.binary.bind", payload)

    async def _say(self, kind: str, payload: object) -> bool:
        return self._device is not None and await self._device.say(kind, payload)

    def _take_answer(self, payload: Message) -> None:
        waiting = self._waiting.get(payload["id"])
        if waiting is None:
            (self.repeats if payload["id"] in self._answered else self.strays).append(payload)
        elif payload.get("isFinal", True):
            del self._waiting[waiting.id]
            self._answered.add(waiting.id)
            waiting.payload = payload
            waiting.is_answered.set()
