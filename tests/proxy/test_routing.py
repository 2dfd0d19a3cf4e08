"""From our model id to the provider that answers it."""

from dataclasses import replace
from uuid import UUID

import pytest

from proxy.errors import ModelUnknown, ProviderNotConfigured
from proxy.provider import Target
from proxy.providers import openai, sandbox
from proxy.routing import Route, Upstream, find_routes, usable_models
from tests.proxy.calls import MODEL, USER

MODELS = {MODEL.id: MODEL}
UPSTREAM = Upstream(openai.PROVIDER, "https://api.test/v1", ("sk-1",))
SPARE = Upstream(replace(openai.PROVIDER, code="spare"), "https://spare.test/v1", ("sk-2",))
AGGREGATOR = Upstream(replace(openai.PROVIDER, code="openrouter"), "https://all.test/v1", ("sk-3",))
UPSTREAMS = {"openai": UPSTREAM, "spare": SPARE, "openrouter": AGGREGATOR}
EVERYWHERE = {"another": "x", "spare": "there", "openai": "here", "openrouter": "openai/here"}


def test_a_route_is_the_model_its_provider_and_where_it_lives() -> None:
    [route] = find_routes(MODELS, {"openai": UPSTREAM}, MODEL.id, USER)
    assert (route.model, route.provider) == (MODEL, openai.PROVIDER)
    assert route.targets == (Target("https://api.test/v1", "sk-1", "gpt-4o-mini"),)


@pytest.mark.parametrize("model_id", ["", "gpt-4o-mini", "OPENAI/GPT-4O-MINI", "x" * 100_000, "\x00"])
def test_a_model_that_is_not_offered_is_unknown(model_id: str) -> None:
    with pytest.raises(ModelUnknown) as caught:
        find_routes(MODELS, {"openai": UPSTREAM}, model_id, USER)
    assert len(str(caught.value)) < 1000


def test_a_model_without_a_name_at_any_provider_is_unknown() -> None:
    models = {MODEL.id: replace(MODEL, provider_models={})}
    with pytest.raises(ModelUnknown):
        find_routes(models, UPSTREAMS, MODEL.id, USER)


def routes_to(*usable: str) -> tuple[Route, ...]:
    upstreams = {code: upstream for code, upstream in UPSTREAMS.items() if code in usable}
    return find_routes({MODEL.id: replace(MODEL, provider_models=EVERYWHERE)}, upstreams, MODEL.id, USER)


def test_a_models_own_provider_comes_first_then_who_sells_all_then_the_others() -> None:
    routes = routes_to("spare", "openrouter", "openai")
    assert [route.provider.code for route in routes] == ["openai", "openrouter", "spare"]
    assert [target.provider_model for route in routes for target in route.targets] == ["here", "openai/here", "there"]


def test_without_a_key_for_its_own_provider_a_model_is_served_by_another() -> None:
    assert [route.provider.code for route in routes_to("spare")] == ["spare"]
    model = replace(MODEL, provider_models=EVERYWHERE)
    assert usable_models({MODEL.id: model}, {"spare": SPARE}) == [model]


def test_every_key_is_a_target_and_a_user_starts_with_the_same_one_every_time() -> None:
    upstreams = {"openai": replace(UPSTREAM, api_keys=("a", "b", "c"))}
    starts = set()
    for number in range(6):
        [route] = find_routes(MODELS, upstreams, MODEL.id, UUID(int=number))
        keys = "".join(target.api_key for target in route.targets)
        assert keys in {"abc", "bca", "cab"}
        assert keys[0] == "abc"[number % 3]
        starts.add(keys[0])
    assert starts == {"a", "b", "c"}


@pytest.mark.parametrize("upstreams", [{}, {"openai": replace(UPSTREAM, api_keys=())}, {"xai": UPSTREAM}])
def test_a_provider_without_a_key_is_not_configured(upstreams: dict[str, Upstream]) -> None:
    with pytest.raises(ProviderNotConfigured, match="openai"):
        find_routes(MODELS, upstreams, MODEL.id, USER)


def test_a_provider_that_needs_no_key_is_usable_without_one() -> None:
    upstream = Upstream(sandbox.PROVIDER, "sandbox://local", ())
    model = replace(MODEL, provider_code="sandbox", provider_models={"sandbox": "echo"})
    [route] = find_routes({"x": model}, {"sandbox": upstream}, "x", USER)
    assert [target.api_key for target in route.targets] == [""]


def test_the_models_that_can_be_named_are_those_with_a_usable_provider() -> None:
    codes = {"b": "openai", "a": "openai", "c": "xai"}
    models = {
        name: replace(MODEL, id=name, provider_code=code, provider_models={code: "x"}) for name, code in codes.items()
    }
    upstreams = {"openai": UPSTREAM, "xai": replace(UPSTREAM, api_keys=())}
    assert [model.id for model in usable_models(models, upstreams)] == ["a", "b"]


def test_a_key_does_not_show_in_a_repr() -> None:
    [route] = find_routes(MODELS, {"openai": UPSTREAM}, MODEL.id, USER)
    assert "sk-1" not in repr(UPSTREAM) + repr(route)
