"""Defects of hypercorn 0.18 that hurt exact endings, mended; install() before the first connection.

Hypercorn looks its own classes up by name when a worker starts, so subclasses take their places. The tests in
tests/server/test_hypercorn_fixes.py run against the server as it is and as mended: when upstream mends a defect,
the test that shows it fails, and the method that works around it can go.

    connection.py   one TCP or TLS connection: reading, writing, deadlines, the last goodbye
    http1.py        HTTP/1.1: recycling, pipelining, CONNECT, chunks without h11
    http2.py        HTTP/2: frames for streams that have ended, requests that h2 lets through
    websocket.py    WebSockets: their handshake, frames and ends; frame_reader.py parses, socket_mailbox.py bounds
    mailbox.py      what a request's task receives: never blocks the connection once the client has gone
    worker.py       signals, a parent that died, exit status
    lifespan.py     an application that cannot start, or dies, ends its server
"""

from functools import partial
from importlib.metadata import version
from types import ModuleType

import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.trio.run
import hypercorn.trio.tcp_server

from server.hypercorn_fixes.connection import Connection, Context
from server.hypercorn_fixes.http1 import ChunkStream, Http1
from server.hypercorn_fixes.http2 import Http2, PatientBuffer
from server.hypercorn_fixes.limits import Limits
from server.hypercorn_fixes.mailbox import AppTasks
from server.hypercorn_fixes.websocket import SocketStream
from server.hypercorn_fixes.worker import worker_serve

__all__ = ["install"]


def install(*, write_deadline_seconds: float = 30.0, head_deadline_seconds: float = 30.0) -> None:
    """Put the mended parts in place; call it where the application is imported. Safe to repeat.

    A client that takes nothing for `write_deadline_seconds` is dropped, and so is one that needs longer than
    `head_deadline_seconds` for a request head. Raises RuntimeError on any hypercorn but 0.18.
    """
    _require_hypercorn("0.18.", version("hypercorn"))
    limits = Limits(write_deadline_seconds, head_deadline_seconds)
    _replace(hypercorn.trio.run, "worker_serve", partial(worker_serve, limits))
    _replace(hypercorn.trio.run, "WorkerContext", Context)
    _replace(hypercorn.trio.run, "TCPServer", partial(Connection, limits))
    _replace(hypercorn.trio.tcp_server, "TaskGroup", AppTasks)
    _replace(hypercorn.protocol, "H11Protocol", partial(Http1, limits))
    _replace(hypercorn.protocol, "H2Protocol", partial(Http2, limits))
    _replace(hypercorn.protocol.h11, "HTTPStream", ChunkStream)
    _replace(hypercorn.protocol.h2, "HTTPStream", ChunkStream)
    _replace(hypercorn.protocol.h2, "StreamBuffer", PatientBuffer)
    _replace(hypercorn.protocol.h11, "WSStream", partial(SocketStream, limits))
    _replace(hypercorn.protocol.h2, "WSStream", partial(SocketStream, limits))


def _require_hypercorn(prefix: str, installed: str) -> None:
    if not installed.startswith(prefix):
        raise RuntimeError(
            f"server.hypercorn_fixes replaces private parts of hypercorn {prefix}x but {installed} is installed: "
            "install the pinned version, or check every fix against the new one"
        )


def _replace(module: ModuleType, name: str, replacement: object) -> None:
    if not hasattr(module, name):
        raise RuntimeError(f"{module.__name__} has no {name} any more: check every fix against this hypercorn")
    setattr(module, name, replacement)
