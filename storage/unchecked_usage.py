"""Usage that was charged as we counted it, and that its provider can be asked about: whose turn it is to be checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from storage.journal import Progress
from storage.postgres import Database

PAUSES_SECONDS = (15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
"""After each check but the last. Providers take some seconds to know, and once in a while they are away."""
MAX_CHECKS = len(PAUSES_SECONDS) + 1


@dataclass(frozen=True, slots=True)
class UncheckedUsage:
    """One call. `price` is what it was held and charged by, as JSON; `progress` has the usage that was charged."""

    hold_id: UUID
    user_id: UUID
    provider_code: str
    upstream_id: str
    outcome: str
    price: str
    checks: int
    """How many there have been, this one included; there are MAX_CHECKS at most."""
    progress: Progress


@dataclass(frozen=True, slots=True)
class UncheckedUsages:
    database: Database

    async def find_due(self, provider_codes: Sequence[str], limit: int = 50) -> list[UncheckedUsage]:
        """Those of these providers whose turn it is, the longest waiting first. Each is due again after a pause,
        whatever becomes of it: so two processes do not ask about the same, and one that dies loses nothing.
        """
        parameters = {"codes": list(provider_codes), "limit": limit, "pauses": list(PAUSES_SECONDS)}
        rows = await self.database.as_operator("find provisional usage").fetch(_FIND_DUE, parameters)
        return [
            UncheckedUsage(id_, user, code, upstream, outcome, price, checks, Progress(id_, True, False, *tokens))
            for id_, user, code, upstream, outcome, price, checks, tokens in rows
        ]


_FIND_DUE: LiteralString = """
    WITH due AS MATERIALIZED (
        SELECT request_id FROM usage
        WHERE provisional AND upstream_id IS NOT NULL AND next_check_at <= now()
          AND checks <= cardinality(%(pauses)s::integer[]) AND provider_code = ANY(%(codes)s)
        ORDER BY next_check_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE usage
        SET checks = checks + 1,
            next_check_at = coalesce(
                now() + make_interval(secs => (%(pauses)s::integer[])[checks + 1]), 'infinity' -- that was the last time
            )
        FROM due WHERE usage.request_id = due.request_id
        RETURNING usage.*
    )
    SELECT id, taken.user_id, taken.provider_code, taken.upstream_id, outcome, price::text, checks,
           ARRAY[input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                 cache_write_1h_tokens, input_audio_tokens, output_audio_tokens, output_image_tokens, searches]
    FROM taken JOIN holds ON holds.id = taken.request_id
    ORDER BY taken.ended_at
"""
