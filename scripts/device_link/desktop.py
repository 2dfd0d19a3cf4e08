"""What a desktop does with its link: it answers calls, each in a task of its own, and streams terminals.

A terminal's shell is no shell: `echo` says what is written to it, `counter` counts.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal
from uuid import uuid4

import trio

from scripts.device_link import methods
from scripts.device_link.device import Device
from scripts.device_link.link import Link, Message
from scripts.device_link.methods import Answer
from scripts.device_link.terminals import Terminals

CACHE_SECONDS = 300
COUNTER_SECONDS = 0.1
Method = Callable[[Any], Awaitable[Answer]]


class Desktop:
    """`methods` stand before its own. `calls` is what it was asked, in order."""

    kind: Literal["desktop"] = "desktop"

    def __init__(self, methods: dict[str, Method] | None = None, *, announces_session: str | None = None) -> None:
        self.terminals = Terminals()
        self.calls: list[Message] = []
        self.binds: list[Message] = []
        self._methods = methods or {}
        self._announces_session = announces_session
        self._cache: dict[str, tuple[float, Message]] = {}
        self._shells: dict[str, trio.CancelScope] = {}
        self._device: Device | None = None
        self._is_leaving = False
        self._nursery: trio.Nursery | None = None

    def add_method(self, name: str, method: Method) -> None:
        self._methods[name] = method

    def begin(self, device: Device, link: Link, nursery: trio.Nursery) -> None:
        self._device, self._nursery = device, nursery
        nursery.start_soon(self.terminals.run, link)
        if self._announces_session is not None:
            device.active_session_id = self._announces_session
            nursery.start_soon(device.publish, "session-snapshot", _snapshot(self._announces_session))

    def hear(self, message: Message) -> None:
        if self._is_leaving:
            return
        match message:
            case {"type": "rpc.request", "payload": payload}:
                self._take_call(payload)
            case {"type": "terminal.binary.bind", "payload": payload}:
                self.binds.append(payload)
                self.terminals.bind(
                    payload["sessionId"],
                    includes_snapshot=payload["includeSnapshot"],
                    forces_snapshot=payload["forceSnapshot"],
                )
            case {"type": "terminal.binary.unbind", "payload": payload}:
                self.terminals.unbind(payload["sessionId"])

    def hear_bytes(self, data: bytes) -> None:
        """Nothing of the kind comes to a desktop."""

    def end(self) -> None:
        self._nursery = None
        self._is_leaving = False
        self.terminals.end()

    async def leave(self) -> None:
        """FIN, after what was to be sent: so nothing of it is lost. What still comes is not heard any more."""
        self._is_leaving = True
        self.terminals.unbind_all()
        await self.terminals.drain()
        if self._device is not None and self._device.link is not None:
            await self._device.link.leave()

    def _take_call(self, payload: Message) -> None:
        """A request that lacks what the app's own types demand is swallowed there."""
        names = ("clientId", "id", "method")
        key = payload.get("idempotencyKey")
        if not all(isinstance(payload.get(name), str) for name in names) or not isinstance(key, str | None):
            return
        self.calls.append(payload)
        if payload["clientId"] and self._nursery is not None and self._device is not None:
            self._nursery.start_soon(self._answer, self._device, payload, key)

    async def _answer(self, device: Device, payload: Message, key: str | None) -> None:
        response = self._find_cached(key)
        if response is None:
            result, error = await self._find_answer(payload["method"], payload.get("params"))
            response = {"id": payload["id"], "result": result, "error": error, "isFinal": True}
            if key is not None:
                self._cache[key] = (trio.current_time(), response)
        await device.say("rpc.response", {"clientId": payload["clientId"], **response})

    def _find_cached(self, key: str | None) -> Message | None:
        at, response = self._cache.get(key or "", (float("-inf"), {}))
        return response if key is not None and at > trio.current_time() - CACHE_SECONDS else None

    async def _find_answer(self, method: str, params: Any) -> Answer:
        if (special := self._methods.get(method)) is not None:
            return await special(params)
        if method.startswith("terminal."):
            return self._answer_terminal(method.removeprefix("terminal."), params)
        return methods.answer(method, params, _now())

    def _answer_terminal(self, method: str, params: Any) -> Answer:
        if method == "getActiveSessions":
            return {"sessions": sorted(self.terminals.outputs)}, None
        if not isinstance(params, dict):
            return methods.fail(methods.INVALID_PARAMS, "params are missing")
        if method == "start":
            return self._start(params)
        session_id = params.get("sessionId")
        if session_id not in self.terminals.outputs:
            return methods.fail(methods.NOT_FOUND, "no such terminal")
        return self._answer_session(method, session_id, params)

    def _answer_session(self, method: str, session_id: str, params: Message) -> Answer:
        match method:
            case "write":
                return self._write(session_id, params)
            case "resize" | "detach":
                return {"success": True}, None
            case "kill" | "close":
                return self._close(session_id)
            case "getMetadata":
                status = {"status": "running", "exitCode": None, "startedAt": _now()}
                return {"sessionId": session_id, "workingDirectory": "/home/me", **status}, None
            case "getStatus":
                return {"status": "running"}, None
            case "getLog":
                return {"entries": []}, None
        return methods.fail(methods.UNKNOWN_METHOD, f"unknown method: terminal.{method}")

    def _start(self, params: Message) -> Answer:
        session_id = params.get("jobId") or f"terminal-session-{uuid4()}"
        shell = params.get("shell") or "echo"
        self.terminals.open(session_id)
        if shell == "counter" and self._nursery is not None:
            self._nursery.start_soon(self._count, session_id)
        return {"sessionId": session_id, "workingDirectory": "/home/me", "shell": shell, "initialLog": []}, None

    def _write(self, session_id: str, params: Message) -> Answer:
        typed = methods.read_input(params)
        if typed is None:
            return methods.fail(methods.INVALID_PARAMS, "neither text nor data")
        self.terminals.write_nowait(session_id, typed)
        return {"success": True}, None

    def _close(self, session_id: str) -> Answer:
        del self.terminals.outputs[session_id]
        if session_id in self._shells:
            self._shells.pop(session_id).cancel()
        if self._nursery is not None and self._device is not None:
            exited = {"sessionId": session_id, "code": 0, "timestamp": _now()}
            self._nursery.start_soon(self._device.publish, "terminal.exit", exited)
        return {"success": True}, None

    async def _count(self, session_id: str) -> None:
        """For as long as the connection lasts."""
        with trio.CancelScope() as self._shells[session_id]:
            for number in count():
                self.terminals.write_nowait(session_id, b"%d\r\n" % number)
                await trio.sleep(COUNTER_SECONDS)


def _snapshot(session_id: str) -> Message:
    history = {"version": 1, "checksum": "0"}
    return {"sessionId": session_id, "session": {"id": session_id}, "taskHistory": history, "fileHistory": history}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
