"""What a worker serves, until when, and with which status it ends."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve as upstream_worker_serve
from hypercorn.typing import AppWrapper
from hypercorn.utils import LifespanTimeoutError

from server.hypercorn_fixes.lifespan import WatchedLifespan
from server.hypercorn_fixes.limits import Limits

# A client whose machine is gone says nothing more: ask after a minute of silence, then three more times.
KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 10
# A kernel that has two megabytes to send calls a socket writable when a third of that is gone: a slow client that
# reads all the time would look as if it took nothing. It is also what a client that leaves never sees, but pays for.
UNSENT_BYTES = 128 * 1024


async def worker_serve(
    limits: Limits,
    app: AppWrapper,
    config: Config,
    *,
    sockets: Sockets | None = None,
    shutdown_trigger: Callable[..., Awaitable[None]] | None = None,
    **upstream: Any,
) -> None:
    """Serve until SIGTERM, SIGINT, the end of the parent or of the application's lifespan; then let requests end.

    Raises SystemExit(1) if the lifespan failed.
    """
    stop, everything = trio.Event(), trio.CancelScope()
    lifespan = WatchedLifespan(app, config.log, stop, everything)
    if sockets is not None:
        _notice_lost_clients(sockets, limits)
    try:
        with everything, trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as worker:
                worker.start_soon(_watch_signals, signals, stop, everything)
                worker.start_soon(_watch_parent, stop)
                if shutdown_trigger is not None:
                    worker.start_soon(_watch_trigger, shutdown_trigger, stop)
                await upstream_worker_serve(lifespan, config, sockets=sockets, shutdown_trigger=stop.wait, **upstream)
                worker.cancel_scope.cancel()
    except* LifespanTimeoutError as group:
        lifespan.failure = lifespan.failure or str(_first_leaf(group))
    if lifespan.failure is not None:
        _end_with_failure(lifespan.failure)


async def _watch_signals(signals: AsyncIterator[int], stop: trio.Event, everything: trio.CancelScope) -> None:
    """Upstream leaves SIGTERM to the system when it serves without workers, and in its workers.

    The latter matters because the parent terminates every worker that is still serving when the first has ended
    (hypercorn/run.py run). A second SIGINT is somebody at a terminal who has waited enough.
    """
    interrupts = 0
    async for number in signals:
        stop.set()
        interrupts += number == signal.SIGINT
        if interrupts == 2:
            everything.cancel()


async def _watch_parent(stop: trio.Event) -> None:
    """Workers outlive a parent that was killed, hold its port, and nobody can stop them by its name."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        await trio.lowlevel.wait_readable(parent.sentinel)
        stop.set()


async def _watch_trigger(shutdown_trigger: Callable[..., Awaitable[None]], stop: trio.Event) -> None:
    await shutdown_trigger()
    stop.set()


def _notice_lost_clients(sockets: Sockets, limits: Limits) -> None:
    """Accepted sockets inherit these: a client that vanished without a FIN is noticed, sent to or not.

    TCP_USER_TIMEOUT bounds unacknowledged data and a window that stays shut (tcp(7)); the kernel's own bound is
    fifteen minutes, in which a provider would go on generating for nobody.
    """
    for listening in (*sockets.secure_sockets, *sockets.insecure_sockets):
        if listening.family in {socket.AF_INET, socket.AF_INET6}:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
            timeout_ms = int(limits.write_deadline_seconds * 1000)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _end_with_failure(failure: str) -> None:
    sys.stderr.write(failure.rstrip("\n") + "\n")
    sys.stderr.flush()
    _fail_parent()
    raise SystemExit(1)


def _fail_parent() -> None:
    """End a parent that would end with status 0.

    Upstream loses the status of its workers: the second `_join_exited` in hypercorn/run.py finds none left and says 0,
    so a supervisor would not start the server again. The parent never loads the application, so nothing of ours runs
    there; a signal that it does not handle is the way to give it a status. Its other workers see it go, and drain.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None and parent.pid == os.getppid():
        os.kill(parent.pid, signal.SIGUSR1)


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
