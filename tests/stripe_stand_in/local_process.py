"""localstripe in a process of its own."""

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from socket import AF_INET6, SOCK_STREAM, socket
from typing import Any

import httpx2
import trio

from tests.stripe_stand_in.forms import write_form

START_SECONDS, STOP_SECONDS, CALL_SECONDS = 20, 5, 10
KEY = "sk_test_0123456789abcdefghijklmnop"


class StripeError(Exception):
    """What Stripe answers with: status and the `error` object."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {error.get('message', '')}")
        self.status = status
        self.error = error


class LocalStripe:
    """Asks localstripe. Raises StripeError."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        return await self._ask("GET", f"{path}?{write_form(query)}")

    async def post(self, path: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._ask("POST", path, write_form(form or {}).encode(), "application/x-www-form-urlencoded")

    async def post_json(self, path: str, members: Mapping[str, Any]) -> dict[str, Any]:
        """With the types as they are: numbers in a form would stay text in what is updated."""
        return await self._ask("POST", path, httpx2.Request("POST", "http://x", json=members).content)

    async def delete(self, path: str) -> dict[str, Any]:
        return await self._ask("DELETE", path)

    async def list_all(self, path: str, **query: Any) -> list[dict[str, Any]]:
        return list((await self.get(path, limit=1000, **query))["data"])

    async def _ask(self, method: str, path: str, body: bytes = b"", type_: str = "application/json") -> dict[str, Any]:
        with trio.fail_after(CALL_SECONDS):
            answer = await self._client.request(method, path, content=body, headers={"Content-Type": type_})
        if answer.status_code >= 500:
            raise AssertionError(f"localstripe failed at {method} {path}: {answer.text}")
        value = answer.json() if answer.content else {}
        if answer.status_code >= 400:
            raise StripeError(answer.status_code, value["error"])
        return dict(value)


def find_missing() -> str | None:
    """Why localstripe cannot run here; None if it can."""
    if find_spec("localstripe") is None:
        return "localstripe is not installed: requirements-test.lock has it"
    try:
        with socket(AF_INET6, SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "localstripe listens on IPv6, which this machine does not have"
    return None


@asynccontextmanager
async def open_local_stripe() -> AsyncIterator[LocalStripe]:
    port = _find_port()
    command = [sys.executable, "-m", "localstripe", "--port", str(port), "--from-scratch"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base_url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        async with httpx2.AsyncClient(base_url=base_url, headers=headers, trust_env=False) as client:
            await _wait_ready(client, process)
            yield LocalStripe(client)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _wait_ready(client: httpx2.AsyncClient, process: trio.Process) -> None:
    with trio.fail_after(START_SECONDS):
        while process.returncode is None:
            with suppress(httpx2.ConnectError):
                await client.get("/v1/customers")
                return
            await trio.sleep(0.02)
    raise AssertionError(f"localstripe ended with {process.returncode} before it listened")


async def _stop(process: trio.Process) -> None:
    """By force: it has nothing to save, and would wait for its clients."""
    process.kill()
    with trio.fail_after(STOP_SECONDS):
        await process.wait()


def _find_port() -> int:
    """Free on both IPv4 and IPv6, as localstripe wants it."""
    with socket(AF_INET6, SOCK_STREAM) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])
