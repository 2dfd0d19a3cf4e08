"""What every provider has to be; each file in providers/ is one."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import providers
from proxy.chat import ChatRequest, Message, Text
from proxy.events import Failed, TextDelta
from proxy.provider import Provider, ProviderCall, SettingNames, Target, load_providers, setting_names
from server.config import read_config
from tests.fakes import openai_stream
from tests.proxy.calls import MODEL, USER, open_bench, read_all

PROVIDERS = load_providers()
SETTINGS = {
    "ENVIRONMENT": "development",
    "DATABASE_URL": "postgresql://x/y",
    "REDIS_URL": "redis://x",
    "JWT_SECRET": "s" * 32,
}
REQUEST = ChatRequest("x/y", (Message("user", (Text("Hello"),)),), max_output_tokens=5)


def build_call(provider: Provider) -> ProviderCall:
    return provider.build_call(REQUEST, Target(provider.default_base_url, "sk-test", "model-there"))

every_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


def test_providers_are_found_by_their_files() -> None:
    assert {"openai", "sandbox"} <= set(PROVIDERS)


@every_provider
def test_a_provider_goes_by_its_code(provider: Provider) -> None:
    assert PROVIDERS[provider.code] is provider


@every_provider
def test_a_provider_builds_a_request_for_its_target_and_no_other_place(provider: Provider) -> None:
    request = build_call(provider).request
    assert request.url.startswith(provider.default_base_url)
    assert request.method == "POST"
    assert "sk-test" not in request.url
    assert isinstance(json.loads(request.body), dict)


@every_provider
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/json", ""])
def test_a_provider_reads_nothing_as_a_failure(provider: Provider, media_type: str) -> None:
    reader = build_call(provider).open_reader(media_type)
    [failed] = [*reader.feed(b""), *reader.finish()]
    assert isinstance(failed, Failed)
    assert failed.provider == provider.code


@every_provider
@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"<html>", b'{"error":{"message":"no"}}'])
def test_a_provider_reads_a_refusal_of_any_form(provider: Provider, body: bytes) -> None:
    failed = build_call(provider).read_refusal(503, {"retry-after": "9"}, body)
    assert (failed.provider, failed.status, failed.retry_after_seconds) == (provider.code, 503, 9)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("openai", ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_API_KEYS")),
        ("my-host", ("MY_HOST_BASE_URL", "MY_HOST_API_KEY", "MY_HOST_API_KEYS")),
    ],
)
def test_settings_are_named_after_the_provider(code: str, names: tuple[str, str, str]) -> None:
    assert setting_names(code) == SettingNames(*names)


NEWCOMER = """
from functools import partial

from proxy.dialects import openai_chat
from proxy.provider import MediaLimits, Provider, ProviderCall, UpstreamRequest


def build_call(request, target):
    sent = UpstreamRequest(f"{target.base_url}/say", (("X-Key", target.api_key),), request.model.encode())
    reader = partial(openai_chat.open_reader, "newcomer")
    return ProviderCall(sent, reader, partial(openai_chat.read_refusal, "newcomer"))


PROVIDER = Provider("newcomer", "A newcomer", "https://new.test", MediaLimits(frozenset()), build_call)
"""


async def test_a_provider_is_added_by_adding_a_file_and_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is found, its settings are read, its models are offered, and a call to it is answered and charged."""
    (tmp_path / "newcomer.py").write_text(NEWCOMER)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    found = load_providers()
    monkeypatch.delitem(sys.modules, "proxy.providers.newcomer")
    assert found.keys() == {*PROVIDERS, "newcomer"}
    model = replace(MODEL, id="newcomer/one", provider_code="newcomer", provider_models={"newcomer": "one"})
    async with open_bench(openai_stream(["Hello"], usage=(1000, 500)), model=model) as bench:
        settings = {"NEWCOMER_BASE_URL": bench.upstream.url, "NEWCOMER_API_KEY": "sk-new", **SETTINGS}
        upstreams = read_config(settings, found).upstreams
        gateway, request = replace(bench.gateway, upstreams=upstreams), replace(REQUEST, model=model.id)
        async with gateway.open_chat(USER, request) as chat:
            assert TextDelta("Hello") in await read_all(chat)
        [sent] = bench.upstream.requests
        assert (sent.path, sent.headers["x-key"], sent.body) == ("/say", "sk-new", b"newcomer/one")
        assert bench.settlement.provider_code == "newcomer"
        bench.assert_charged("0.010500")
