"""Statements that PostgreSQL plans once for a connection, and not each time: those of the chat path.

To plan the settlement of a call takes PostgreSQL longer than to run it.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import errors

from storage.psycopg_trio import TrioConnection

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Prepared:
    """`name` is for those who look at PostgreSQL's sessions. Parameters are written as `%(name)s`; their types follow
    from where they stand. `first` runs before it, in the same message and transaction: what that locks, this one sees
    as it is then.
    """

    name: LiteralString
    statement: LiteralString
    first: "Prepared | None" = None
    _parameters: tuple[str, ...] = field(init=False)
    """In the order of their numbers."""
    _session_name: str = field(init=False)
    """Also of the text: behind a pooler a session may know a statement of the same name from another version of us."""
    _preparation: bytes = field(init=False)

    def __post_init__(self) -> None:
        parameters = tuple(dict.fromkeys(_PLACEHOLDER.findall(self.statement)))
        numbers = {name: f"${number}" for number, name in enumerate(parameters, 1)}
        statement = _PLACEHOLDER.sub(lambda found: numbers[found[1]], self.statement)
        session_name = f"{self.name}_{hashlib.sha256(statement.encode()).hexdigest()[:12]}"
        object.__setattr__(self, "_parameters", parameters)
        object.__setattr__(self, "_session_name", session_name)
        object.__setattr__(self, "_preparation", f"PREPARE {session_name} AS {statement}".encode())

    async def run(
        self, connection: TrioConnection, settings: bytes, parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        """The rows, in one round trip; more when the connection runs it for the first time. `settings` are statements
        for the same transaction, before it.
        """
        if self._session_name not in connection.prepared:
            await self._prepare(connection, settings)
        try:
            return await connection.send(settings + self._execution(connection, parameters))
        except errors.InvalidSqlStatementName:  # a pooler gave us another session, and nothing has happened
            connection.prepared.discard(self._session_name)
            return await connection.send(settings + self._bind(connection, parameters))

    async def _prepare(self, connection: TrioConnection, settings: bytes) -> None:
        if self.first is not None:
            await self.first._prepare(connection, settings)
        with suppress(errors.DuplicatePreparedStatement):  # the answer to an earlier attempt was not waited for
            await connection.send(settings + self._preparation)
        connection.prepared.add(self._session_name)

    def _execution(self, connection: TrioConnection, parameters: Mapping[str, object]) -> bytes:
        first = b"" if self.first is None else self.first._execution(connection, parameters)
        literals = b", ".join([connection.quote(parameters[name]) for name in self._parameters])
        return b"%sEXECUTE %s (%s);" % (first, self._session_name.encode(), literals)

    def _bind(self, connection: TrioConnection, parameters: Mapping[str, object]) -> bytes:
        first = b"" if self.first is None else self.first._bind(connection, parameters) + b";"
        return first + connection.bind(self.statement, parameters)
