"""What every provider has to be; each file in providers/ is one."""

import json

import pytest

from proxy.chat import ChatRequest, Failed, Message, Text
from proxy.provider import Provider, Target, load_providers, setting_names

PROVIDERS = load_providers()
REQUEST = ChatRequest("x/y", (Message("user", (Text("Hello"),)),), max_output_tokens=5)

every_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


def test_providers_are_found_by_their_files() -> None:
    assert {"openai", "sandbox"} <= set(PROVIDERS)


@every_provider
def test_a_provider_goes_by_its_code(provider: Provider) -> None:
    assert PROVIDERS[provider.code] is provider


@every_provider
def test_a_provider_builds_a_request_for_its_target_and_no_other_place(provider: Provider) -> None:
    request = provider.build_request(REQUEST, Target(provider.default_base_url, "sk-test", "model-there"))
    assert request.url.startswith(provider.default_base_url)
    assert request.method == "POST"
    assert "sk-test" not in request.url
    assert isinstance(json.loads(request.body), dict)


@every_provider
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/json", ""])
def test_a_provider_reads_nothing_as_a_failure(provider: Provider, media_type: str) -> None:
    reader = provider.open_reader(media_type)
    [failed] = [*reader.feed(b""), *reader.finish()]
    assert isinstance(failed, Failed)
    assert failed.provider == provider.code


@every_provider
@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"<html>", b'{"error":{"message":"no"}}'])
def test_a_provider_reads_a_refusal_of_any_form(provider: Provider, body: bytes) -> None:
    failed = provider.read_refusal(503, {"retry-after": "9"}, body)
    assert (failed.provider, failed.status, failed.retry_after_seconds) == (provider.code, 503, 9)


@pytest.mark.parametrize(
    ("code", "names"),
    [("openai", ("OPENAI_BASE_URL", "OPENAI_API_KEY")), ("my-host", ("MY_HOST_BASE_URL", "MY_HOST_API_KEY"))],
)
def test_settings_are_named_after_the_provider(code: str, names: tuple[str, str]) -> None:
    assert setting_names(code) == names
