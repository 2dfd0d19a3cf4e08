"""Writes into the audit log, also as a process of its own: `python -m tests.storage.audit_writer URL COUNT`."""

import sys
from uuid import UUID

import trio

from storage.audit import AuditEntry, AuditLog
from storage.postgres import open_database

SECRET = "only-for-tests-0123456789abcdef-0123456789"

ENTRY = AuditEntry(
    "sign_in",
    "success",
    "user:5",
    UUID(int=5),
    "login",
    "7",
    address="192.0.2.1",
    user_agent="Mozilla/5.0",
    request_id="request",
    details={"new": True, "list": [1, "a"]},
)


class _Taken(Exception):
    """Back again: the transaction was not meant."""


async def append_many(log: AuditLog, count: int, number: int) -> int:
    """Every fifth transaction is rolled back after its row was appended. Returns how many rows stand."""
    stand = 0
    for turn in range(count):
        try:
            async with log.database.as_operator(f"writer {number}").transaction() as connection:
                await log.append(connection, ENTRY)
                if turn % 5 == number % 5:
                    raise _Taken
        except _Taken:
            continue
        stand += 1
    return stand


async def main(database_url: str, count: int) -> None:
    async with open_database(database_url, size=1) as database:
        await append_many(AuditLog(database, "eu", SECRET), count, 1)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
