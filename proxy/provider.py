"""What a provider is: a record of pure functions and facts. One file in providers/ makes one."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from proxy import providers
from proxy.chat import ChatEvent, ChatRequest, Failed


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to a provider, complete. Headers carry a key and the body a prompt: neither shows in a repr."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one call goes. Comes from settings and the catalogue, never from a request."""

    base_url: str
    api_key: str = field(repr=False)
    provider_model: str


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What a provider takes inline; None means without a limit of its own. Sizes are decoded bytes."""

    image_types: frozenset[str]
    document_types: frozenset[str] = frozenset()
    max_images: int | None = None
    max_image_bytes: int | None = None
    max_total_image_bytes: int | None = None
    max_document_bytes: int | None = None
    max_total_document_bytes: int | None = None


class Reader(Protocol):
    """Reads one answer as it comes. Feed it bytes split anywhere; it never raises for what a provider sends."""

    @property
    def is_done(self) -> bool:
        """Whether the answer has said that it is over, though its body may not have ended."""
        ...

    def feed(self, data: bytes) -> list[ChatEvent]:
        """Everything that is complete by now. After a Failed nothing more comes."""
        ...

    def finish(self) -> list[ChatEvent]:
        """The body has ended: what is left, with a Failed if the answer was cut short."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's facts and its dialect, without I/O."""

    code: str
    name: str
    default_base_url: str
    media: MediaLimits
    build_request: Callable[[ChatRequest, Target], UpstreamRequest]
    """The request is translated completely; raises RequestNotSupported, naming the field, for what it cannot carry."""
    open_reader: Callable[[str], Reader]
    """Takes the answer's media type: an event stream, or a whole JSON answer."""
    read_refusal: Callable[[int, Mapping[str, str], bytes], Failed]
    """What an answer with an error status means: status, headers in lower case, body."""
    needs_key: bool = True


def setting_names(code: str) -> tuple[str, str]:
    """The environment's names for a provider's base URL and key: `OPENAI_BASE_URL`, `OPENAI_API_KEY`."""
    prefix = code.upper().replace("-", "_")
    return f"{prefix}_BASE_URL", f"{prefix}_API_KEY"


def load_providers() -> Mapping[str, Provider]:
    """Every provider, by code: each module in providers/ ends in PROVIDER."""
    names = [f"{providers.__name__}.{found.name}" for found in pkgutil.iter_modules(providers.__path__)]
    modules = [importlib.import_module(name) for name in names]
    return {module.PROVIDER.code: module.PROVIDER for module in modules}
