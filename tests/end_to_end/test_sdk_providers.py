"""OpenAI's own Python SDK against `/v1`, with each provider behind it: text, tools, images, structured output."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import trio

from storage.seed import seed
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.replaying import KINDS, Kind, build_settings, write_catalogue
from tests.fake_anthropic import anthropic_stream
from tests.fake_google import google_stream
from tests.fake_responses import responses_stream
from tests.fake_upstream import RecordedRequest
from tests.fakes import FakeUpstream, ScriptedToolCall, Step, open_fake_upstream, openai_stream

CALLS = (
    ScriptedToolCall("call_1", "weather", ['{"town":', '"Oslo"}']),
    ScriptedToolCall("call_2", "weather", ['{"town":"Rome"}']),
)
TOWNS = ["Oslo", "Rome"]
USAGE = (1200, 34)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}},
            "required": ["town"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Forecast(pydantic.BaseModel):
    """What structured output is parsed into."""

    town: str
    degrees: int


def script_for(path: str) -> Callable[..., list[Step]]:
    """How the provider at this path of the fake speaks."""
    if "/messages" in path:
        return anthropic_stream
    if "streamGenerateContent" in path:
        return google_stream
    return responses_stream if path.endswith("/responses") else openai_stream


def respond(request: RecordedRequest) -> Sequence[Step]:
    """Calls to tools where they are offered and have not been answered, JSON where a schema is wanted, else a text."""
    said = request.body.decode()
    script = script_for(request.path)
    if "rain in Oslo" in said:
        return script(["Take an ", "umbrella."], usage=USAGE)
    if '"weather"' in said:
        return script([], tool_calls=CALLS, usage=USAGE)
    if "degrees" in said:
        return script(['{"town": "Oslo", ', '"degrees": 7}'], usage=USAGE)
    return script(["Hel", "lo"], usage=USAGE)


def use_sdk(cloche: Cloche, customer: Customer, upstream: FakeUpstream, kind: Kind) -> None:
    with openai.OpenAI(
        api_key=customer.token,
        base_url=f"{cloche.url}/v1",
        default_headers=customer.device_headers,
        max_retries=0,
        timeout=20,
    ) as client:
        create: Callable[..., Any] = partial(client.chat.completions.create, model=kind.model, **kind.asks)
        check_text(create)
        check_tools(client, create, kind)
        check_image(create, upstream)
        check_structured_output(client, kind)


def check_text(create: Callable[..., Any]) -> None:
    ask = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    chunks = list(create(messages=ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    whole = create(messages=ask)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Hello", "stop")
    for usage in (chunks[-1].usage, whole.usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == USAGE


def check_tools(client: Any, create: Callable[..., Any], kind: Kind) -> None:
    """Parallel calls, streamed and whole; then their results go back, and the answer comes.

    Typed as Any: the SDK's overloads want literals where the tests pass what a program would.
    """
    ask: list[Any] = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
    with client.chat.completions.stream(model=kind.model, messages=ask, tools=[TOOL], **kind.asks) as stream:
        streamed = stream.get_final_completion().choices[0]
    whole = create(messages=ask, tools=[TOOL]).choices[0]
    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls
        assert [json.loads(call.function.arguments)["town"] for call in calls] == TOWNS
        assert [call.function.name for call in calls] == ["weather", "weather"]
        assert len({call.id for call in calls}) == 2
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"rain in {town}"}
        for call, town in zip(whole.message.tool_calls, TOWNS, strict=True)
    ]
    history = [*ask, whole.message.model_dump(exclude_none=True), *results]
    answer = create(messages=history, tools=[TOOL])
    assert answer.choices[0].message.content == "Take an umbrella."


def check_image(create: Callable[..., Any], upstream: FakeUpstream) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    assert create(messages=[{"role": "user", "content": parts}]).choices[0].message.content == "Hello"
    assert PIXEL in upstream.requests[-1].body.decode()


def check_structured_output(client: Any, kind: Kind) -> None:
    parsed = client.chat.completions.parse(
        model=kind.model,
        messages=[{"role": "user", "content": "How warm is Oslo?"}],
        response_format=Forecast,
        **kind.asks,
    )
    assert parsed.choices[0].message.parsed == Forecast(town="Oslo", degrees=7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_the_sdk_works_with_every_provider_behind(stores: Stores, tmp_path: Path, kind: Kind) -> None:
    seed(stores.owner_database_url, write_catalogue(tmp_path / "catalogue.toml"))
    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, settings=build_settings(upstream)) as cloche,
    ):
        customer = await cloche.make_customer()
        await trio.to_thread.run_sync(use_sdk, cloche, customer, upstream, kind)
        await cloche.wait_settled()
        outcomes = cloche.query("SELECT outcome, provisional, provider_code FROM usage")
        assert outcomes == [("completed", False, kind.model.partition("/")[0])] * 7
        cloche.check_accounts()
