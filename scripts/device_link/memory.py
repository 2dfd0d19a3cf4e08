"""What a device remembers between connections, perhaps in a file: credentials, and the last event it has seen."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


class _Kept(msgspec.Struct, rename="camel", omit_defaults=True):
    session_id: str | None = None
    resume_token: str | None = None
    last_event_id: int | None = None


@dataclass(slots=True)
class Memory:
    """Without a file it lasts as long as the object."""

    path: Path | None = None
    session_id: str | None = None
    resume_token: str | None = field(default=None, repr=False)
    last_event_id: int | None = None

    def note_registered(self, session_id: str, resume_token: str) -> None:
        self.session_id, self.resume_token = session_id, resume_token
        self.save()

    def forget_credentials(self) -> None:
        """The last event stays."""
        self.session_id = self.resume_token = None
        self.save()

    def note_event(self, event_id: int) -> bool:
        """Whether it is newer than all before. The largest one is kept."""
        if self.last_event_id is not None and event_id <= self.last_event_id:
            return False
        self.last_event_id = event_id
        return True

    def save(self) -> None:
        """Replaces the file at once; only we may read it."""
        if self.path is None:
            return
        draft = self.path.with_name(f"{self.path.name}.new")
        draft.unlink(missing_ok=True)
        kept = _Kept(self.session_id, self.resume_token, self.last_event_id)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(kept))
        draft.replace(self.path)


def load_memory(path: Path) -> Memory:
    """An empty one if there is no file, or none that can be read: then the device registers anew, as the apps do."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        kept = _Kept()
    return Memory(path, kept.session_id, kept.resume_token, kept.last_event_id)
