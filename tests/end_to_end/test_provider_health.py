"""What one process finds out about a provider, every process tells."""

from collections.abc import Iterable
from typing import Any

import trio

from tests.end_to_end.asking import ask
from tests.end_to_end.caller import MODEL, OPENAI, build_chat
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fakes import RecordedRequest, Step, open_fake_upstream, openai_error, openai_stream

HEALTHY = "openai/gpt-4.1"
CALLS_TO_OPEN = 5


def answer_for_one_model(request: RecordedRequest) -> Iterable[Step]:
    if request.json["model"] == MODEL.partition("/")[2]:
        return openai_error(500, "server_error", None, "broken")
    return openai_stream(["Hello"], usage=(3, 1))


async def chat(cloche: Cloche, customer: Customer, model: str) -> int:
    return (await ask(cloche, OPENAI, customer.headers, build_chat(model=model, stream=False))).status


async def wait_told(cloche: Cloche, customer: Customer, state: str) -> Any:
    """The whole health, as soon as this process tells of that state."""
    with trio.fail_after(10):
        while True:
            health = (await ask(cloche, "/api/providers/by-code/openai", customer.headers)).json["health"]
            if health["state"] == state:
                return health
            await trio.sleep(0.05)


async def test_a_provider_that_fails_is_told_as_down_then_degraded_by_another_process(stores: Stores) -> None:
    async with (
        open_fake_upstream(answer_for_one_model) as upstream,
        open_cloche(stores, upstream.url) as here,
        open_cloche(stores, upstream.url) as there,
    ):
        customer = await here.make_customer()
        assert (await wait_told(there, customer, "up"))["openModels"] == []
        for _ in range(CALLS_TO_OPEN):
            assert await chat(here, customer, MODEL) >= 500
        assert (await wait_told(there, customer, "down"))["openModels"] == [MODEL]
        assert await chat(here, customer, HEALTHY) == 200
        health = await wait_told(there, customer, "degraded")
        assert (health["openModels"], health["successes"]) == ([MODEL], 1)
        states = (await ask(there, f"/v1/models/{MODEL}", customer.headers)).json["providers"]
        assert [found["state"] for found in states if found["provider"] == "openai"] == ["open"]
