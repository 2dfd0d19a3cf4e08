"""Verifying the audit log: every row's seal, every number, the head of every chain, and what was seen of it earlier.

What it cannot see from the inside: a log whose end was cut off and whose head was put back to match is a log that never
had the end. Whoever keeps the anchor of an earlier verification elsewhere sees that too.
"""

import hmac
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from storage.audit_seal import FIRST_SEAL, DetailsForeign, read_details, seal_row
from storage.postgres import Database, Rights

PAGE_ROWS = 1000
BELOW_ALL = -(2**63) - 1
HIGHEST = 2**63 - 1
"""The table's own bounds hold back nobody who tampers with it: what a column can hold is read."""
MAX_PROBLEMS = 100
"""The most that are told of one region; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A row as an earlier verification saw it."""

    region: str
    sequence: int
    seal: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    region: str
    sequence: int
    text: str


@dataclass(frozen=True, slots=True)
class StoredRow:
    """`values` are what its seal was made over, in that order, but for the details, which are still text."""

    sequence: int
    values: Sequence[object]
    details: str | None
    seal: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a chain beside its rows, both at one moment. `matches`: it has the seal and the time of the row that
    it names.
    """

    sequence: int | None
    matches: bool
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one region's chain is worth. `problems` are the first of `problem_count`; `last` is the last row seen, of
    sequence 0 if there is none.
    """

    region: str
    row_count: int
    last: Anchor
    problems: Sequence[Problem]
    problem_count: int


class ChainCheck:
    """Reads one region's rows in order and remembers what is wrong with them. `secrets`: any of them may have sealed a
    row, so one that leaked lets whoever has it forge rows for as long as it stands here.
    """

    def __init__(self, region: str, secrets: Sequence[str], anchors: Sequence[Anchor]) -> None:
        self._secrets = secrets
        self._awaited = defaultdict[int, set[bytes]](set)
        for anchor in anchors:
            self._awaited[anchor.sequence].add(anchor.seal)
        self.region = region
        self._row_count = 0
        self._last = Anchor(region, 0, FIRST_SEAL)
        self._problems: list[Problem] = []
        self._problem_count = 0

    def read(self, row: StoredRow) -> None:
        self._row_count += 1
        if row.sequence <= self._last.sequence:
            self._tell(row.sequence, "its number does not follow that of the row before it: it was inserted")
            return
        if row.sequence == self._last.sequence + 1:
            self._check_seal(row)
        else:
            self._tell_gap(row.sequence)
        self._check_anchor(row)
        self._last = Anchor(self.region, row.sequence, row.seal)

    def finish(self, head: Head) -> Report:
        self._check_head(head)
        for sequence in self._awaited:
            self._tell(sequence, "a row that an earlier verification saw is not there")
        return Report(self.region, self._row_count, self._last, self._problems, self._problem_count)

    def _check_seal(self, row: StoredRow) -> None:
        try:
            values = [*row.values, read_details(row.details or "")]
        except DetailsForeign:
            self._tell(row.sequence, "its details were changed")
            return
        if not any(hmac.compare_digest(row.seal, seal_row(key, self._last.seal, values)) for key in self._secrets):
            self._tell(row.sequence, "its seal does not fit: it or the row before it was changed, moved or inserted")

    def _tell_gap(self, sequence: int) -> None:
        first, last = self._last.sequence + 1, sequence - 1
        which = "the row before it is missing" if first == last else f"the rows {first} to {last} before it are missing"
        beginning = ", the beginning of the log" if first == 1 else ""
        self._tell(sequence, f"{which}{beginning}; its seal is over what is gone, and cannot be checked")

    def _check_anchor(self, row: StoredRow) -> None:
        if self._awaited.pop(row.sequence, {row.seal}) != {row.seal}:
            self._tell(row.sequence, "it is not the row that an earlier verification saw")

    def _check_head(self, head: Head) -> None:
        if head.sequence is None:
            self._tell(head.last_sequence, "the head of the chain is missing")
        elif head.sequence > head.last_sequence:
            self._tell(head.last_sequence + 1, f"the end of the log is missing: its head names row {head.sequence}")
        elif head.sequence < head.last_sequence:
            self._tell(head.sequence, f"the head of the chain was put back, for row {head.last_sequence} is the last")
        elif not head.matches:
            self._tell(head.sequence, "the head of the chain has not the seal or the time of its last row")

    def _tell(self, sequence: int, text: str) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(self.region, sequence, text))


async def verify_audit_log(database: Database, secrets: Sequence[str], anchors: Sequence[Anchor] = ()) -> list[Report]:
    """One report for each region that has rows, a head or an anchor. Any number of rows, in pages, while others append:
    rows that come meanwhile may or may not be among those read.
    """
    rights = database.as_operator("verify the audit log")
    wanted = defaultdict[str, list[Anchor]](list)
    for anchor in anchors:
        wanted[anchor.region].append(anchor)
    regions = {region for (region,) in await rights.fetch(_REGIONS)} | wanted.keys()
    return [await _verify_region(rights, ChainCheck(name, secrets, wanted[name])) for name in sorted(regions)]


async def _verify_region(rights: Rights, check: ChainCheck) -> Report:
    wanted: dict[str, object] = {"region": check.region, "last": BELOW_ALL, "more": PAGE_ROWS - 1, "highest": HIGHEST}
    while page := await rights.fetch(_PAGE, wanted):
        for sequence, *values, details, seal in page:
            check.read(StoredRow(sequence, (check.region, sequence, *values), details, seal or b""))
        wanted["last"] = page[-1][0]
    ((sequence, matches, last_sequence),) = await rights.fetch(_HEAD, {"region": check.region})
    return check.finish(Head(sequence, matches, last_sequence))


# Jumps from region to region in the index, however many rows each has.
_REGIONS: LiteralString = """
    WITH RECURSIVE found AS (
        SELECT min(region) AS region FROM audit_log
        UNION ALL
        SELECT (SELECT min(region) FROM audit_log WHERE region > found.region) FROM found WHERE found.region IS NOT NULL
    )
    SELECT region FROM found WHERE region IS NOT NULL UNION SELECT region FROM audit_heads
"""

# By numbers, not by LIMIT: rows that somebody gave the same number are on the same page.
_PAGE: LiteralString = """
    WITH page AS (SELECT min(sequence) AS first FROM audit_log WHERE region = %(region)s AND sequence > %(last)s)
    SELECT sequence, extract(epoch FROM at)::text, action, status, actor, subject_id::text, entity_type, entity_id,
           address, user_agent, request_id, details::text, seal
    FROM audit_log, page
    WHERE region = %(region)s
      AND sequence BETWEEN page.first AND least(page.first::numeric + %(more)s, %(highest)s)::bigint
    ORDER BY sequence
"""

# Rows that were appended since the last page are in here: only the head and the row that it names are compared.
_HEAD: LiteralString = """
    SELECT min(sequence),
           coalesce(bool_and(sequence = 0 OR EXISTS (
               SELECT FROM audit_log AS named
               WHERE named.region = head.region AND named.sequence = head.sequence AND named.seal = head.seal
                 AND named.at = head.at)), false),
           coalesce((SELECT max(sequence) FROM audit_log WHERE region = %(region)s), 0)
    FROM audit_heads AS head WHERE region = %(region)s
"""
