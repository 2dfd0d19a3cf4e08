"""What a user's calls have used and cost, summed up.

Every call counts that completed or cost something, also one that was cancelled or failed: so what a period cost is what
the ledger says of its calls, less what was given back since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, LiteralString
from uuid import UUID

from storage.postgres import Database

Grouping = Literal["model", "provider", "day", "task", "key"]


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """Calls that have one `key`: the model's id, who answered, a day of UTC as in 2025-01-31, the kind of task, or the
    id of an API key, None if a person called. Input is the prompt with all that was cached of it, read and written.
    """

    key: str | None
    cost_usd: Decimal
    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class UsageReports:
    database: Database

    async def group(self, user_id: UUID, start: datetime, end: datetime, by: Grouping) -> list[UsageGroup]:
        """Of the calls that ended in that time, both bounds included: days in their order, else the dearest first."""
        parameters = {"start": start, "end": end}
        rows = await self.database.as_user(user_id).fetch(_STATEMENTS[by], parameters)
        return [UsageGroup(*row) for row in rows]


def sum_up(groups: list[UsageGroup]) -> UsageGroup:
    """All of them as one."""
    return UsageGroup(
        key=None,
        cost_usd=sum((group.cost_usd for group in groups), Decimal(0)),
        calls=sum(group.calls for group in groups),
        input_tokens=sum(group.input_tokens for group in groups),
        output_tokens=sum(group.output_tokens for group in groups),
        cached_tokens=sum(group.cached_tokens for group in groups),
        duration_ms=sum(group.duration_ms for group in groups),
    )


# A request has one row in usage, so rows are distinct requests.
_SUMS: LiteralString = """
    sum(cost_usd - coalesce(refunded_usd, 0)) AS cost_usd,
    count(*),
    sum(input_tokens + cache_read_tokens + cache_write_tokens + cache_write_1h_tokens + input_audio_tokens)::bigint,
    sum(output_tokens + reasoning_tokens + output_audio_tokens + output_image_tokens)::bigint,
    sum(cache_read_tokens + cache_write_tokens + cache_write_1h_tokens)::bigint,
    sum(extract(epoch FROM ended_at - started_at) * 1000)::bigint
"""

_CALLS: LiteralString = """
    FROM usage LEFT JOIN holds ON holds.id = request_id AND holds.user_id = app_user_id() AND refunded_usd > 0
    WHERE usage.user_id = app_user_id() AND ended_at BETWEEN %(start)s AND %(end)s
      AND (outcome = 'completed' OR cost_usd > 0)
    GROUP BY 1
"""

_BY_COST: LiteralString = "ORDER BY cost_usd DESC, 1"

_DAY: LiteralString = "to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"

_STATEMENTS: Mapping[Grouping, LiteralString] = {
    "model": f"SELECT usage.model_id, {_SUMS} {_CALLS} {_BY_COST}",
    "provider": f"SELECT usage.provider_code, {_SUMS} {_CALLS} {_BY_COST}",
    "task": f"SELECT usage.task_type, {_SUMS} {_CALLS} {_BY_COST}",
    "key": f"SELECT usage.api_key_id::text, {_SUMS} {_CALLS} {_BY_COST}",
    "day": f"SELECT {_DAY}, {_SUMS} {_CALLS} ORDER BY 1",
}
