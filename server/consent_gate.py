"""Before AI works for somebody: whether its user has agreed to the documents that this server insists on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import trio

from server.consent import find_blocking
from server.errors import ConsentRequired
from storage.consents import read_consents
from storage.legal_documents import LegalDocument, LegalRegion, find_current
from storage.postgres import Database

REMEMBER_SECONDS = 60.0
"""How long a withdrawal in another process may go unseen."""
MAX_REMEMBERED = 20_000
"""Users. A few megabytes; of more the one who was looked up longest ago is looked up again."""

FindDocuments = Callable[[], Sequence[LegalDocument]]
Versions = tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class _Agreed:
    """`since` is when PostgreSQL was asked: it answers with what was so then."""

    versions: Versions
    since: float


@dataclass(slots=True)
class ConsentGate:
    """Users who have agreed are remembered, so that their calls ask PostgreSQL once a minute; others are looked up each
    time, so that it counts at once when they agree. Where no document is in force, nothing is missing.
    """

    database: Database
    region: LegalRegion
    find_documents: FindDocuments
    max_remembered: int = MAX_REMEMBERED
    _agreed: dict[UUID, _Agreed] = field(default_factory=dict, init=False, repr=False)
    """Those who were looked up longest ago come first."""
    _forgotten: int = field(default=0, init=False, repr=False)

    async def check(self, user_id: UUID) -> None:
        """Raises ConsentRequired, and DatabaseUnavailable: who cannot be looked up is let through no more than a call
        that cannot be held.
        """
        documents, today = self.find_documents(), datetime.now(UTC).date()
        versions = tuple(document.id for document in find_current(documents, self.region, today))
        if not versions or self._remembers(user_id, versions):
            return
        forgotten, asked_at = self._forgotten, trio.current_time()
        consents = await read_consents(self.database, user_id, self.region)
        if missing := find_blocking(documents, consents, self.region, today):
            raise ConsentRequired(self._tell(missing))
        if forgotten == self._forgotten:  # else what was read may be older than a withdrawal
            self._remember(user_id, _Agreed(versions, asked_at))

    def forget(self, user_id: UUID) -> None:
        """Somebody has withdrawn, or may have."""
        self._forgotten += 1
        self._agreed.pop(user_id, None)

    def _remembers(self, user_id: UUID, versions: Versions) -> bool:
        agreed = self._agreed.get(user_id)
        return (
            agreed is not None
            and agreed.versions == versions
            and trio.current_time() < agreed.since + REMEMBER_SECONDS
        )

    def _remember(self, user_id: UUID, agreed: _Agreed) -> None:
        self._agreed.pop(user_id, None)
        if len(self._agreed) >= self.max_remembered:
            del self._agreed[next(iter(self._agreed))]
        self._agreed[user_id] = agreed

    def _tell(self, missing: Sequence[str]) -> str:
        return (
            f"agree to the current {' and '.join(missing)} first: GET /api/consent/status?region={self.region} shows"
            " what is missing, POST /api/consent/accept accepts it"
        )


def build_consent_gate(
    database: Database, region: LegalRegion | None, find_documents: FindDocuments
) -> ConsentGate | None:
    """None if nothing has to be accepted."""
    return None if region is None else ConsentGate(database, region, find_documents)
