"""What tests of calls with files share: a gateway in front of a Gemini API with a Files API, files, and little time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256

import trio

from proxy.chat import Attached, ChatRequest, Message, Text
from proxy.events import ChatEvent
from proxy.gateway import Gateway
from proxy.ledger import Settlement
from proxy.pricing import Price, Rates
from proxy.provider import Provider, ProviderCall, Target, UploadPace
from proxy.providers import google as google_provider
from proxy.pump import Patience, Reach
from proxy.routing import Model, Upstream
from proxy.transport import NetworkTransport, open_transport
from tests.fake_breakers import FakeBreakers
from tests.fake_google_files import KEYS, FakeGoogleFiles, Ways, open_google_files
from tests.fakes import FakeJournal, FakeLedger
from tests.proxy.calls import BALANCE, NO_RETRIES, USER, read_all
from tests.proxy.upstreams import PATIENT

HASTY = UploadPace(
    resume_pauses=(0.01, 0.01, 0.01),
    ready_seconds=0.3,
    first_pause=0.01,
    last_pause=0.02,
    removal_seconds=0.3,
    removal_pauses=(0.01, 0.01),
    last_removal_seconds=0.6,
)
MODEL = Model(
    id="google/gemini-2.5-pro",
    name="Gemini 2.5 Pro",
    provider_code="google",
    context_window=1_048_576,
    max_output_tokens=65_536,
    price=Price(Rates(Decimal(1), Decimal(10), Decimal("0.1"), Decimal(1), audio_input=Decimal(2))),
    sees_images=True,
    provider_models={"google": "gemini-2.5-pro"},
    capabilities={"video": True, "audio": True},
)
PROMPT = "What is to be seen?"


@dataclass(slots=True)
class MemoryFile:
    """Fits MediaFile, and remembers how much of it was asked for at a time."""

    content: bytes = field(repr=False)
    most_asked_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def sha256(self) -> str:
        return sha256(self.content).hexdigest()

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.most_asked_bytes = max(self.most_asked_bytes, most_bytes)
        return self.content[offset : offset + most_bytes]


def make_file(size_bytes: int) -> MemoryFile:
    return MemoryFile(bytes(n * 7 % 251 for n in range(4096)) * (size_bytes // 4096) + b"x" * (size_bytes % 4096))


def ask_about(file: MemoryFile, seconds: float = 4, media_type: str = "video/mp4") -> ChatRequest:
    parts = (Attached(media_type, file, seconds, 2.0), Text(PROMPT))
    return ChatRequest(MODEL.id, (Message("user", parts),), max_output_tokens=100)


@dataclass(frozen=True, slots=True)
class FileBench:
    gateway: Gateway
    google: FakeGoogleFiles
    transport: NetworkTransport
    ledger: FakeLedger
    journal: FakeJournal

    @property
    def settlement(self) -> Settlement:
        [settlement] = self.ledger.settlements.values()
        return settlement

    async def ask(self, request: ChatRequest) -> list[ChatEvent]:
        async with self.gateway.open_chat(USER, request) as chat:
            return await read_all(chat)

    def assert_charged(self, usd: str) -> None:
        """The one call cost that much, was settled once, and has left nothing behind here."""
        assert self.settlement.charge_usd == Decimal(usd)
        assert self.ledger.balances[USER] == BALANCE - Decimal(usd)
        assert (self.ledger.running, self.journal.running) == ({}, {})
        assert len(self.ledger.settle_attempts) == 1

    def assert_nothing_there(self) -> None:
        """Google keeps nothing of it, and nothing of it is on its way."""
        assert self.google.files == {}
        assert self.google.open_sessions == []


@asynccontextmanager
async def open_file_bench(
    ways: Ways | None = None,
    *,
    keys: tuple[str, ...] = KEYS[:1],
    pace: UploadPace = HASTY,
    patience: Patience = NO_RETRIES,
    model: Model = MODEL,
) -> AsyncIterator[FileBench]:
    ledger, journal = FakeLedger({USER: BALANCE}), FakeJournal()
    async with open_google_files(ways) as google, open_transport(PATIENT) as transport:
        upstreams = {"google": Upstream(_hurried(pace), google.base_url, keys)}
        reach = Reach(transport, FakeBreakers(), patience)
        gateway = Gateway(lambda: {model.id: model}, upstreams, reach, ledger, journal)
        yield FileBench(gateway, google, transport, ledger, journal)


def _hurried(pace: UploadPace) -> Provider:
    def build_call(request: ChatRequest, target: Target) -> ProviderCall:
        call = google_provider.build_call(request, target)
        return replace(call, upload=replace(call.upload, pace=pace)) if call.upload else call

    return replace(google_provider.PROVIDER, build_call=build_call)
