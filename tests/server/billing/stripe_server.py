"""A server that plays Stripe over HTTP, for tests of how Stripe is asked: it answers what the test says."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import trio

from server.billing.settings import BillingSettings
from tests.server.billing.stripe_objects import build_settings
from tests.stripe_stand_in.http_service import Reply, Request, build_reply, serve

Answer = Reply | Callable[[Request], Awaitable[Reply]]


@dataclass(slots=True)
class StripeServer:
    """`answers` by method and path; those to the same question one after another, the last one for good."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def on(self, question: str, *answers: Answer) -> None:
        self.answers[question] = list(answers)

    @property
    def settings(self) -> BillingSettings:
        return replace(build_settings(), api_base=self.url)

    @property
    def questions(self) -> list[str]:
        return [f"{each.method} {each.path}" for each in self.requests]

    @property
    def last_form(self) -> dict[str, str]:
        """Of the last request's body or query, names with their brackets."""
        last = self.requests[-1]
        return dict(parse_qsl(last.body.decode() or last.query, keep_blank_values=True))

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        answers = self.answers.get(f"{request.method} {request.path}", [refuse(404, "resource_missing")])
        chosen = answers.pop(0) if len(answers) > 1 else answers[0]
        return chosen if isinstance(chosen, Reply) else await chosen(request)


@asynccontextmanager
async def open_stripe_server() -> AsyncIterator[StripeServer]:
    server = StripeServer()
    async with trio.open_nursery() as nursery:
        server.url = await nursery.start(partial(serve, server.answer))
        yield server
        nursery.cancel_scope.cancel()


def tell(value: Mapping[str, Any]) -> Reply:
    return build_reply(200, value, **{"Request-Id": "req_told"})


def refuse(status: int, code: str, type_: str = "invalid_request_error", **members: str) -> Reply:
    """With a message that must go nowhere."""
    error = {"type": type_, "code": code, "message": "No such thing of ann@example.com: sk_test_0123456789", **members}
    return build_reply(status, {"error": error}, **{"Request-Id": "req_refused"})


async def hang(_: Request) -> Reply:
    await trio.sleep_forever()
    raise AssertionError("forever is over")
