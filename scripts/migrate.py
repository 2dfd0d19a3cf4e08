"""`python -m scripts.migrate`: bring the database up to this code. Safe to repeat."""

import os
import sys

import psycopg

from storage.errors import StorageError
from storage.migrate import migrate


def main() -> None:
    url = os.environ.get("DATABASE_OWNER_URL") or os.environ.get("DATABASE_URL")
    if not url:
        sys.exit("DATABASE_OWNER_URL (or DATABASE_URL) is missing: the role in it comes to own the tables")
    try:
        applied = migrate(url)
    except (StorageError, psycopg.Error) as error:
        sys.exit(f"the database could not be migrated: {error}")
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")


if __name__ == "__main__":
    main()
