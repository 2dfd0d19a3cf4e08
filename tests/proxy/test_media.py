"""Images and documents: what a provider takes, refused by the part's place."""

from dataclasses import replace

import pytest

from proxy.chat import ChatRequest, Document, Image, Message, Part, Text
from proxy.errors import RequestNotSupported
from proxy.media import MediaRefused, check_media, size_bytes
from proxy.provider import MediaLimits, Target
from proxy.providers import openai
from proxy.routing import Route
from tests.proxy.calls import MODEL

PNG = Image("image/png", "A" * 400)  # 300 bytes
PDF = Document("application/pdf", "A" * 400)
LIMITS = MediaLimits(frozenset({"image/png"}), frozenset({"application/pdf"}))


def check(*parts: Part, limits: MediaLimits = LIMITS, sees_images: bool = True) -> None:
    provider = replace(openai.PROVIDER, media=limits)
    route = Route(replace(MODEL, sees_images=sees_images), provider, (Target("https://x.test", "", "x"),))
    check_media(ChatRequest("x", (Message("system", (Text("see"),)), Message("user", parts))), route)


def test_what_fits_is_taken() -> None:
    check(Text("see"), PNG, PDF)
    check(Text("see"), sees_images=False)


@pytest.mark.parametrize("part", [PNG, PDF])
def test_a_model_that_does_not_see_takes_no_media(part: Part) -> None:
    with pytest.raises(RequestNotSupported, match="takes no images"):
        check(part, sees_images=False)


@pytest.mark.parametrize(
    ("part", "limits"),
    [
        (Image("image/gif", "QQ=="), LIMITS),
        (Document("text/plain", "QQ=="), LIMITS),
        (PDF, MediaLimits(frozenset({"image/png"}))),
        (PNG, replace(LIMITS, max_image_bytes=299)),
        (PDF, replace(LIMITS, max_document_bytes=299)),
        (PNG, replace(LIMITS, max_images=1)),
        (PNG, replace(LIMITS, max_total_image_bytes=599)),
        (PDF, replace(LIMITS, max_total_document_bytes=599)),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(part: Part, limits: MediaLimits) -> None:
    """The second of two of its kind where the limit is for all."""
    with pytest.raises(MediaRefused, match=r"messages\[1\]\.content\[[02]\]: "):
        check(part, Text("see"), part, limits=limits)


@pytest.mark.parametrize(
    "limits",
    [
        replace(LIMITS, max_image_bytes=300, max_document_bytes=300),
        replace(LIMITS, max_images=2),
        replace(LIMITS, max_total_image_bytes=600, max_total_document_bytes=600),
    ],
)
def test_what_just_fits_is_taken(limits: MediaLimits) -> None:
    check(PNG, PDF, PNG, PDF, limits=limits)


def test_images_and_documents_have_limits_of_their_own() -> None:
    check(PNG, PDF, limits=replace(LIMITS, max_total_image_bytes=300, max_total_document_bytes=300))


def test_a_refusal_says_what_is_taken() -> None:
    with pytest.raises(MediaRefused, match=r"image/gif is not taken .* takes image/png"):
        check(Image("image/gif", "QQ=="))


def test_sizes_are_those_of_the_decoded_bytes() -> None:
    assert [size_bytes("A" * length) for length in (0, 1, 4, 5)] == [0, 0, 3, 3]
