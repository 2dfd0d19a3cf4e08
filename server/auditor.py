"""What goes into the audit log, and who puts it there.

* In the transaction of their effect, with `AuditLog.append`: sign-ins, refreshes, sign-outs, accounts provisioned or
  deleted (storage/sign_ins.py), API keys made and revoked, writes to the configuration, what administrators do.
* With `Auditor.note_refusal`, by whoever refuses: sign-ins, and credentials that name somebody. Garbage that names
  nobody is told nowhere.
* With `Auditor.record`: what has no transaction of ours.
"""

import logging
from dataclasses import dataclass, field, replace
from uuid import UUID

import trio

from server.circumstances import circumstances
from storage.audit import AuditEntry, AuditLog, Status
from storage.errors import StorageError

WINDOW_SECONDS = 60.0
MAX_REFUSALS = 240
"""Different refusals that are told one by one in a minute: four rows a second, however many attack this process."""
RECORD_SECONDS = 3.0

Key = tuple[object, ...]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Window:
    """A refusal that was told at `since`; `repeated` is how often it came again and was not."""

    since: float
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Untold:
    """What was counted and told in no row yet: of the same refusal, and of others for which there was no room."""

    repeated: int
    others: int


@dataclass(slots=True)
class RefusalTally:
    """Decides which refusals are told. Times in seconds, of any clock that never goes back."""

    _windows: dict[Key, _Window] = field(default_factory=dict)
    """Those that were told longest ago come first."""
    _others: int = 0

    def count(self, key: Key, now: float) -> Untold | None:
        """None if this one is only counted, else what its row has to tell beside."""
        window = self._windows.get(key)
        if window is not None and now < window.since + WINDOW_SECONDS:
            window.repeated += 1
            return None
        if window is None and not self._make_room(now):
            self._others += 1
            return None
        return self._open(key, now)

    def put_back(self, key: Key, untold: Untold) -> None:
        """The row could not be written: it is counted with what it would have told."""
        self._others += untold.others
        if key in self._windows:
            self._windows[key].repeated += untold.repeated + 1
        else:
            self._others += untold.repeated + 1

    def _open(self, key: Key, now: float) -> Untold:
        last = self._windows.pop(key, None)
        self._windows[key] = _Window(now)
        untold = Untold(last.repeated if last else 0, self._others)
        self._others = 0
        return untold

    def _make_room(self, now: float) -> bool:
        if len(self._windows) < MAX_REFUSALS:
            return True
        oldest = next(iter(self._windows))
        if now < self._windows[oldest].since + WINDOW_SECONDS:
            return False
        self._others += self._windows.pop(oldest).repeated
        return True


@dataclass(slots=True)
class Auditor:
    log: AuditLog
    _refusals: RefusalTally = field(default_factory=RefusalTally, repr=False)
    _complained_at: float = field(default=float("-inf"), repr=False)

    def build_entry(
        self,
        action: str,
        status: Status,
        *,
        actor: str,
        subject_id: UUID | None = None,
        entity: tuple[str, str] = ("", ""),
        **details: object,
    ) -> AuditEntry:
        """With the circumstances of the request at hand. `entity` is type and id."""
        at_hand = circumstances()
        return AuditEntry(
            action,
            status,
            actor,
            subject_id,
            *entity,
            address=at_hand.address,
            user_agent=at_hand.user_agent,
            request_id=at_hand.request_id,
            details=details,
        )

    async def record(self, entry: AuditEntry) -> None:
        """In a transaction of its own. Raises StorageError; then it is not, or not surely, written."""
        await self.log.record(entry)

    async def note_refusal(self, entry: AuditEntry) -> None:
        """Somebody was refused. Raises nothing, and takes a few seconds at most, also if the client leaves meanwhile.

        Refusals of one action, actor, subject, entity and address are one row a minute, so that nobody can fill the
        log. The next row of the same says in its details how often it was `repeated`, any next row how many `others`
        had no room; what is counted when the process ends is lost. A log that cannot be written is told in the
        process's own log, once a minute, and the refusal stands.
        """
        key = (entry.action, entry.actor, entry.subject_id, entry.entity_type, entry.entity_id, entry.address)
        untold = self._refusals.count(key, trio.current_time())
        if untold is not None and not await self._try_to_record(add_untold(entry, untold)):
            self._refusals.put_back(key, untold)

    async def _try_to_record(self, entry: AuditEntry) -> bool:
        with trio.move_on_after(RECORD_SECONDS, shield=True):
            try:
                await self.log.record(entry)
            except StorageError as error:
                self._complain(str(error))
                return False
            return True
        self._complain("PostgreSQL did not answer in time")
        return False

    def _complain(self, reason: str) -> None:
        now = trio.current_time()
        if now >= self._complained_at + WINDOW_SECONDS:
            self._complained_at = now
            logger.error("a refusal could not be written into the audit log", extra={"reason": reason})


def add_untold(entry: AuditEntry, untold: Untold) -> AuditEntry:
    counts = {"repeated": untold.repeated, "others": untold.others}
    told = {name: count for name, count in counts.items() if count}
    return replace(entry, details={**entry.details, **told})
