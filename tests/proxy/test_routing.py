"""From our model id to the provider that answers it."""

from dataclasses import replace

import pytest

from proxy.errors import ModelUnknown, ProviderNotConfigured
from proxy.provider import Target
from proxy.providers import openai, sandbox
from proxy.routing import Upstream, find_route, usable_models
from tests.proxy.calls import MODEL

MODELS = {MODEL.id: MODEL}
UPSTREAM = Upstream(openai.PROVIDER, "https://api.test/v1", "sk-1")


def test_a_route_is_the_model_its_provider_and_where_it_lives() -> None:
    route = find_route(MODELS, {"openai": UPSTREAM}, MODEL.id)
    assert (route.model, route.provider) == (MODEL, openai.PROVIDER)
    assert route.target == Target("https://api.test/v1", "sk-1", "gpt-4o-mini")


@pytest.mark.parametrize("model_id", ["", "gpt-4o-mini", "OPENAI/GPT-4O-MINI", "x" * 100_000, "\x00"])
def test_a_model_that_is_not_offered_is_unknown(model_id: str) -> None:
    with pytest.raises(ModelUnknown) as caught:
        find_route(MODELS, {"openai": UPSTREAM}, model_id)
    assert len(str(caught.value)) < 1000


def test_a_model_without_a_name_at_its_provider_is_unknown() -> None:
    models = {MODEL.id: replace(MODEL, provider_models={"openrouter": "openai/gpt-4o-mini"})}
    with pytest.raises(ModelUnknown):
        find_route(models, {"openai": UPSTREAM}, MODEL.id)


@pytest.mark.parametrize("upstreams", [{}, {"openai": replace(UPSTREAM, api_key=None)}, {"xai": UPSTREAM}])
def test_a_provider_without_a_key_is_not_configured(upstreams: dict[str, Upstream]) -> None:
    with pytest.raises(ProviderNotConfigured, match="openai"):
        find_route(MODELS, upstreams, MODEL.id)


def test_a_provider_that_needs_no_key_is_usable_without_one() -> None:
    upstream = Upstream(sandbox.PROVIDER, "sandbox://local", None)
    model = replace(MODEL, provider_code="sandbox", provider_models={"sandbox": "echo"})
    assert find_route({"x": model}, {"sandbox": upstream}, "x").target.api_key == ""


def test_the_models_that_can_be_named_are_those_with_a_usable_provider() -> None:
    codes = {"b": "openai", "a": "openai", "c": "xai"}
    models = {name: replace(MODEL, id=name, provider_code=code) for name, code in codes.items()}
    upstreams = {"openai": UPSTREAM, "xai": replace(UPSTREAM, api_key=None)}
    assert [model.id for model in usable_models(models, upstreams)] == ["a", "b"]


def test_a_key_does_not_show_in_a_repr() -> None:
    route = find_route(MODELS, {"openai": UPSTREAM}, MODEL.id)
    assert "sk-1" not in repr(UPSTREAM) + repr(route)
