"""The sandbox as a provider: OpenAI's dialect, and no key."""

import json

from proxy.chat import ChatRequest, Message, Sampling, Text, WebSearch
from proxy.provider import Target
from proxy.providers.sandbox import PROVIDER
from proxy.sandbox import SCHEME

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),), 5, Sampling(temperature=0.5))


def test_it_needs_no_key_and_no_network() -> None:
    assert not PROVIDER.needs_key
    assert PROVIDER.default_base_url.startswith(SCHEME)


def test_it_speaks_openais_dialect() -> None:
    body = json.loads(PROVIDER.build_call(REQUEST, Target(PROVIDER.default_base_url, "", "echo")).request.body)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert body["max_completion_tokens"] == 5


def test_it_takes_whatever_a_client_may_ask_of_a_real_one() -> None:
    sampling = Sampling(0.5, 0.9, 0.1, 0.2, 7, ("END",), "low", True, 2, 40, 100, "auto", "low", {"1": 1})
    request = ChatRequest("x", REQUEST.messages, 5, sampling, web_search=WebSearch(), metadata={"a": "b"})
    PROVIDER.build_call(request, Target(PROVIDER.default_base_url, "", "echo"))


def test_it_says_that_it_is_no_model() -> None:
    assert "not a model" in PROVIDER.name
