"""One TCP or TLS connection: what hypercorn/trio/tcp_server.py does, with deadlines, and faster."""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, cast

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import EventWrapper, TrioSingleTask, WorkerContext
from hypercorn.typing import TaskGroup

from server.hypercorn_fixes.events import AnsweredEarly, Pipelined
from server.hypercorn_fixes.limits import Limits

# A stream that never waits for its client must still let other tasks run, and hear that it was cancelled.
SENDS_BETWEEN_CHECKPOINTS = 16
TLS_RECORD_BYTES = 16 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)



class Termination(EventWrapper):
    """Set when the worker stops; tells every connection, without a task in each that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: set[Callable[[], None]] = set()

    async def set(self) -> None:
        await super().set()
        for listener in tuple(self.listeners):
            listener()


class Context(WorkerContext):
    """hypercorn's context, whose end can be listened to."""

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.termination = Termination()
        self.terminated = self.termination


class IdleClock(TrioSingleTask):
    """Keep-alive as a deadline on the reader; upstream starts and stops a task for it at every request."""

    def __init__(self, idle: Callable[[], None], busy: Callable[[], None]) -> None:
        super().__init__()
        self._idle, self._busy = idle, busy

    async def restart(self, _task_group: TaskGroup, _action: Callable[..., object]) -> None:
        self._idle()

    async def stop(self) -> None:
        self._busy()


