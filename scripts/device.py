"""`python -m scripts.device --as desktop|phone [--url …]`: a device on the relay, to try things by hand.

Without `--token` a user of the server that ./scripts/run started last is made, or found by `--email`: so a desktop and
a phone, each in a shell of its own, find each other. They read commands, and do one after the other:

    call METHOD [JSON]      e.g.  call system.ping    call terminal.start {"jobId":"t-1","shell":"counter"}
    bind SESSION            shows a terminal; what follows ! on a line is typed into the one that was bound last
    unbind SESSION
    event TYPE [JSON]
    watch                   shows events, or no longer
    wait SECONDS

A desktop knows the last three, and goes on after the end of its input; a phone ends there. A desktop's shells are
`echo` and `counter`.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import trio

from scripts.device_link.announcing import Announcer, DeviceRefused
from scripts.device_link.desktop import Desktop
from scripts.device_link.device import PHONE_RHYTHM, Device, Heard, Identity
from scripts.device_link.memory import Memory, load_memory
from scripts.device_link.phone import CallFailed, CallLost, Phone
from scripts.environment import PROJECT, read_environment
from server.config import DEFAULT_SERVER_URL

COMMANDS = "call METHOD [JSON], bind SESSION, unbind SESSION, event TYPE [JSON], watch, wait SECONDS"
QUIET = frozenset({"pong", "rpc.response"})
"""The phone shows answers with the question."""


@dataclass(frozen=True, slots=True)
class Wish:
    kind: str
    url: str
    device_id: UUID
    name: str
    memory: Memory
    headers: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Screen:
    """What is shown of what is heard. Answers and errors go to stdout, so does what a terminal says."""

    shows_events: bool = True
    bound: str | None = None

    def show(self, heard: Heard) -> None:
        if isinstance(heard, bytes) or heard["type"] in QUIET or (heard["type"] == "event" and not self.shows_events):
            return
        hidden = {**heard, **({"resumeToken": "…"} if "resumeToken" in heard else {})}
        say(json.dumps(hidden, ensure_ascii=False))

    def show_output(self, _session_id: str, output: bytes) -> None:
        sys.stdout.write(output.decode(errors="replace"))
        sys.stdout.flush()

    async def show_ends(self, device: Device) -> None:
        """Why there is no connection. Never returns."""
        while True:
            endings, refusals = len(device.endings), len(device.refusals)
            await device.wait_for(partial(has_more_ends, device, endings + refusals), math.inf)
            for end in (*device.endings[endings:], *device.refusals[refusals:]):
                say(f"no connection: {end}; it is tried again")


def has_more_ends(device: Device, count: int) -> bool:
    return len(device.endings) + len(device.refusals) > count


def main() -> None:
    wish = read_wish(sys.argv[1:])
    try:
        trio.run(run, wish)
    except DeviceRefused as error:
        sys.exit(f"{error}; sign in again, or start ./scripts/run first")
    except KeyboardInterrupt:
        sys.exit(130)


def read_wish(words: list[str]) -> Wish:
    url = read_environment().get("SERVER_URL") or DEFAULT_SERVER_URL
    parser = argparse.ArgumentParser(
        prog="python -m scripts.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--as", dest="kind", choices=["desktop", "phone"], required=True)
    parser.add_argument("--url", default=url, help="the server; else the one that ./scripts/run started last")
    parser.add_argument("--token", help="of an app, bound to --device-id; else one is made. Development only")
    parser.add_argument("--email", default="you@example.com", help="whose device it is, if a token is made")
    parser.add_argument("--device-id", type=UUID, help="else a new one")
    parser.add_argument("--name", help="else what it is")
    parser.add_argument("--state", type=Path, help="a file for credentials and the last event seen")
    found = parser.parse_args(words)
    device_id = found.device_id or uuid4()
    if found.token is None:
        headers = make_headers(found.email, device_id)
    else:
        bound = str(device_id)
        headers = {"Authorization": f"Bearer {found.token}", "X-Device-ID": bound, "X-Token-Binding": bound}
    memory = load_memory(found.state) if found.state is not None else Memory()
    return Wish(found.kind, found.url.rstrip("/"), device_id, found.name or found.kind.title(), memory, headers)


def make_headers(email: str, device_id: UUID) -> dict[str, str]:
    """As `scripts.token` makes them, in a process of its own. Ends the command where that cannot be."""
    argv = [sys.executable, "-m", "scripts.token", "--email", email, "--device", str(device_id)]
    done = subprocess.run(argv, env=read_environment(), cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        sys.exit(done.stderr.strip())
    return dict(json.loads(done.stdout)["headers"])


async def run(wish: Wish) -> None:
    """Until the input ends."""
    screen = Screen()
    say(f"{wish.kind} {wish.device_id} at {wish.url}")
    async with httpx2.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        announce = Announcer(client).announce
        if wish.kind == "desktop":
            identity = Identity(str(wish.device_id), "desktop", wish.name, wish.headers)
            app: Desktop | Phone = Desktop()
            device = Device(wish.url, identity, app, wish.memory, announce=announce, observe=screen.show)
        else:
            identity = Identity(str(wish.device_id), "mobile", wish.name, wish.headers)
            app = Phone(hear_output=screen.show_output)
            device = Device(wish.url, identity, app, wish.memory, PHONE_RHYTHM, announce=announce, observe=screen.show)
        nursery.start_soon(device.stay)
        nursery.start_soon(screen.show_ends, device)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await obey(line.strip(), device, app, screen)
        if wish.kind == "desktop":
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def obey(line: str, device: Device, app: Desktop | Phone, screen: Screen) -> None:
    """One line that was typed, once there is a connection."""
    try:
        words = read_command(line)
    except ValueError as error:
        say(f"{error}; commands: {COMMANDS}")
        return
    await device.wait_for(lambda: device.is_registered, math.inf)
    match words:
        case ("wait", seconds):
            await trio.sleep(seconds)
        case ("watch",):
            screen.shows_events = not screen.shows_events
        case ("event", name, body):
            await device.publish(name, body)
        case ("call", method, body) if isinstance(app, Phone):
            await call(app, method, body)
        case ("bind", session_id) if isinstance(app, Phone):
            screen.bound = session_id
            await app.bind(session_id)
        case ("unbind", session_id) if isinstance(app, Phone):
            await app.unbind(session_id)
        case ("type", text) if isinstance(app, Phone):
            await call(app, "terminal.write", {"sessionId": screen.bound, "text": text})
        case ():
            pass
        case _:
            say("a desktop cannot do that")


async def call(phone: Phone, method: str, params: Any) -> None:
    try:
        say(json.dumps(await phone.call(method, params), ensure_ascii=False))
    except (CallFailed, CallLost) as error:
        say(f"{method} failed: {error}")
    except trio.TooSlowError:
        say(f"{method}: no answer")


def read_command(line: str) -> tuple[Any, ...]:
    """The command's words, its JSON decoded ({} without). Raises ValueError for what is none."""
    if line.startswith("!"):
        return "type", f"{line[1:]}\r\n"
    match line.split(maxsplit=2):
        case []:
            return ()
        case ["watch"]:
            return ("watch",)
        case ["wait", seconds]:
            return "wait", max(0.0, float(seconds))
        case ["bind" | "unbind" as verb, session_id]:
            return verb, session_id
        case ["call" | "event" as verb, name]:
            return verb, name, {}
        case ["call" | "event" as verb, name, body]:
            return verb, name, json.loads(body)
    raise ValueError("not a command")


def say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    main()
