"""`python -m scripts.token --email a@b.c [--credits 10] [--role admin]`: a local user with a token. Development only.

Prints JSON: `userId`, `deviceId`, `token`, and the `headers` to send. A user that exists is kept; credits are added.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from uuid import UUID, uuid4

import trio

from proxy.provider import load_providers
from scripts.environment import read_environment
from server.auth.tokens import issue_token
from server.config import Config, ConfigInvalid, read_config
from storage.accounts import Accounts
from storage.credits import Credits
from storage.errors import StorageError
from storage.postgres import open_database
from storage.redis import open_redis
from storage.sessions import Sessions

MAX_CREDITS = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Wish:
    email: str
    role: str | None
    credits: Decimal
    device_id: UUID


def main() -> None:
    wish = read_arguments()
    try:
        config = read_config(read_environment(), load_providers())
    except ConfigInvalid as error:
        sys.exit(f"{error}\nOr start ./scripts/run first, whose settings this command finds by itself.")
    if config.is_production:
        sys.exit("refused: in production users sign in; set ENVIRONMENT=development on a machine of yours")
    try:
        print(json.dumps(trio.run(make_token, config, wish), indent=2))
    except StorageError as error:
        sys.exit(str(error))


def read_arguments() -> Wish:
    parser = argparse.ArgumentParser(prog="python -m scripts.token", description=__doc__)
    parser.add_argument("--email", required=True, type=read_email)
    parser.add_argument("--credits", type=read_credits, default=Decimal(0), help="US dollars to add")
    parser.add_argument("--role", choices=["user", "admin"])
    parser.add_argument("--device", type=UUID, default=uuid4(), help="a device id; a new one if not given")
    arguments = parser.parse_args()
    return Wish(arguments.email, arguments.role, arguments.credits, arguments.device)


async def make_token(config: Config, wish: Wish) -> dict[str, object]:
    """Everything is made as the server would make it, and the token is signed with the server's secret."""
    async with open_database(config.database_url, size=1) as database, open_redis(config.redis_url) as redis:
        accounts = Accounts(database)
        user = await accounts.make_user(wish.email, wish.role)
        await accounts.make_device(user.id, wish.device_id)
        await Sessions(redis, accounts).forget_user(user.id)
        if wish.credits:
            await Credits(database).grant(
                user.id, wish.credits, idempotency_key=f"token-command:{uuid4()}", description="local development"
            )
    token = issue_token(
        config.jwt_secret,
        user_id=user.id,
        email=user.email,
        role=user.role,
        device_id=wish.device_id,
        now=time.time(),
        days=config.token_days,
    )
    device = str(wish.device_id)
    headers = {"Authorization": f"Bearer {token}", "X-Device-ID": device, "X-Token-Binding": device}
    return {"userId": str(user.id), "deviceId": device, "token": token, "headers": headers}


def read_email(text: str) -> str:
    name, at, host = text.strip().partition("@")
    if not (name and at and host) or len(text) > 255 or any(character.isspace() for character in text.strip()):
        raise argparse.ArgumentTypeError("not an e-mail address")
    return text.strip()


def read_credits(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError("not a number") from error
    if not amount.is_finite() or not 0 <= amount <= MAX_CREDITS or amount != round(amount, 6):
        raise argparse.ArgumentTypeError(f"between 0 and {MAX_CREDITS}, with six places at most")
    return amount


if __name__ == "__main__":
    main()
