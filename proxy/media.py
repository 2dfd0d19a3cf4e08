"""Which images and documents a model and its provider take. Refused before anything else happens, by the part's
index.
"""

from proxy.chat import ChatRequest, Document, Image
from proxy.errors import RequestNotSupported
from proxy.provider import MediaLimits
from proxy.routing import Route


class MediaRefused(RequestNotSupported):
    """A part that this provider does not take, or too much of it."""


def check_media(request: ChatRequest, route: Route) -> None:
    """Raises RequestNotSupported if the model does not see at all, MediaRefused for a part of the wrong kind or
    size.
    """
    images = [(where, part) for where, part in _located(request) if isinstance(part, Image)]
    documents = [(where, part) for where, part in _located(request) if isinstance(part, Document)]
    if not images and not documents:
        return
    if not route.model.sees_images:
        raise RequestNotSupported(f"{route.model.id} takes no images and no documents")
    _check_images(images, route.provider.media)
    _check_documents(documents, route.provider.media)


def size_bytes(data: str) -> int:
    """The decoded size of base64 without padding taken into account, as the limits are understood."""
    return 3 * len(data) // 4


def _located(request: ChatRequest) -> list[tuple[str, object]]:
    return [
        (f"messages[{i}].content[{j}]", part)
        for i, message in enumerate(request.messages)
        for j, part in enumerate(message.parts)
    ]


def _check_images(images: list[tuple[str, Image]], limits: MediaLimits) -> None:
    for where, image in images:
        _check_type(where, image.media_type, limits.image_types)
        _check_size(where, size_bytes(image.data), limits.max_image_bytes)
    if limits.max_images is not None and len(images) > limits.max_images:
        raise MediaRefused(f"{images[limits.max_images][0]}: more than {limits.max_images} images")
    _check_total(images, limits.max_total_image_bytes)


def _check_documents(documents: list[tuple[str, Document]], limits: MediaLimits) -> None:
    for where, document in documents:
        _check_type(where, document.media_type, limits.document_types)
        _check_size(where, size_bytes(document.data), limits.max_document_bytes)
    _check_total(documents, limits.max_total_document_bytes)


def _check_type(where: str, media_type: str, allowed: frozenset[str]) -> None:
    if media_type not in allowed:
        takes = ", ".join(sorted(allowed)) or "nothing of this kind"
        raise MediaRefused(f"{where}: {media_type} is not taken by this model's provider, which takes {takes}")


def _check_size(where: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise MediaRefused(f"{where}: {size} bytes, more than the {limit} that this model's provider takes")


def _check_total(parts: list[tuple[str, Image]] | list[tuple[str, Document]], limit: int | None) -> None:
    total = 0
    for where, part in parts:
        total += size_bytes(part.data)
        if limit is not None and total > limit:
            raise MediaRefused(f"{where}: {total} bytes in all, more than the {limit} that this model's provider takes")
