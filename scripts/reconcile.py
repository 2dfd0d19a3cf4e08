"""`python -m scripts.reconcile [--days 30] [--no-stripe] [--repair]`: do the accounts add up?

Every balance is compared with the ledger, every hold, call and purchase with its bookings, and every payment of the
last days that Stripe knows with ours. A line for each kind, one for each difference, and the verdict. Exit status: 0 if
all adds up, 1 if not, 2 if it could not be seen. It changes nothing and works while servers run; with --repair, what
Stripe knows and the ledger does not is booked, as an event of Stripe's would have done it.
"""

import argparse
import sys

import psycopg
import trio

from proxy.provider import load_providers
from scripts.environment import read_environment
from server.auditor import Auditor
from server.billing.billing import open_billing
from server.billing.report import Report, write_lines
from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from server.config import Config, ConfigInvalid, read_config
from server.settings import read_count
from storage.audit import AuditLog
from storage.configuration import Configuration
from storage.credits import Credits
from storage.errors import StorageError
from storage.migrate import check_schema
from storage.postgres import open_database

CANNOT_RUN = 2


def main() -> None:
    arguments = read_arguments()
    try:
        config = read_config(read_environment(), load_providers())
        report = trio.run(reconcile, config, arguments)
    except (ConfigInvalid, StorageError, psycopg.Error) as error:
        print(f"the accounts cannot be read: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)
    print("\n".join(write_lines(report)))
    sys.exit(find_status(report))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.reconcile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=read_count, default=30, help="of payments that are compared with Stripe")
    parser.add_argument("--no-stripe", action="store_true", help="compare the accounts among themselves alone")
    parser.add_argument("--repair", action="store_true", help="book what Stripe knows and the ledger does not")
    return parser.parse_args()


def find_status(report: Report) -> int:
    """What is known to be wrong counts more than what could not be seen."""
    if not report.is_clean:
        return 1
    return CANNOT_RUN if report.stripe_failure else 0


async def reconcile(config: Config, arguments: argparse.Namespace) -> Report:
    async with open_database(config.database_url, size=2) as database:
        await check_schema(database)
        auditor = Auditor(AuditLog(database, config.region, config.audit_secret))
        accounts = Credits(database, config.hold_lease_seconds)
        terms = TermsReader(Configuration(database), Terms())
        async with open_billing(config.billing, database, accounts, auditor, terms) as billing:
            return await billing.reconciliation.run(
                arguments.days, asks_stripe=not arguments.no_stripe, repair=arguments.repair
            )


if __name__ == "__main__":
    main()
