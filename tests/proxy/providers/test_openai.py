"""OpenAI's own ways."""

import json

import pytest

from proxy.chat import ChatRequest, Message, Sampling, Text
from proxy.provider import Target
from proxy.providers.openai import PROVIDER

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 5, Sampling(temperature=0.5, top_p=0.9))


@pytest.mark.parametrize(
    ("model", "takes_temperature"),
    [("gpt-4o-mini", True), ("gpt-4.1", True), ("o3", False), ("o4-mini", False), ("gpt-5-nano", False)],
)
def test_reasoning_models_are_sent_no_temperature(model: str, takes_temperature: bool) -> None:
    body = json.loads(PROVIDER.build_request(REQUEST, Target("https://api.test/v1", "sk-1", model)).body)
    assert body["model"] == model
    assert ("temperature" in body, "top_p" in body) == (takes_temperature, takes_temperature)
    assert body["max_completion_tokens"] == 5


def test_it_lives_where_openai_says() -> None:
    target = Target(PROVIDER.default_base_url, "sk-1", "gpt-4o")
    assert PROVIDER.build_request(REQUEST, target).url == "https://api.openai.com/v1/chat/completions"
    assert PROVIDER.needs_key
