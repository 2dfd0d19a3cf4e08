"""`python -m tests.preloader FD`: imports what our server and our commands do, once, and forks for each that is to run.

Whoever has the other end of the socket FD sends what is to run; when that end closes, all that still runs is killed.
"""

import ast
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 17
"""Of a request: a command's words and its environment. The kernel's limit for a message of this kind is higher."""
HYPERCORN = ("hypercorn.run", "hypercorn.trio.run", "hypercorn.trio.worker_context", "hypercorn.protocol.h2")
EXTENDED = ("server.routes", "proxy.providers")
"""Packages whose modules nobody names: what stands there is taken."""


def name_modules() -> Iterator[str]:
    """All that the server imports but server/asgi.py itself, which reads the settings where it is imported."""
    yield from HYPERCORN
    for statement in ast.parse(Path("server/asgi.py").read_text()).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
    for package in EXTENDED:
        folder = importlib.import_module(package).__path__
        yield from (found.name for found in pkgutil.iter_modules(folder, f"{package}."))


def serve(requests: socket.socket) -> tuple[list[str], bool]:
    """Returns in each child: the words it is to run, and whether its warnings are errors."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: who started us closes the socket
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    tellers: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            tell_ends(tellers)
        if requests.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 3)
            if not data:
                end_all(tellers)
            child = os.fork()
            if not child:
                requests.close()
                return become(json.loads(data), descriptors)
            output, errors, teller = descriptors
            os.close(output)
            os.close(errors)
            tellers[child] = teller
            tell(teller, child)


def tell(teller: int, number: int) -> None:
    """Or nobody: a test that gave up does not listen any more."""
    with suppress(BrokenPipeError):
        os.write(teller, number.to_bytes(4, "little", signed=True))


def tell_ends(tellers: dict[int, int]) -> None:
    """To whoever waits for a child: as subprocess.Popen does, -N if signal N has ended it."""
    while tellers:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        teller = tellers.pop(child)
        tell(teller, os.waitstatus_to_exitcode(status))
        os.close(teller)


def end_all(tellers: dict[int, int]) -> None:
    for child in tellers:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sys.exit()


def become(request: dict[str, Any], descriptors: list[int]) -> tuple[list[str], bool]:
    """A process as if it had just been started: nothing of ours is open in it but its output and its errors."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[1], 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["words"], request["is_strict"]


def main() -> None:
    """Neither catches nor cleans up: a child comes by here too, and ends as Python ends whatever it runs."""
    with warnings.catch_warnings(action="error"):
        for name in name_modules():
            importlib.import_module(name)
    gc.freeze()
    words, is_strict = serve(socket.socket(fileno=int(sys.argv[1])))
    if is_strict:
        warnings.simplefilter("error")
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
