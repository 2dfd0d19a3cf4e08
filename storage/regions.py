"""Where else this product is served, read whole: clients choose one before they sign in."""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from storage.postgres import Database


@dataclass(frozen=True, slots=True)
class Region:
    """A deployment with users of its own. `url` is where its server answers."""

    id: int
    label: str
    url: str
    is_default: bool
    created_at: datetime
    updated_at: datetime


async def read_regions(database: Database) -> list[Region]:
    """The default first, the others in the order of their labels, byte by byte."""
    return [Region(*row) for row in await database.as_operator("read the regions").fetch(_READ)]


_READ: LiteralString = """
    SELECT id, label, url, is_default, created_at, updated_at
    FROM regions ORDER BY is_default DESC, label COLLATE "C"
"""
