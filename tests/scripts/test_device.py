"""`python -m scripts.device`: a desktop and a phone in processes of their own find each other."""

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from scripts.device import Screen, read_command, read_wish
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.relay_scene import make_identity
from tests.scripts.commands import open_command

JSON = {"jobId": "t-1"}


@pytest.fixture
def stores(database_url: str, owner_database_url: str, redis_url: str, tmp_path: Path) -> Stores:
    return Stores(database_url, owner_database_url, redis_url, tmp_path / "journal")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ()),
        ("watch", ("watch",)),
        ("wait 0.5", ("wait", 0.5)),
        ("bind t-1", ("bind", "t-1")),
        ("unbind t-1", ("unbind", "t-1")),
        ("call system.ping", ("call", "system.ping", {})),
        ('call terminal.start {"jobId": "t-1"}', ("call", "terminal.start", JSON)),
        ('event session-updated {"a": [1, 2]}', ("event", "session-updated", {"a": [1, 2]})),
        ("!ls -l", ("type", "ls -l\r\n")),
    ],
)
def test_a_line_is_a_command(line: str, words: tuple[object, ...]) -> None:
    assert read_command(line) == words


@pytest.mark.parametrize("line", ["call", "call x {", "dance", "bind", "wait long", "watch this"])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_command(line)


def test_a_token_that_is_given_is_bound_to_the_device_and_is_not_shown() -> None:
    device = uuid4()
    wish = read_wish(["--as", "phone", "--token", "secret", "--device-id", str(device), "--url", "http://x/"])
    assert (wish.url, wish.device_id, wish.name) == ("http://x", device, "Phone")
    assert wish.headers["X-Token-Binding"] == wish.headers["X-Device-ID"] == str(device)
    assert "secret" not in repr(wish)


def test_credentials_of_the_relay_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.show({"type": "registered", "sessionId": "s", "resumeToken": "secret"})
    screen.show({"type": "pong"})
    screen.show({"type": "event", "payload": {}})
    screen.shows_events = False
    screen.show({"type": "event", "payload": {}})
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["registered", "event"]
    assert "secret" not in "".join(lines)


def open_device(
    kind: str, cloche: Cloche, headers: dict[str, str], *words: str
) -> AbstractAsyncContextManager[trio.Process]:
    """With a token of its own."""
    token, device = headers["Authorization"].removeprefix("Bearer "), headers["X-Device-ID"]
    words = ("--as", kind, "--url", cloche.url, "--token", token, "--device-id", device, *words)
    return open_command("device", *words)


async def read_until(process: trio.Process, mark: bytes) -> bytes:
    """To the end, if the mark is empty."""
    assert process.stdout is not None
    text = b""
    with trio.fail_after(20):
        while (not mark or mark not in text) and (piece := await process.stdout.receive_some()):
            text += piece
    return text


async def test_whoever_cannot_connect_is_told_why() -> None:
    async with open_command("device", "--as", "phone", "--url", "http://127.0.0.1:9", "--token", "t") as process:
        shown = await read_until(process, b"tried again")
    assert b"no connection: cannot be reached" in shown


COMMANDS = b"""
call system.ping
dance
call terminal.start {"jobId": "t-1"}
bind t-1
wait 0.3
!hello
wait 0.3
call nobody.knows
event active-session-changed {"sessionId": "s1"}
wait 0.3
"""


async def test_a_desktop_and_a_phone_find_each_other_call_and_share_a_terminal(stores: Stores, tmp_path: Path) -> None:
    async with open_cloche(stores) as cloche:
        desktop_owner = await cloche.make_customer()
        phone_owner = make_identity(desktop_owner, "mobile")
        state = tmp_path / "phone.json"
        async with open_device("desktop", cloche, dict(desktop_owner.headers)) as desktop:
            await read_until(desktop, b'"registered"')
            async with open_device("phone", cloche, dict(phone_owner.headers), "--state", str(state)) as phone:
                assert phone.stdin is not None
                await phone.stdin.send_all(COMMANDS)
                await phone.stdin.aclose()
                shown = (await read_until(phone, b"")).decode()
                assert await phone.wait() == 0
            heard = await read_until(desktop, b"active-session-changed")
        assert '{"pong": true' in shown
        assert "not a command" in shown
        assert '"sessionId": "t-1"' in shown
        assert "hello" in shown
        assert "nobody.knows failed: -32601" in shown
        assert b'"sessionId": "s1"' in heard
        assert {"sessionId", "resumeToken"} <= json.loads(state.read_text()).keys()
