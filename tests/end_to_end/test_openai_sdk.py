"""OpenAI's own Python SDK against `/v1`, unchanged."""

from typing import Any

import openai
import pytest
import trio

from tests.end_to_end.caller import MODEL
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.fakes import Reset, ScriptedToolCall, open_fake_upstream, openai_error, openai_stream

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        "strict": True,
    },
}
CALLS = (
    ScriptedToolCall("call_1", "weather", ['{"town":', '"Oslo"}']),
    ScriptedToolCall("call_2", "weather", ['{"town":"Rome"}']),
)


def make_client(cloche: Cloche, token: str, headers: dict[str, str]) -> Any:
    """Typed as Any: the SDK's overloads want literals where the tests pass what a program would."""
    return openai.OpenAI(api_key=token, base_url=f"{cloche.url}/v1", default_headers=headers, max_retries=0, timeout=20)


async def test_a_stream_a_whole_answer_and_the_models(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hel", "lo"], usage=(12, 2))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()

        def use_sdk() -> None:
            with make_client(cloche, customer.token, customer.device_headers) as client:
                messages = [{"role": "user", "content": "Hi"}]
                stream = client.chat.completions.create(
                    model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
                )
                chunks = list(stream)
                assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
                assert chunks[-1].usage is not None
                assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (12, 2)
                assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
                whole = client.chat.completions.create(model=MODEL, messages=messages)
                assert whole.choices[0].message.content == "Hello"
                assert whole.usage is not None
                assert whole.usage.total_tokens == 14
                assert MODEL in [model.id for model in client.models.list()]
                found = client.models.retrieve(MODEL)
                assert (found.id, found.object, found.owned_by) == (MODEL, "model", "openai")
                assert found.model_extra["context_window"] > found.model_extra["max_output_tokens"] > 0

        await trio.to_thread.run_sync(use_sdk)


async def test_parallel_tool_calls_streamed_and_whole_and_their_results(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream([], tool_calls=CALLS, usage=(30, 20))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()

        def use_sdk() -> None:
            with make_client(cloche, customer.token, customer.device_headers) as client:
                ask = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
                with client.chat.completions.stream(model=MODEL, messages=ask, tools=[TOOL]) as stream:
                    final = stream.get_final_completion().choices[0]
                whole = client.chat.completions.create(model=MODEL, messages=ask, tools=[TOOL]).choices[0]
                for choice in (final, whole):
                    assert choice.finish_reason == "tool_calls"
                    calls = choice.message.tool_calls or []
                    assert [call.id for call in calls] == ["call_1", "call_2"]
                    assert [call.function.arguments for call in calls] == ['{"town":"Oslo"}', '{"town":"Rome"}']
                answer = {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}
                history = [*ask, whole.message.model_dump(exclude_none=True), answer]
                client.chat.completions.create(model=MODEL, messages=history, tools=[TOOL])

        await trio.to_thread.run_sync(use_sdk)
        sent = upstream.requests[-1].json
        assert sent["tools"] == [TOOL]
        assert [call["id"] for call in sent["messages"][1]["tool_calls"]] == ["call_1", "call_2"]
        assert sent["messages"][2] == {"role": "tool", "content": "Rain", "tool_call_id": "call_1"}


async def test_the_sdks_own_exceptions_are_raised(stores: Stores) -> None:
    refusal = openai_error(429, "tokens", "rate_limit_exceeded", "Slow down")
    async with open_fake_upstream(refusal) as upstream, open_cloche(stores, upstream.url) as cloche:
        rich, poor = await cloche.make_customer(), await cloche.make_customer("0")

        def use_sdk() -> None:
            ask = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
            with make_client(cloche, rich.token, rich.device_headers) as client:
                with pytest.raises(openai.RateLimitError, match="Slow down"):
                    client.chat.completions.create(**ask, stream=True)
                with pytest.raises(openai.NotFoundError):
                    client.chat.completions.create(**{**ask, "model": "openai/none"})
                with pytest.raises(openai.BadRequestError):
                    client.chat.completions.create(**ask, n=2)
            with make_client(cloche, "no token", {}) as client, pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(**ask)
            with make_client(cloche, poor.token, poor.device_headers) as client:
                with pytest.raises(openai.APIStatusError) as refused:
                    client.chat.completions.create(**ask)
                assert refused.value.status_code == 402

        await trio.to_thread.run_sync(use_sdk)


async def test_an_error_in_mid_stream_is_raised_after_the_text_that_came(stores: Stores) -> None:
    script = openai_stream(["Hel", "lo"])[:4]  # the head, the role, two deltas, and then nothing
    async with open_fake_upstream([*script, Reset()]) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()

        def use_sdk() -> str:
            texts: list[str] = []
            with make_client(cloche, customer.token, customer.device_headers) as client:
                ask = [{"role": "user", "content": "Hi"}]
                stream = client.chat.completions.create(model=MODEL, messages=ask, stream=True)
                with pytest.raises(openai.APIError, match="cut short"):
                    texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
            return "".join(texts)

        assert await trio.to_thread.run_sync(use_sdk) == "Hello"
