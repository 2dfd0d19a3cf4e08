"""`python -m scripts.audit verify [--anchor REGION:SEQUENCE:SEAL]` and `python -m scripts.audit show`: the audit log.

`verify` prints a line for each region, and one for each problem. Exit status: 0 if the log is whole, 1 if it has
problems, 2 if it could not be verified. It works while servers write. Keep the anchors that it prints somewhere else,
and give them to the next run: only they show that an end was cut off by somebody who put the chain's head back as well.
`show` prints the last rows of this region as JSON, one a line, the oldest first.
"""

import argparse
import sys
from collections.abc import Sequence
from uuid import UUID

import msgspec
import psycopg
import trio

from proxy.provider import load_providers
from scripts.environment import read_environment
from server.config import Config, ConfigInvalid, read_config
from server.settings import Settings, read_count, read_secret
from storage.audit import AuditLog
from storage.audit_seal import SEAL_BYTES
from storage.audit_verify import Anchor, Report, verify_audit_log
from storage.errors import StorageError
from storage.migrate import check_schema
from storage.postgres import open_database

CANNOT_RUN = 2


def main() -> None:
    arguments = read_arguments()
    try:
        environment = read_environment()
        config = read_config(environment, load_providers())
        if arguments.command == "verify":
            reports = trio.run(verify, config, read_secrets(config, environment), arguments.anchor)
            sys.exit(tell(reports))
        trio.run(show, config, arguments.user, arguments.action, arguments.limit)
    except (ConfigInvalid, StorageError, psycopg.Error) as error:
        print(f"the audit log cannot be read: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="is every row as it was written, and none missing?")
    verify.add_argument("--anchor", action="append", default=[], type=read_anchor, metavar="REGION:SEQUENCE:SEAL")
    show = commands.add_parser("show", help="print the last rows")
    show.add_argument("--user", type=UUID, help="rows about this user, or by it")
    show.add_argument("--action")
    show.add_argument("--limit", type=read_count, default=50)
    return parser.parse_args()


def read_anchor(text: str) -> Anchor:
    region, sequence, seal = text.rsplit(":", 2) if text.count(":") >= 2 else ("", "", "")
    try:
        anchor = Anchor(region, int(sequence), bytes.fromhex(seal))
    except ValueError:
        anchor = Anchor("", 0, b"")
    if not region or anchor.sequence < 1 or len(anchor.seal) != SEAL_BYTES:
        raise argparse.ArgumentTypeError("an anchor is REGION:SEQUENCE:SEAL, as `verify` prints it")
    return anchor


def read_secrets(config: Config, environment: dict[str, str]) -> list[str]:
    """AUDIT_HMAC_SECRET, and AUDIT_HMAC_SECRET_PREVIOUS if rows were sealed with another one before."""
    settings = Settings(environment)
    previous = settings.read("AUDIT_HMAC_SECRET_PREVIOUS", "", read_secret)
    if settings.problems:
        raise ConfigInvalid(settings.problems)
    return [config.audit_secret, *([previous] if previous else [])]


async def verify(config: Config, secrets: Sequence[str], anchors: Sequence[Anchor]) -> list[Report]:
    async with open_database(config.database_url, size=1) as database:
        await check_schema(database)
        return await verify_audit_log(database, secrets, anchors)


def tell(reports: Sequence[Report]) -> int:
    """Print them, and return the exit status."""
    if not reports:
        print("the audit log is empty")
    for report in reports:
        print("\n".join(write_lines(report)))
    return 1 if any(report.problem_count for report in reports) else 0


def write_lines(report: Report) -> list[str]:
    region, rows, count = report.region, report.row_count, report.problem_count
    if not count:
        anchor = f"{region}:{report.last.sequence}:{report.last.seal.hex()}"
        return [f"{region}: {rows} rows, last {report.last.sequence}, ok; --anchor {anchor}"]
    lines = [f"{region}: {rows} rows, last {report.last.sequence}, PROBLEMS: {count}"]
    lines += [f"{region}: row {problem.sequence}: {problem.text}" for problem in report.problems]
    if count > len(report.problems):
        lines.append(f"{region}: and {count - len(report.problems)} more")
    if count >= rows > 0:
        lines.append(f"{region}: no row fits. Is AUDIT_HMAC_SECRET the secret that the servers of {region} write with?")
    return lines


async def show(config: Config, user_id: UUID | None, action: str | None, limit: int) -> None:
    async with open_database(config.database_url, size=1) as database:
        rows = await AuditLog(database, config.region, config.audit_secret).find_latest(user_id, action, limit)
    for row in rows:
        print(msgspec.json.encode(row).decode())


if __name__ == "__main__":
    main()
