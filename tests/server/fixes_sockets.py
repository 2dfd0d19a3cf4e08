"""WebSockets of tests/server/fixes_app.py, by path: plain ASGI. Every other path is an echo."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Note = Callable[[str, str], None]

CHUNK = b"\x82\x7f" + (65536).to_bytes(8, "big") + bytes(65536)


async def serve_socket(scope: dict[str, Any], receive: Receive, send: Send, note: Note) -> None:
    """The second part of the path is a name to note the end under."""
    _, what, *name = scope["path"].split("/")
    await receive()
    await SERVED.get(what, echo)(scope, receive, send, lambda word: note("".join(name), word))


async def hang_up(_scope: Any, receive: Receive, send: Send, _note: Any) -> None:
    """Closed for a reason at its first message."""
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.close", "code": 4001})


async def echo(_scope: Any, receive: Receive, send: Send, note: Any) -> None:
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": event["bytes"], "text": event["text"]})
    note(str(event["code"]))


async def list_events(_scope: Any, receive: Receive, send: Send, note: Any) -> None:
    """What kinds of events come, until a text does."""
    await send({"type": "websocket.accept"})
    kinds = []
    while (event := await receive())["type"] != "websocket.disconnect" and event.get("text") is None:
        kinds.append(f"{event['type'].removeprefix('websocket.')}={event.get('bytes', b'').decode()}")
    await send({"type": "websocket.send", "text": " ".join(kinds)})


async def fail(_scope: Any, _receive: Receive, send: Send, _note: Any) -> None:
    await send({"type": "websocket.accept"})
    raise RuntimeError("a fault of the program")


async def close_and_go_on(_scope: Any, receive: Receive, send: Send, note: Any) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4001, "reason": "enough " * 40})
    await send({"type": "websocket.send", "text": "too late"})
    await send({"type": "websocket.send", "frames": b"\x81\x00"})
    await send({"type": "websocket.close", "code": 4002})
    note(f"{(await receive())['code']}")


async def hear_out(_scope: Any, receive: Receive, send: Send, note: Any) -> None:
    """What comes after our close."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1012, "hears_out": True})
    heard = []
    while (event := await receive())["type"] != "websocket.disconnect":
        heard.append(event.get("text") or event["type"])
    note(f"{heard} {event['code']}")


async def flood(_scope: Any, _receive: Receive, send: Send, note: Any) -> None:
    """Prebuilt frames for as long as there is somebody to take them."""
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "frames": CHUNK})
    except OSError as gone:
        note(f"gone {getattr(gone, 'code', None)}")


async def stand_still(_scope: Any, _receive: Receive, send: Send, note: Any) -> None:
    """Takes nothing, until it is told to go on by a stop."""
    stopped = trio.Event()
    _scope["extensions"]["cloche.websocket"]["hear_stopping"](stopped.set)
    await send({"type": "websocket.accept"})
    note("begun")
    await stopped.wait()
    await send({"type": "websocket.close", "code": 1012})


async def dawdle(_scope: Any, receive: Receive, send: Send, note: Any) -> None:
    """A handshake that is answered late."""
    await trio.sleep(0.2)
    await echo(_scope, receive, send, note)


async def deny(_scope: Any, _receive: Receive, send: Send, _note: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "websocket.http.response.body", "body": b"no"})


SERVED = {
    "hang_up": hang_up,
    "list": list_events,
    "fail": fail,
    "close": close_and_go_on,
    "hear": hear_out,
    "flood": flood,
    "still": stand_still,
    "dawdle": dawdle,
    "deny": deny,
}
