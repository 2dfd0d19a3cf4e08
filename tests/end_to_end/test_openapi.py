"""Every route answers as its description says: schemathesis, as a client over HTTP, reads /openapi.json and asks what
may be asked there and what may not. openapi.toml says how.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
import trio

from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.sign_in_attempt import DEVELOPMENT
from tests.stripe_stand_in import StripeStandIn, open_stripe_stand_in

CONFIGURATION = Path(__file__).with_name("openapi.toml")
PROGRAM = Path(sys.executable).with_name("schemathesis")
DOCUMENT = "/openapi.json"
EXAMPLES = 3
MANY_EXAMPLES = 100
MONEY_USD = "1000"

ENDS_THE_CALLER = {"/api/auth/logout": "POST", "/api/auth/account": "DELETE"}
"""Whoever asks it once is nobody afterwards."""
ENDLESS = "/ws/events"
"""Is read to an end that it does not have: test_described_successes.py and test_watching.py ask it."""
BUT_ENDINGS = tuple(word for path in (*ENDS_THE_CALLER, ENDLESS) for word in ("--exclude-path", path))
FOR_ADMINISTRATORS = ("--include-path-regex", "/admin(/|$)|^/api/config/")
CALLS = "/chat/completions$|/audio/|/video/analyze$"
CALLS_ALONE = ("--include-path-regex", CALLS)
BUT_THOSE = ("--exclude-path-regex", f"/admin(/|$)|{CALLS}")
AT_RANDOM = ("--phases", "fuzzing")
"""Without the cases at every bound of a schema. Those of a chat are over a thousand: they are asked with --soak."""
JUDGES_ITSELF = ("/auth0/", "/auth/", "/api/auth0/", "/webhooks/", "/health/deployment")
"""Routes whose 401 speaks of something else than the token: of a login's state, another one's token, a signature."""


@asynccontextmanager
async def open_described(stores: Stores) -> AsyncIterator[tuple[Cloche, StripeStandIn]]:
    """In development, so that the sandbox's model and the local issuer are there; and Stripe's stand-in."""
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(open_stripe_stand_in())
        cloche = await stack.enter_async_context(open_cloche(stores, settings={**stripe.settings, **DEVELOPMENT}))
        stripe.send_events_to(cloche.url)
        yield cloche, stripe


async def make_buyer(cloche: Cloche, stripe: StripeStandIn, role: str = "user") -> Customer:
    """With credits, a card and an address."""
    customer = await cloche.make_customer(MONEY_USD)
    cloche.query("UPDATE users SET role = %s WHERE id = %s RETURNING id", role, customer.user_id)
    async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
        answer = await client.post("/api/billing/create-portal-session")
        assert answer.status_code == 200, answer.text
    await stripe.leave_card(await stripe.find_customer(customer.user_id))
    return customer


async def explore(
    cloche: Cloche,
    folder: Path,
    headers: Mapping[str, str],
    *options: str,
    document: str = "",
    examples: int = EXAMPLES,
) -> subprocess.CompletedProcess[bytes]:
    """Asks every operation that the options leave in, with cases on every bound of its schema and some at random.
    `document` is a file that is believed instead of the server.
    """
    location = document or f"{cloche.url}{DOCUMENT}"
    command = [str(PROGRAM), "--config-file", str(CONFIGURATION), "run", location, "--url", cloche.url, "--no-color"]
    for name, value in headers.items():
        command += ["--header", f"{name}:{value}"]
    command += ["--max-examples", str(examples), *options]
    return await trio.run_process(command, cwd=folder, check=False, capture_stdout=True, stderr=subprocess.STDOUT)


def check_found_nothing(cloche: Cloche, run: subprocess.CompletedProcess[bytes]) -> None:
    """Neither by its checks nor in our log, where what is no error of ours is told as an error."""
    assert run.returncode == 0, run.stdout.decode(errors="replace")
    assert cloche.find_logged('"level":"ERROR"') == []


def find_refused(cloche: Cloche) -> set[str]:
    """Paths that said 401, but for those that judge more than the token."""
    ended = [line for line in cloche.find_logged("a request has ended", '"status":401') if line["status"] == 401]
    return {line["path"] for line in ended if not line["path"].startswith(JUDGES_ITSELF)}


async def load_schema(cloche: Cloche) -> schemathesis.BaseSchema:
    return await trio.to_thread.run_sync(schemathesis.openapi.from_url, f"{cloche.url}{DOCUMENT}")


async def ask_once(case: schemathesis.Case[Any], who: Customer) -> int:
    """The status. Raises what schemathesis finds."""
    answer = await trio.to_thread.run_sync(partial(case.call_and_validate, headers=dict(who.headers)))
    return answer.status_code


async def check_books(cloche: Cloche) -> None:
    await cloche.wait_settled()
    cloche.check_accounts()


async def test_every_route_answers_strangers_as_it_is_described(stores: Stores, tmp_path: Path) -> None:
    async with open_described(stores) as (cloche, _):
        check_found_nothing(cloche, await explore(cloche, tmp_path, {}, *AT_RANDOM))
        assert find_refused(cloche), "so the log can tell of refusals, which the next test looks for"


async def test_every_route_answers_people_as_it_is_described_and_signs_nobody_out(
    stores: Stores, tmp_path: Path
) -> None:
    """Not asked without the token here, so each 401 is one that an app would give up its sign-in for."""
    async with open_described(stores) as (cloche, stripe):
        who = await make_buyer(cloche, stripe)
        for options in ((*BUT_THOSE, *BUT_ENDINGS), (*CALLS_ALONE, *AT_RANDOM)):
            run = await explore(cloche, tmp_path, who.headers, *options, "--exclude-checks", "ignored_auth")
            check_found_nothing(cloche, run)
        assert find_refused(cloche) == set()
        await check_books(cloche)


async def test_what_is_for_administrators_answers_them_as_it_is_described(stores: Stores, tmp_path: Path) -> None:
    async with open_described(stores) as (cloche, stripe):
        who = await make_buyer(cloche, stripe, "admin")
        check_found_nothing(cloche, await explore(cloche, tmp_path, who.headers, *FOR_ADMINISTRATORS))
        await check_books(cloche)


async def test_what_ends_its_caller_answers_as_it_is_described(stores: Stores) -> None:
    async with open_cloche(stores, settings=DEVELOPMENT) as cloche:
        schema = await load_schema(cloche)
        for path, method in ENDS_THE_CALLER.items():
            who = await cloche.make_customer()
            statuses = [await ask_once(schema[path][method].Case(), who) for _ in range(2)]
            assert statuses == [200, 401]


@pytest.mark.parametrize("path", ["/api/llm/chat/completions", "/v1/chat/completions"])
async def test_whole_answers_and_streams_are_as_they_are_described(stores: Stores, path: str) -> None:
    async with open_cloche(stores, settings=DEVELOPMENT) as cloche:
        who = await cloche.make_customer()
        operation = (await load_schema(cloche))[path]["POST"]
        for members in ({}, {"stream": True}, {"max_tokens": 1}, {"model": "nobody/none"}):
            body: Any = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}], **members}
            status = await ask_once(operation.Case(body=body, media_type="application/json"), who)
            assert status == (404 if "model" in members else 200)


@pytest.mark.soak
@pytest.mark.parametrize("role", ["nobody", "user", "admin"])
async def test_every_route_answers_many_more_questions_as_it_is_described(
    stores: Stores, tmp_path: Path, role: str
) -> None:
    async with open_described(stores) as (cloche, stripe):
        headers = {} if role == "nobody" else (await make_buyer(cloche, stripe, role)).headers
        options = () if role == "nobody" else BUT_ENDINGS
        check_found_nothing(cloche, await explore(cloche, tmp_path, headers, *options, examples=MANY_EXAMPLES))
        await check_books(cloche)


async def test_an_answer_outside_of_its_description_is_found(stores: Stores, tmp_path: Path) -> None:
    """The check of these checks, that they can fail: a description that is wrong in one member."""
    path = "/api/config/billing"
    async with open_cloche(stores, settings=DEVELOPMENT) as cloche:
        async with httpx2.AsyncClient(base_url=cloche.url) as client:
            document = (await client.get(DOCUMENT)).json()
        document["components"]["schemas"]["FreeCreditsAnswer"]["properties"]["freeCreditsAmount"] = {"type": "integer"}
        wrong = tmp_path / "openapi.json"
        wrong.write_text(json.dumps(document))
        who = await cloche.make_customer()
        run = await explore(cloche, tmp_path, who.headers, "--include-path", path, document=str(wrong))
        assert run.returncode == 1
        assert b"Response violates schema" in run.stdout
