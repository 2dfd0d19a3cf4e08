"""`python -m scripts.seed [--file F]`: write the catalogue of models and prices. Safe to repeat."""

import argparse
import os
import sys
from pathlib import Path

import psycopg

from storage.errors import StorageError
from storage.seed import seed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.seed", description=__doc__)
    parser.add_argument("--file", type=Path, help="a catalogue; by default storage/seed_files/catalogue.toml")
    arguments = parser.parse_args()
    url = os.environ.get("DATABASE_OWNER_URL") or os.environ.get("DATABASE_URL")
    if not url:
        sys.exit("DATABASE_OWNER_URL (or DATABASE_URL) is missing: the role in it must own the tables")
    try:
        print(f"{seed(url, arguments.file)} models are on offer")
    except (StorageError, OSError, psycopg.Error) as error:
        sys.exit(f"the catalogue could not be written: {error}")


if __name__ == "__main__":
    main()
