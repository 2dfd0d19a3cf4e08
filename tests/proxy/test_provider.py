"""What every provider has to be; each file in providers/ is one."""

import json

import pytest

from proxy.chat import ChatRequest, Failed, Message, Text
from proxy.provider import Provider, Target, load_providers, setting_names

PROVIDERS = load_providers()
REQUEST = ChatRequest("x/y", (Message("user", (Text("Hello"),)),), max_output_tokens=5)


def test_providers_are_found_by_their_files() -> None:
    assert {"openai", "sandbox"} <= set(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
class TestEveryProvider:
    def test_it_goes_by_its_code(self, provider: Provider) -> None:
        assert PROVIDERS[provider.code] is provider

    def test_it_builds_a_request_for_its_target_and_no_other_place(self, provider: Provider) -> None:
        request = provider.build_request(REQUEST, Target(provider.default_base_url, "sk-test", "model-there"))
        assert request.url.startswith(provider.default_base_url)
        assert request.method == "POST"
        assert "sk-test" not in request.url
        assert isinstance(json.loads(request.body), dict)

    def test_it_reads_nothing_as_a_failure(self, provider: Provider) -> None:
        for media_type in ("text/event-stream", "application/json", ""):
            reader = provider.open_reader(media_type)
            [failed] = [*reader.feed(b""), *reader.finish()]
            assert isinstance(failed, Failed)
            assert failed.provider == provider.code

    def test_it_reads_a_refusal_of_any_form(self, provider: Provider) -> None:
        for body in (b"", b"\xff", b"[]", b"<html>", b'{"error":{"message":"no"}}'):
            failed = provider.read_refusal(503, {"retry-after": "9"}, body)
            assert (failed.provider, failed.status, failed.retry_after_seconds) == (provider.code, 503, 9)


@pytest.mark.parametrize(
    ("code", "names"),
    [("openai", ("OPENAI_BASE_URL", "OPENAI_API_KEY")), ("my-host", ("MY_HOST_BASE_URL", "MY_HOST_API_KEY"))],
)
def test_settings_are_named_after_the_provider(code: str, names: tuple[str, str]) -> None:
    assert setting_names(code) == names
