"""What a Gemini API with a Files API knows, without its sockets: see fake_google_files.py."""

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs, urlsplit

import trio

Step = Literal["start", "upload", "query", "cancel", "get", "delete", "generate"]

KEYS = ("AIza-one", "AIza-two")
USAGE = {
    "promptTokenCount": 420,
    "candidatesTokenCount": 6,
    "totalTokenCount": 426,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 20},
        {"modality": "VIDEO", "tokenCount": 336},
        {"modality": "AUDIO", "tokenCount": 64},
    ],
}
_NAME = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class Ways:
    """How it behaves. Lists are used up, one entry for each request that they are about.

    `refusals` are statuses by step; `hangs` are steps that get no answer, `pauses` seconds before one. An upload breaks
    off after `breaks_after` bytes of a request, which it keeps, and is read slowly after `slow_after` of them.
    """

    polls_until_ready: int | None = 1
    """None: it never is."""
    finds_it_unreadable: bool = False
    refusals: dict[Step, list[int]] = field(default_factory=dict)
    hangs: set[Step] = field(default_factory=set)
    loses: list[Step] = field(default_factory=list)
    """Steps that are done and whose answer does not get through."""
    pauses: dict[Step, float] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    slow_after: int | None = None
    uploads_elsewhere: str | None = None
    """An address that it gives instead of its own."""
    answer: tuple[str, ...] = ("A green", " field", ".")
    stops_after: int | None = None
    """So many pieces of an answer come, and then no more."""
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)


@dataclass(slots=True)
class StoredFile:
    key: str
    media_type: str
    size_bytes: int
    sha256: str
    polls: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `name` is of the file that it is about; `status` what it got, 0 if nothing."""

    step: Step
    key: str
    name: str = ""
    status: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """A request for an answer: its body without the data of an inlined file, which is told by length and hash."""

    model: str
    key: str
    body: Mapping[str, Any] = field(repr=False)
    file: str | None
    inline_bytes: int = 0
    inline_sha256: str = ""


@dataclass(slots=True)
class Session:
    """An upload under way."""

    key: str
    name: str
    media_type: str
    size_bytes: int
    received: int = 0
    digest: Digest = field(default_factory=hashlib.sha256)
    state: Literal["active", "final", "cancelled"] = "active"


@dataclass(frozen=True, slots=True)
class Head:
    """Of a request."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def key(self) -> str:
        return self.headers.get("x-goog-api-key", "")


class Refused(Exception):
    """The request gets this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeGoogleFiles:
    """What came, and what is there. Use open_google_files()."""

    def __init__(self, origin: str, ways: Ways) -> None:
        self.origin = origin
        self.base_url = f"{origin}/v1beta"
        self.keys = KEYS
        self.ways = ways
        self.files: dict[str, StoredFile] = {}
        self.removed: dict[str, StoredFile] = {}
        self.sessions: dict[str, Session] = {}
        self.asked: list[Asked] = []
        self.generated: list[Generated] = []
        self.open_connections = 0
        self._begun: dict[Step, trio.Event] = defaultdict(trio.Event)

    @property
    def steps(self) -> list[Step]:
        return [asked.step for asked in self.asked]

    @property
    def open_sessions(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.state == "active"]

    async def wait_begun(self, step: Step) -> None:
        """Until a request of this kind has come for the first time: its head, and of an upload its first bytes."""
        with trio.fail_after(10):
            await self._begun[step].wait()

    def note_begun(self, step: Step) -> None:
        self._begun[step].set()

    def start(self, head: Head, body: bytes) -> Session:
        file = json.loads(body)["file"]
        name = file.get("name") or f"files/made-{len(self.sessions)}"
        if not _NAME.fullmatch(name) or name in self.files or head.headers.get("x-goog-upload-protocol") != "resumable":
            raise Refused(400, "a name that cannot be, or is taken, or another protocol")
        size = int(head.headers["x-goog-upload-header-content-length"])
        session = Session(head.key, name, head.headers["x-goog-upload-header-content-type"], size)
        self.sessions[str(len(self.sessions) + 1)] = session
        return session

    def find_session(self, head: Head) -> Session:
        id_ = parse_qs(urlsplit(head.path).query).get("upload_id", [""])[0]
        session = self.sessions.get(id_)
        if session is None or session.key != head.key:
            raise Refused(404, "there is no such upload")
        return session

    def check_upload(self, head: Head, session: Session) -> None:
        offset, length = int(head.headers["x-goog-upload-offset"]), int(head.headers["content-length"])
        if session.state != "active" or offset != session.received or offset + length != session.size_bytes:
            raise Refused(400, "not what is missing of this upload")

    def finish(self, session: Session) -> dict[str, Any]:
        session.state = "final"
        digest = session.digest.hexdigest()
        self.files[session.name] = StoredFile(session.key, session.media_type, session.received, digest)
        return {"file": self.describe(session.name, session.key)}

    def describe(self, name: str, key: str) -> dict[str, Any]:
        file = self.find(name, key)
        return {
            "name": name,
            "mimeType": file.media_type,
            "sizeBytes": str(file.size_bytes),
            "uri": f"{self.base_url}/{name}",
            "state": self.state_of(file),
        }

    def find(self, name: str, key: str) -> StoredFile:
        file = self.files.get(name)
        if file is None or file.key != key:
            raise Refused(403, f"You do not have permission to access the File {name} or it may not exist.")
        return file

    def state_of(self, file: StoredFile) -> str:
        wanted = self.ways.polls_until_ready
        if wanted is None or file.polls < wanted:
            return "PROCESSING"
        return "FAILED" if self.ways.finds_it_unreadable else "ACTIVE"

    def generate(self, head: Head, body: bytes) -> Generated:
        decoded = json.loads(body)
        parts = [part for turn in decoded["contents"] for part in turn["parts"]]
        model = head.path.partition("/models/")[2].partition(":")[0]
        name, data = None, b""
        for part in parts:
            if "inlineData" in part:
                data = base64.b64decode(part["inlineData"].pop("data"), validate=True)
            elif "fileData" in part:
                name = part["fileData"]["fileUri"].removeprefix(f"{self.base_url}/")
                file = self.find(name, head.key)
                if self.state_of(file) != "ACTIVE" or part["fileData"]["mimeType"] != file.media_type:
                    raise Refused(400, "the file is not in an ACTIVE state, or of another type")
        digest = hashlib.sha256(data).hexdigest() if data else ""
        generated = Generated(model, head.key, decoded, name, len(data), digest)
        self.generated.append(generated)
        return generated