class Connection(TCPServer):
    """Reads in the task of the connection, writes in whichever task sends."""

    def __init__(self, limits: Limits, *upstream: Any) -> None:
        super().__init__(*upstream)
        self.limits = limits
        self.idle_task = IdleClock(self._become_idle, self._become_busy)
        self._termination = cast(Context, self.context).termination
        transport = getattr(self.stream, "transport_stream", self.stream)
        self._socket: trio.socket.SocketType = transport.socket
        self._plain = transport is self.stream
        self._receiving = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._deadline = inf  # of the read that is under way
        self._is_idle = False
        self._has_pipelined = False
        self._lingers_until: float | None = None
        self._linger_bytes = limits.linger_bytes
        self._sends = 0

    async def run(self) -> None:
        """Serve until the connection ends.

        An exception that leaves this method ends the whole server: upstream's nursery for connections is the
        server's own, and a request line that only HTTP/2 lets through is enough (`:path` with a byte over 127).
        """
        self._termination.listeners.add(self._hear_termination)
        try:
            await super().run()
        except Exception:  # noqa: BLE001 # the edge of the connection's task
            await self.config.log.exception("Connection failed")
        finally:
            self._termination.listeners.discard(self._hear_termination)

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks."""
        if isinstance(event, RawData):
            await self.send_bytes(event.data)
        elif isinstance(event, Updated):
            self._become_idle() if event.idle else self._become_busy()
        elif isinstance(event, Pipelined):
            self._has_pipelined = True
            self._receiving.cancel()
        elif isinstance(event, AnsweredEarly):
            self._linger()
        elif isinstance(event, Closed):
            if self._lingers_until is None:
                await self._close()
            await self.protocol.handle(Closed())

    # Writing

    async def send_bytes(self, data: bytes) -> None:
        """Write at once if the kernel takes it; wait, in order and with a deadline, for what it does not take.

        Upstream takes a lock, a scope and three checkpoints for every chunk, and shields them all without a deadline
        (hypercorn/trio/tcp_server.py protocol_send): a client that stops reading holds its request for ever.
        """
        if self._plain and not self.send_lock.locked():
            try:
                # fileno() is -1 once the socket is closed; trio's own send() would cost a checkpoint.
                data = data[os.write(self._socket.fileno(), data) :] if data else data
            except BlockingIOError:
                pass
            except OSError:
                return await self._lose_client()
        if data:
            return await self._send_slowly(data)
        self._sends += 1
        if self._sends % SENDS_BETWEEN_CHECKPOINTS == 0:
            # what the kernel has taken is sent: a cancel in here would make the caller believe that it was not
            await trio.lowlevel.cancel_shielded_checkpoint()
        return None

    async def _send_slowly(self, data: bytes) -> None:
        sent = False
        try:
            # Half a frame is the end of a connection. In HTTP/2 it is not this request's alone, so that cannot
            # be left to the cancellation of one of them: the deadline and the reader end it.
            with trio.CancelScope(shield=not isinstance(self.protocol.protocol, H11Protocol)):
                async with self.send_lock:
                    sent = await self._write_all(memoryview(data))
        finally:
            if not sent:
                self._reset()
        if not sent:
            await self._lose_client()

    async def _write_all(self, data: memoryview) -> bool:
        """False if the client went away, or took nothing for the whole deadline."""
        while data:
            deadline = trio.current_time() + self.limits.write_deadline_seconds
            with trio.CancelScope(deadline=deadline) as self._sending:
                try:
                    data = data[await self._write_some(data) :]
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
            if self._sending.cancelled_caught:
                return False
        return True

    async def _write_some(self, data: memoryview) -> int:
        if self._plain:
            return await self._socket.send(data)
        await self.stream.send_all(data[:TLS_RECORD_BYTES])
        return min(len(data), TLS_RECORD_BYTES)

    async def _lose_client(self) -> None:
        """Tell the requests, and let them run before the caller sends more into nothing."""
        await self.protocol.handle(Closed())
        await trio.lowlevel.checkpoint()

    # Reading

    async def _read_data(self) -> None:
        try:
            while await self._read_once():
                pass
        finally:
            self._sending.cancel()  # nobody is there to take it: FIN, RST, deadline, or the end of the server's grace
        await self.protocol.handle(Closed())

    async def _read_once(self) -> bool:
        """False at the end of the connection."""
        if self._has_pipelined:
            self._has_pipelined = False
            await self.protocol.handle(Pipelined())
            return True
        data = await self._receive()
        if data is None:
            return self._has_pipelined
        if self._lingers_until is not None:
            return self._discard(data)
        self._time_request_head()
        await self.protocol.handle(RawData(data))
        return data != b""

    async def _receive(self) -> bytes | None:
        """None if it was interrupted, or the connection broke."""
        deadline = min(self._deadline, trio.current_time() + (self.config.read_timeout or inf))
        with trio.CancelScope(deadline=deadline) as self._receiving:
            try:
                return bytes(await self.stream.receive_some(MAX_RECV))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return None
        return None

    def _time_request_head(self) -> None:
        """Upstream allows a request head the whole keep-alive timeout, from the first byte to the last."""
        if self._is_idle and isinstance(self.protocol.protocol, H11Protocol):
            self._is_idle = False
            self._set_deadline(trio.current_time() + self.limits.head_deadline_seconds)

    # Ending

    def _become_idle(self) -> None:
        self._is_idle = True
        stopping = self._termination.is_set()
        self._set_deadline(-inf if stopping else trio.current_time() + self.config.keep_alive_timeout)

    def _become_busy(self) -> None:
        self._is_idle = False
        self._set_deadline(inf)

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        self._receiving.deadline = deadline

    def _hear_termination(self) -> None:
        if self._lingers_until is not None:
            self._linger()
        elif self._is_idle:
            self._receiving.cancel()

    def _linger(self) -> None:
        """Say that this was all, and read on without looking, so that the client finds the answer.

        Upstream closes a socket with unread data in it; the kernel then resets the connection, and the client's
        kernel throws away an answer that its program has not read yet.
        """
        seconds = self.limits.linger_total_seconds
        if self._termination.is_set():
            seconds = self.limits.linger_stopping_seconds
        self._lingers_until = trio.current_time() + seconds
        with suppress(OSError):  # gone already: the reader will see it
            self._socket.shutdown(socket.SHUT_WR)
        self._discard_until_silence()

    def _discard(self, data: bytes) -> bool:
        self._linger_bytes -= len(data)
        self._discard_until_silence()
        return data != b"" and self._linger_bytes > 0

    def _discard_until_silence(self) -> None:
        silence = trio.current_time() + self.limits.linger_silence_seconds
        self._set_deadline(min(silence, self._lingers_until or inf))

    async def _close(self) -> None:
        with trio.move_on_after(self.limits.close_seconds, shield=True):
            await super()._close()

    def _reset(self) -> None:
        """Close at once; what the kernel still holds for the client is of no use to it."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        except OSError:  # closed by the reader already
            return
        self._socket.close()
