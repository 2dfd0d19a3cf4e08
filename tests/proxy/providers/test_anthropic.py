"""Anthropic's own ways."""

from proxy.chat import ChatRequest, Message, Text
from proxy.events import Failed
from proxy.provider import Target, load_providers
from proxy.providers.anthropic import PROVIDER

REQUEST = ChatRequest("anthropic/x", (Message("user", (Text("Hi"),)),), 5)


def test_it_lives_where_anthropic_says() -> None:
    call = PROVIDER.build_call(REQUEST, Target(PROVIDER.default_base_url, "key", "claude-sonnet-4-5"))
    assert call.request.url == "https://api.anthropic.com/v1/messages"
    assert call.background is None
    assert PROVIDER.needs_key
    assert load_providers()["anthropic"] is PROVIDER


def test_its_failures_bear_its_name() -> None:
    call = PROVIDER.build_call(REQUEST, Target("https://api.test", "key", "claude-sonnet-4-5"))
    [failed] = call.open_reader("text/event-stream").finish()
    assert isinstance(failed, Failed)
    assert failed.provider == call.read_refusal(529, {}, b"").provider == "anthropic"


def test_media_are_limited_as_the_contract_says() -> None:
    limits, mebibyte = PROVIDER.media, 1024 * 1024
    assert limits.image_types == {"image/jpeg", "image/png", "image/gif", "image/webp"}
    assert "application/pdf" in limits.document_types
    assert (limits.max_images, limits.max_image_bytes) == (100, None)
    assert limits.max_total_image_bytes == limits.max_document_bytes == 32 * mebibyte
    assert limits.max_total_document_bytes == 32 * mebibyte
