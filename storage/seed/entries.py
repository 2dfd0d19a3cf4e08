"""What the seed's files say, as records; each knows the shape that it must have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Key = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,99}\Z")]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/]\S*\Z")]
Version = Annotated[str, Meta(min_length=1, max_length=50)]


class ProviderEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`api_base_url` is for people to read; where calls go the settings say."""

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,49}\Z")]
    name: Name
    description: str | None = None
    website_url: Url | None = None
    api_base_url: Url | None = None
    capabilities: dict[str, Any] = {}
    status: Literal["active", "beta"] = "active"


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`provider` is who answers for it first. `price_ends_on` is the last day of its price, if it is known to change;
    `retires_on` when its provider switches it off. `price_source` and `priced_on` are for those who read the file.
    """

    id: Annotated[str, Meta(pattern=r"^[^/\s]+/\S+\Z", max_length=255)]
    name: Name
    provider: str
    context_window: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    capabilities: dict[str, Any]
    pricing: dict[str, Any]
    mappings: dict[str, Name]
    model_type: Literal["text", "chat", "transcription"] = "text"
    description: str | None = None
    created_on: date | None = None
    price_source: Url | None = None
    priced_on: date | None = None
    price_ends_on: date | None = None
    retires_on: date | None = None


class CopyButton(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Name
    label: Name
    content: Annotated[str, Meta(min_length=1)]


class TaskEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client uses for one of its tasks unless its user chooses otherwise."""

    key: Key
    model: str
    max_tokens: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    temperature: Annotated[float, Meta(ge=0, le=2)]
    allowed_models: Annotated[list[str], Meta(min_length=1)]
    copy_buttons: list[CopyButton] = []


class CodexCli(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models as that command line tool names them, not the catalogue."""

    preferred_model: str | None = None
    mini_model: str | None = None
    fallback_model: str | None = None
    reasoning_effort: str | None = None
    mini_reasoning_effort: str | None = None
    model_overrides: dict[str, str] = {}


class PromptEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task_type: Key
    version: Version
    system_prompt: Annotated[str, Meta(min_length=1, max_length=200_000)]
    description: str | None = None


class RegionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    label: Name
    url: Url
    is_default: bool = False


class DocumentEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url` is a path on the website."""

    doc_type: Literal["terms", "privacy"]
    region: Literal["eu", "us"]
    version: Version
    effective_at: date
    url: Annotated[str, Meta(pattern="^/")]
    content_hash: str | None = None
    material_change: bool = False


@dataclass(frozen=True, slots=True)
class Seed:
    """`codex_cli` and `max_concurrent_jobs` go with the tasks: a file without tasks says nothing of them either."""

    providers: Sequence[ProviderEntry] = ()
    models: Sequence[ModelEntry] = ()
    tasks: Sequence[TaskEntry] = ()
    codex_cli: CodexCli | None = None
    max_concurrent_jobs: int | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    prompts: Sequence[PromptEntry] = ()
    regions: Sequence[RegionEntry] = ()
    documents: Sequence[DocumentEntry] = ()
