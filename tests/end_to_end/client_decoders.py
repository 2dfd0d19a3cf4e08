"""What the shipped apps decode, member by member, as strictly as they do: the desktop (Rust and TypeScript) and the
phone (Swift). A member that they cannot do without has no default; a number is no string, and an integer no float.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Decoded = TypeVar("Decoded")

I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
PositiveU32 = Annotated[int, Meta(gt=0, le=2**32 - 1)]
Name = Annotated[str, Meta(min_length=1)]
Price = Annotated[str, Meta(pattern=r"\A[0-9]+(\.[0-9]+)?\Z")]
"""A plain decimal in a string: the desktop parses it, and knows no powers of ten."""
Time = Annotated[str, Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")]
SitePath = Annotated[str, Meta(pattern=r"\A/[^/]")]
"""The desktop puts the website's origin before it."""


def decode(body: bytes, type_: type[Decoded]) -> Decoded:
    """Raises msgspec.ValidationError, naming the member."""
    return msgspec.json.decode(body, type=type_)


def read_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def is_url(text: str) -> bool:
    """One that the phone can open: Swift's URL takes no space, and a host has to be there."""
    parts = urlsplit(text)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not set(text) & set(' "<>\\^`{|}')


class DesktopError(Struct):
    """Else it shows the raw text."""

    message: str
    code: int | None = None
    error_type: str | None = None


class PhoneError(Struct, rename="camel"):
    """Else every error is an unknown one."""

    code: int
    message: str
    error_type: str
    error_details: Any = None


class Polled(Struct, rename="camel"):
    status: Literal["ready"]
    authorization_code: Annotated[str, Meta(min_length=10)]
    tauri_csrf_token: Annotated[str, Meta(min_length=16)]


class PhoneUser(Struct):
    id: UUID
    email: Name
    role: Name
    name: str | None = None


class DesktopUser(Struct):
    id: UUID
    email: Name
    name: str | None
    role: Name


class DesktopSession(Struct, rename="camel"):
    user: DesktopUser
    token: Name
    token_type: Literal["Bearer"]
    expires_in: I64


class PhoneSession(Struct):
    """A Date of Swift's default decoder is a number: `expires_at` in a string would end the sign-in."""

    user: PhoneUser
    token: Name
    refresh_token: str | None = None
    expires_at: float | None = None


class CopyButton(Struct):
    id: Name
    label: str
    content: str


class RuntimeTask(Struct, rename="camel"):
    model: Name
    max_tokens: PositiveU32
    temperature: Annotated[float, Meta(ge=0, le=2)]
    copy_buttons: Sequence[CopyButton] | None
    allowed_models: Sequence[str] | None


class ProviderName(Struct):
    code: Name
    name: Name


class RuntimeModel(Struct, rename="camel"):
    id: Name
    name: Name
    provider: Name
    provider_name: Name
    description: str | None
    context_window: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    price_input_per_million: Price
    price_output_per_million: Price
    price_cache_read: Price | None
    price_cache_write: Price | None


class RuntimeProvider(Struct):
    provider: ProviderName
    models: Annotated[Sequence[RuntimeModel], Meta(min_length=1)]


class CodexCli(Struct, rename="camel"):
    preferred_model: str | None
    mini_model: str | None
    fallback_model: str | None
    model_overrides: dict[str, str] | None
    reasoning_effort: str | None
    mini_reasoning_effort: str | None


class RuntimeConfiguration(Struct, rename="camel"):
    tasks: dict[str, RuntimeTask]
    providers: Annotated[Sequence[RuntimeProvider], Meta(min_length=1)]
    max_concurrent_jobs: PositiveU32 | None
    codex_cli: CodexCli | None


class SystemPrompt(Struct, rename="camel"):
    """Times are whole Unix seconds."""

    id: Name
    task_type: Name
    system_prompt: Name
    description: str | None
    version: Name
    created_at: I64
    updated_at: I64


class LegalDocument(Struct, rename="camel"):
    id: UUID
    doc_type: Literal["terms", "privacy"]
    region: Literal["eu", "us"]
    version: Name
    effective_at: date
    url: SitePath
    content_hash: str | None
    material_change: bool
    created_at: Time
    updated_at: Time


class ConsentItem(Struct, rename="camel"):
    doc_type: Literal["terms", "privacy"]
    region: Literal["eu", "us"]
    current_version: Name
    accepted_version: str | None
    accepted_at: Time | None
    requires_reconsent: bool
    effective_at: date
    url: SitePath


class ConsentStatus(Struct, rename="camel"):
    user_id: UUID
    region: Literal["eu", "us"]
    items: Sequence[ConsentItem]
    all_consented: bool


class ConsentCheck(Struct, rename="camel"):
    requires_reconsent: bool
    missing: Sequence[Literal["terms", "privacy"]]
    details: Sequence[ConsentItem]


class CostBreakdown(Struct, rename="camel"):
    input_cost: Price
    output_cost: Price
    cache_write_cost: Price | None
    cache_read_cost: Price | None


class CostEstimate(Struct, rename="camel"):
    model_id: Name
    input_tokens: I64
    output_tokens: I64
    cache_write_tokens: I64
    cache_read_tokens: I64
    estimated_cost: Price
    cost_breakdown: CostBreakdown
    pricing_model: Name


class Region(Struct):
    """The desktop needs `label` and `url`; the others are told to everybody."""

    id: I64
    label: Name
    url: Name
    is_default: bool
    created_at: Time | None
    updated_at: Time | None


class OnboardingVideos(Struct):
    videos: dict[str, str]


class DesktopRegistered(Struct, rename="camel"):
    device_id: UUID
    status: Literal["online", "offline"]
    created_at: Name
    updated_at: Name


class PhoneRegistered(Struct, rename="camel"):
    device_id: UUID
    device_name: str
    device_type: Name
    platform: Name
    app_version: Name
    is_connected: bool
    status: str | None = None


class PhoneCapabilities(Struct, rename="camel"):
    """What the phone looks for in what a desktop can do."""

    supports_voice: bool = False
    supports_merge: bool = False
    supports_file_search: bool = False
    supports_research: bool = False
    supports_tasks: bool = False
    supports_plans: bool = False
    max_concurrent_jobs: I64 | None = None
    priority_level: I64 | None = None
    active_project_directory: str | None = None


class PhoneDevice(Struct, rename="camel"):
    """A desktop in the phone's list. One that cannot be decoded takes the whole list along. Dates are PhoneDates'."""

    device_id: UUID
    device_name: str
    device_type: Name
    platform: Name
    app_version: Name
    status: Name
    is_connected: bool
    created_at: str
    platform_version: str | None = None
    last_heartbeat: str | None = None
    updated_at: str | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    disk_space_gb: I64 | None = None
    active_jobs: I64 | None = None
    capabilities: PhoneCapabilities | None = None


class PhoneDates:
    """The phone's dates of devices, as long as its process lives. One formatter serves them all, and its first failure
    changes its format for ever: from then on every date with a fraction is lost, and with it the list of devices.
    """

    _SECONDS = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"

    def __init__(self) -> None:
        self._format = rf"{self._SECONDS}\.\d{{6}}Z"

    def decode(self, text: str) -> datetime:
        """Raises ValueError."""
        if not re.fullmatch(self._format, text):
            self._format = rf"{self._SECONDS}Z"
        is_known = re.fullmatch(self._format, text) or re.fullmatch(rf"{self._SECONDS}(Z|[+-]\d\d:\d\d)", text)
        if not is_known:
            raise ValueError(f"the phone knows no such date: {text}")
        return datetime.fromisoformat(text).astimezone(UTC)
