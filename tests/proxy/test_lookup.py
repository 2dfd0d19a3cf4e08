"""What an answer has used, asked of its provider afterwards, over real sockets."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from proxy.errors import UpstreamError
from proxy.events import Usage
from proxy.lookup import look_up
from proxy.provider import Lookup, Target, UpstreamRequest
from proxy.providers import openai
from proxy.routing import Upstream
from proxy.transport import NetworkTransport
from tests.fake_upstream import RecordedRequest
from tests.fakes import Reset, Step, open_fake_upstream, response
from tests.proxy.calls import PROMPT_TOKENS, REQUEST, USER, Bench, open_bench, read_texts, saying, settle_down

USED = response(200, b'{"used": 7}')
UNKNOWN = response(404, b"{}")
BUSY = response(503, b"busy")


def read_usage(body: bytes, id_: str) -> Usage | None:
    used = json.loads(body).get("used")
    return Usage(output_tokens=used) if used is not None else None


def build_request(target: Target, id_: str) -> UpstreamRequest:
    """It names its key, as only a test may."""
    return UpstreamRequest(f"{target.base_url}/{target.api_key}/{id_}", (), b"", "GET")


def read_id(headers: Mapping[str, str], body: bytes) -> str | None:
    _, found, rest = body.partition(b'"id":"')
    return headers.get("x-id") or (rest.partition(b'"')[0].decode() if found else None)


LOOKUP = Lookup(read_id, build_request, read_usage)


def upstream_at(url: str, *keys: str, lookup: Lookup | None = LOOKUP) -> Upstream:
    return Upstream(replace(openai.PROVIDER, lookup=lookup), url, keys)


def by_key(**scripts: Sequence[Step]) -> Callable[[RecordedRequest], Sequence[Step]]:
    return lambda request: scripts[request.path.split("/")[1]]


async def test_the_key_that_the_answer_belongs_to_is_found(transport: NetworkTransport) -> None:
    async with open_fake_upstream(by_key(k1=UNKNOWN, k2=USED, k3=USED)) as fake:
        assert await look_up(transport, upstream_at(fake.url, "k1", "k2", "k3"), "a1") == Usage(output_tokens=7)
        assert [request.path for request in fake.requests] == ["/k1/a1", "/k2/a1"]


@pytest.mark.parametrize("trouble", [BUSY, response(429, b"slow down"), [Reset()]])
async def test_a_provider_that_is_not_well_has_to_be_asked_again(
    transport: NetworkTransport, trouble: Sequence[Step]
) -> None:
    async with open_fake_upstream(by_key(k1=trouble, k2=UNKNOWN)) as fake:
        with pytest.raises(UpstreamError):
            await look_up(transport, upstream_at(fake.url, "k1", "k2"), "a1")


async def test_another_key_may_know_though_one_is_not_well(transport: NetworkTransport) -> None:
    async with open_fake_upstream(by_key(k1=BUSY, k2=USED)) as fake:
        assert await look_up(transport, upstream_at(fake.url, "k1", "k2"), "a1") == Usage(output_tokens=7)


async def test_what_nobody_knows_is_nothing(transport: NetworkTransport) -> None:
    async with open_fake_upstream(by_key(k1=UNKNOWN, k2=response(200, b"{}"))) as fake:
        assert await look_up(transport, upstream_at(fake.url, "k1", "k2"), "a1") is None
        assert await look_up(transport, upstream_at(fake.url, "k1", lookup=None), "a1") is None
        assert len(fake.requests) == 2


# Through the gateway: whose id a settlement has


async def leave(bench: Bench, lookup: Lookup | None = LOOKUP) -> None:
    """Call, and leave after two words."""
    asked = replace(bench.gateway.upstreams["openai"], provider=replace(openai.PROVIDER, lookup=lookup))
    gateway = replace(bench.gateway, upstreams={**bench.gateway.upstreams, "openai": asked})
    async with gateway.open_chat(USER, REQUEST) as chat:
        await read_texts(chat, 2)
    await settle_down()


async def test_a_settlement_says_under_which_id_the_provider_knows_the_answer() -> None:
    async with open_bench(saying(2)) as bench:
        await leave(bench)
        assert bench.settlement.provisional
        assert bench.settlement.usage.input_tokens == PROMPT_TOKENS
        assert bench.settlement.upstream_id == "chatcmpl-scripted"


async def test_a_provider_that_cannot_be_asked_later_leaves_no_id() -> None:
    async with open_bench(saying(2)) as bench:
        await leave(bench, None)
        assert bench.settlement.upstream_id is None


async def test_the_id_of_an_attempt_that_failed_is_not_that_of_the_answer() -> None:
    """The first provider said its id and broke; the second, which cannot be asked later, answered."""
    broken = [*saying(0)[:-1], Reset()]
    async with open_bench(broken, fallback=saying(2)) as bench:
        await leave(bench)
        assert bench.settlement.provider_code == "spare"
        assert bench.settlement.upstream_id is None


async def test_the_gateway_knows_whom_it_can_ask() -> None:
    async with open_bench(UNKNOWN) as bench:
        gateway = bench.gateway
        assert gateway.looks_up == []
        assert await gateway.look_up("openai", "a1") is None
        assert await gateway.look_up("unknown", "a1") is None
        asked = replace(gateway, upstreams={"openai": upstream_at(bench.upstream.url, "k1"), "x": upstream_at("x")})
        assert asked.looks_up == ["openai"]
        assert await asked.look_up("openai", "a1") is None
        assert [request.path for request in bench.upstream.requests] == ["/k1/a1"]
