"""`python -m scripts.seed [--file F] [--dry-run] [--overwrite]`: show what the catalogue's file would change in the
database, and change it. Safe to repeat.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from proxy.errors import ModelNotPriced
from proxy.pricing import read_price
from server.configuration_keys import KEYS, check_value
from storage.errors import StorageError
from storage.seed.checking import check_seed, find_outdated
from storage.seed.difference import Change, build_rows, find_changes
from storage.seed.entries import Seed
from storage.seed.reading import SeedInvalid, read_seed
from storage.seed.writing import open_seeding, read_rows, write_changes


def main() -> None:
    options = read_options()
    url = os.environ.get("DATABASE_OWNER_URL") or os.environ.get("DATABASE_URL")
    if not url:
        sys.exit("DATABASE_OWNER_URL (or DATABASE_URL) is missing: the role in it must own the tables")
    try:
        wanted = read_seed(options.file)
        check_seed(wanted, has_price)
        check_settings(wanted.configuration)
        apply(url, wanted, options)
    except SeedInvalid as error:
        sys.exit("\n  ".join(["the catalogue could not be written:", *error.problems]))
    except (StorageError, OSError, psycopg.Error) as error:
        sys.exit(f"the catalogue could not be written: {error}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.seed", description=__doc__)
    parser.add_argument("--file", type=Path, help="a catalogue; by default storage/seed/catalogue.toml")
    parser.add_argument("--dry-run", action="store_true", help="show the difference and change nothing")
    parser.add_argument("--overwrite", action="store_true", help="also what an administrator has changed")
    return parser.parse_args()


def apply(url: str, wanted: Seed, options: argparse.Namespace) -> None:
    """One transaction: what is shown is what is written."""
    with open_seeding(url) as connection:
        changes = find_changes(build_rows(wanted), read_rows(connection), overwrite=options.overwrite)
        for line in [line for change in changes for line in change.lines]:
            print(line)
        for line in find_outdated(wanted, datetime.now(UTC).date()):
            print(f"! {line}")
        if not options.dry_run:
            write_changes(connection, changes)
    print(f"{tell_end(changes, options.dry_run)}: {len(wanted.models)} models are on offer")


def tell_end(changes: Sequence[Change], is_dry_run: bool) -> str:
    count = sum(change.action != "keep" for change in changes)
    if not count:
        return "nothing to do"
    rows = "1 row" if count == 1 else f"{count} rows"
    return f"{rows} would be written" if is_dry_run else f"{rows} written"


def check_settings(configuration: Mapping[str, Any]) -> None:
    """By the rules for administrators. Raises SeedInvalid."""
    problems = [f"configuration: nobody reads {key!r}" for key in configuration if key not in KEYS]
    for key in KEYS & configuration.keys():
        problems += [f"configuration: {key}: {problem}" for problem in check_value(key, configuration[key], {}, {})]
    if problems:
        raise SeedInvalid(sorted(problems))


def has_price(pricing: Mapping[str, Any]) -> bool:
    """Whether the server could charge for it: by the very function that it charges with."""
    try:
        read_price(pricing)
    except ModelNotPriced:
        return False
    return True


if __name__ == "__main__":
    main()
