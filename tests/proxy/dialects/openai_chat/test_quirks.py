"""OpenAI's models, told apart by their names."""

import pytest

from proxy.dialects.openai_chat.quirks import OPENAI, openai_quirks


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-chat-latest"])
def test_a_model_that_does_not_reason_takes_all(model: str) -> None:
    assert openai_quirks(model, reasons=False) == OPENAI


def test_a_model_that_reasons_is_not_sampled() -> None:
    quirks = openai_quirks("o4-mini", reasons=True)
    assert quirks.drops == {"temperature", "top_p"}
    assert not quirks.takes & {"temperature", "top_p", "stop", "logprobs", "logit_bias", "presence_penalty"}
    assert quirks.takes >= {"seed", "reasoning_effort", "tools", "verbosity"}


def test_a_model_that_is_asked_not_to_think_is_sampled() -> None:
    quirks = openai_quirks("gpt-5.2", reasons=True, samples=True)
    assert quirks.takes >= {"temperature", "top_p", "logprobs"}
    assert not quirks.takes & {"stop", "logit_bias", "presence_penalty"}
    assert quirks.drops == frozenset()


@pytest.mark.parametrize("model", ["gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api"])
def test_a_search_model_searches_at_every_call(model: str) -> None:
    quirks = openai_quirks(model, reasons=False)
    assert "web_search" in quirks.takes
    assert quirks.unreported_searches == 1
    assert quirks.drops == {"temperature", "top_p"}


def test_other_models_do_not_search() -> None:
    assert "web_search" not in openai_quirks("gpt-4o", reasons=False).takes
    assert openai_quirks("gpt-4o", reasons=False).unreported_searches == 0


@pytest.mark.parametrize(("known", "hints"), [(True, "prompt_cache_breakpoint"), (False, ""), ("yes", ""), (None, "")])
def test_marks_for_the_cache_are_for_models_that_the_catalogue_names(known: object, hints: str) -> None:
    capabilities = {} if known is None else {"cache_breakpoints": known}
    assert openai_quirks("gpt-x", reasons=False, capabilities=capabilities).cache_hints == hints


def test_the_catalogue_says_what_an_older_server_does_not_know() -> None:
    capabilities = {"output_limit": "max_tokens", "leaves_out": ["stream_options", "messages", 5]}
    quirks = openai_quirks("llama", reasons=False, capabilities=capabilities)
    assert quirks.output_limit == "max_tokens"
    assert quirks.leaves_out == {"stream_options"}
    odd = openai_quirks("llama", reasons=False, capabilities={"output_limit": 5, "leaves_out": "user"})
    assert odd == OPENAI


def test_metadata_is_not_sent_where_nothing_is_stored() -> None:
    assert "metadata" not in OPENAI.takes
