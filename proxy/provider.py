"""What a provider is: a record of pure functions and facts. One file in providers/ makes one."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy import providers
from proxy.chat import ChatRequest
from proxy.events import ChatEvent, Failed, Usage
from proxy.media_file import BodyTail, MediaFile
from proxy.transcript import TranscriptFormat, TranscriptRequest


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to a provider, complete. Headers carry a key and the body a prompt: neither shows in a repr.

    With a `tail` the body is what stands in both, one after the other. What is not `is_repeatable` goes over a new
    connection: over a kept one it may have to be sent twice, and whoever sends it wants to ask first how far it came.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"
    tail: BodyTail | None = field(default=None, repr=False)
    is_repeatable: bool = True

    @property
    def body_bytes(self) -> int:
        """The length of all of it."""
        return len(self.body) + (self.tail.size_bytes if self.tail else 0)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one call goes. Comes from settings and the catalogue, never from a request.

    `capabilities` are the catalogue's for the model: `reasoning` (thinks before it answers), `api` (which of its
    provider's endpoints it needs), and what else a provider's file says that it reads.
    """

    base_url: str
    api_key: str = field(repr=False)
    provider_model: str
    capabilities: Mapping[str, object] = field(default_factory=dict)


MEBIBYTE = 1024 * 1024


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
class BackgroundState:
    """What a provider says of an answer that it makes in the background."""

    id: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class Background:
    """How an answer is fetched that takes many minutes: it is asked for once, then looked up until it is over.

    `read_state` takes the body of a creation or of a lookup, None if it is none; `read_usage` that of any of them. The
    others take the id.
    """

    read_state: Callable[[bytes], BackgroundState | None]
    read_usage: Callable[[bytes], Usage | None]
    build_lookup: Callable[[str], UpstreamRequest]
    build_cancel: Callable[[str], UpstreamRequest]
    build_delete: Callable[[str], UpstreamRequest]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a provider keeps for us. `uri` is what a request calls it."""

    name: str
    uri: str
    state: Literal["processing", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """How files get to a provider and away again, with one key. We give them their names: whoever has noted one before
    the upload can take the file away, whatever happens in between.

    `build_start` takes a name, a media type and a size; the headers of its answer have the address for all that follows
    until the file is there, None if they have none that we would send a file to. `build_upload` takes that, what is
    left of the file, and from where on; `read_received` the headers of the answer to a query: how much has come, None
    if all. `read_file` takes the body of an upload's answer or of a lookup's, None if it is none.
    """

    make_name: Callable[[], str]
    build_start: Callable[[str, str, int], UpstreamRequest]
    read_address: Callable[[Mapping[str, str]], str | None]
    build_upload: Callable[[str, MediaFile, int], UpstreamRequest]
    build_query: Callable[[str], UpstreamRequest]
    build_cancel: Callable[[str], UpstreamRequest]
    read_received: Callable[[Mapping[str, str]], int | None]
    read_file: Callable[[bytes], RemoteFile | None]
    build_lookup: Callable[[str], UpstreamRequest]
    build_delete: Callable[[str], UpstreamRequest]


@dataclass(frozen=True, slots=True)
class UploadPace:
    """How long an upload is tried and waited for. Pauses are seconds before another try, one for each.

    `control_seconds` is how long it may take to answer whatever is no upload; `ready_seconds` how long the provider may
    work on a file; `removal_seconds` how long the end of an answer may wait until the file is gone, and
    `last_removal_seconds` how long it is tried afterwards.
    """

    control_seconds: float = 30.0
    resume_pauses: tuple[float, ...] = (0.5, 2.0, 5.0)
    ready_seconds: float = 300.0
    first_pause: float = 0.5
    last_pause: float = 5.0
    removal_seconds: float = 2.0
    removal_pauses: tuple[float, ...] = (0.5, 2.0)
    last_removal_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has to be at the provider before it is asked. `complete` puts what the provider calls it into the
    request.
    """

    file: MediaFile = field(repr=False)
    media_type: str
    remote: RemoteFiles
    complete: Callable[[UpstreamRequest, str], UpstreamRequest]
    pace: UploadPace = UploadPace()


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a provider is asked afterwards what an answer has used, for those that never said.

    `read_id` takes the headers of an answer, names in lower case, and any part of its body: the provider's id for the
    answer, fit for a URL, or None if it does not stand there. `read_usage` takes the body of a lookup and the id that
    was asked for; None if it does not tell, or not yet.
    """

    read_id: Callable[[Mapping[str, str], bytes], str | None]
    build_request: Callable[[Target, str], UpstreamRequest]
    read_usage: Callable[[bytes, str], Usage | None]


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """A request translated completely, and how its answer is read. Made anew for every call; without I/O.

    `open_reader` takes the answer's media type: an event stream, or a whole JSON answer. `read_refusal` says what an
    answer with an error status means: status, headers in lower case, body.
    """

    request: UpstreamRequest
    open_reader: Callable[[str], Reader]
    read_refusal: Callable[[int, Mapping[str, str], bytes], Failed]
    background: Background | None = None
    """Where it is there, the answer to `request` is not the answer yet."""
    answers_late: bool = False
    """Whether nothing comes before all is done, however long that takes: then only the whole call has a deadline."""
    upload: Upload | None = None
    """Where it is there, `request` cannot be sent before it is completed."""


@dataclass(frozen=True, slots=True)
class Transcriber:
    """How a provider writes down what is said. `build_call` raises RequestNotSupported, naming the field.

    Tokens of a second are what a hold is made of, and what is charged where the provider does not tell; of the output
    the most that speech comes to, by format. Those `besides` are there without any speech: of an instruction, and of
    what a model thinks. `max_bytes` is of the file.
    """

    build_call: Callable[[TranscriptRequest, Target], ProviderCall]
    max_bytes: int
    tokens_per_second: int
    output_tokens_per_second: Callable[[TranscriptFormat], int]
    output_tokens_besides: int = 100
    prompt_tokens_besides: int = 0


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's facts and its dialect, without I/O."""

    code: str
    name: str
    default_base_url: str
    media: MediaLimits
    build_call: Callable[[ChatRequest, Target], ProviderCall]
    """Raises RequestNotSupported, naming the field, for what this provider cannot do."""
    needs_key: bool = True
    build_background: Callable[[Target], Background] | None = None
    """Where the provider makes answers in the background: how one is found again whose call is lost."""
    build_remote_files: Callable[[Target], RemoteFiles] | None = None
    """Where the provider keeps files for us: how one is taken away whose call is lost."""
    lookup: Lookup | None = None
    """Where the provider can be asked later what an answer has cost."""
    transcriber: Transcriber | None = None


@dataclass(frozen=True, slots=True)
class SettingNames:
    """The environment's names for a provider's base URL and keys: `OPENAI_BASE_URL`, `OPENAI_API_KEY`, and
    `OPENAI_API_KEYS` for several with commas between them.
    """

    base_url: str
    api_key: str
    api_keys: str


def setting_names(code: str) -> SettingNames:
    prefix = code.upper().replace("-", "_")
    return SettingNames(f"{prefix}_BASE_URL", f"{prefix}_API_KEY", f"{prefix}_API_KEYS")


def load_providers() -> Mapping[str, Provider]:
    """Every provider, by code: each module in providers/ ends in PROVIDER."""
    names = [f"{providers.__name__}.{found.name}" for found in pkgutil.iter_modules(providers.__path__)]
    modules = [importlib.import_module(name) for name in names]
    return {module.PROVIDER.code: module.PROVIDER for module in modules}
