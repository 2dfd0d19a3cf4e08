"""How one call stands, as any process can tell: from its hold, and from its usage once it is settled."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a call. Input is the prompt with all that was cached of it; `provisional` charges may follow by a
    difference.
    """

    outcome: str
    ended_at: datetime
    cost_usd: Decimal
    provisional: bool
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


@dataclass(frozen=True, slots=True)
class CallRecord:
    """`provider_code` is who answered, or is to answer. `upstream_id` is that of an answer in the background at
    `upstream_provider`. `ending` is None while the call runs, or nobody has settled it.
    """

    id: UUID
    provider_code: str
    created_at: datetime
    upstream_provider: str | None
    upstream_id: str | None
    ending: Ending | None


@dataclass(frozen=True, slots=True)
class CallRecords:
    database: Database

    async def find(self, user_id: UUID, id_: UUID | None, idempotency_key: str | None = None) -> CallRecord | None:
        """One of that user's, by its id, or else by its key, which it has while it runs and once it is answered."""
        parameters = {"id": id_, "key": idempotency_key}
        row = await self.database.as_user(user_id).fetch_one(_FIND, parameters)
        return None if row is None else _read(row)

    async def is_somebodys(self, id_: UUID) -> bool:
        """Whether any user has such a call: to tell who asks for another's from who asks for none."""
        operator = self.database.as_operator("tell a foreign call from none")
        return await operator.fetch_one(_IS_SOMEBODYS, [id_]) is not None

    async def note_cancelled(self, user_id: UUID, id_: UUID) -> None:
        """That user wants it to end: for whoever runs it and could not be told, who hears of it when it renews the
        hold. Safe to repeat.
        """
        operator = self.database.as_operator("note that a call is to end")
        await operator.fetch(_NOTE_CANCELLED, {"id": id_, "user_id": user_id})


def _read(row: tuple[Any, ...]) -> CallRecord:
    id_, provider_code, created_at, upstream_provider, upstream_id, *last = row
    ending = None if last[0] is None else Ending(*last)
    return CallRecord(id_, provider_code, created_at, upstream_provider, upstream_id, ending)


_FIND: LiteralString = """
    SELECT holds.id, coalesce(usage.provider_code, holds.provider_code), holds.created_at, holds.upstream_provider,
           holds.upstream_id, outcome, ended_at, cost_usd, provisional,
           input_tokens + cache_read_tokens + cache_write_tokens + cache_write_1h_tokens + input_audio_tokens,
           output_tokens + reasoning_tokens + output_audio_tokens + output_image_tokens,
           cache_read_tokens, cache_write_tokens + cache_write_1h_tokens
    FROM holds LEFT JOIN usage ON usage.request_id = holds.id
    WHERE holds.user_id = app_user_id()
      AND (holds.id = %(id)s::uuid OR holds.idempotency_key = %(key)s::text)
    ORDER BY holds.id = %(id)s::uuid DESC NULLS LAST LIMIT 1
"""

_IS_SOMEBODYS: LiteralString = "SELECT FROM holds WHERE id = %s"

_NOTE_CANCELLED: LiteralString = """
    UPDATE holds SET cancelled_at = now()
    WHERE id = %(id)s AND user_id = %(user_id)s AND state = 'held' AND cancelled_at IS NULL
"""
