"""The certified OpenID provider of `openid_provider/`, in a process of its own, in the place of Auth0."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.end_to_end.sign_in_attempt import Issuer, discover

FOLDER = Path(__file__).parent / "openid_provider"
OLDEST_NODE = 20
START_SECONDS, STOP_SECONDS = 20, 5
CLIENT_ID = "app-desktop"
AUDIENCE = "https://api.example.com"


def find_missing_provider() -> str | None:
    """Why the provider cannot be started here; None if it can."""
    if (node := shutil.which("node")) is None:
        return "there is no node: scripts/prepare-browser says how to get it"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603 - asks
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        return f"node {version.strip()} is too old: the OpenID provider needs {OLDEST_NODE} or later"
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        return "the OpenID provider is not installed: scripts/prepare-browser does it"
    return None


@asynccontextmanager
async def open_certified_issuer(callback_url: str) -> AsyncIterator[Issuer]:
    """It knows one app, whose users it sends back to that URL alone, at any port: https://www.rfc-editor.org/rfc/rfc8252
    section 7.3. It ends when its stdin does.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": CLIENT_ID,
        "AUDIENCE": AUDIENCE,
        "REDIRECT_URI": callback_url,
    }
    process = await trio.lowlevel.open_process(
        ["node", "provider.mjs"], cwd=FOLDER, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            yield await discover(await read_line(process.stdout), CLIENT_ID, AUDIENCE)
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await stop(process)


async def read_line(stdout: trio.abc.ReceiveStream) -> str:
    line = b""
    with trio.fail_after(START_SECONDS):
        while not line.endswith(b"\n"):
            piece = await stdout.receive_some()
            assert piece, "the OpenID provider ended before it listened"
            line += piece
    return line.decode().strip()


async def stop(process: trio.Process) -> None:
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
