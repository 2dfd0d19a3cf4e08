"""Both push services at once, and the settings of a server that sends to them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from tests.push_stand_in.apns import ENVIRONMENTS, Apns
from tests.push_stand_in.fcm import TOKEN_PATH, Fcm, open_fcm
from tests.push_stand_in.keys import (
    BUNDLE_ID,
    CLIENT_EMAIL,
    KEY_ID,
    PRIVATE_KEY_ID,
    PROJECT_ID,
    TEAM_ID,
    find_account_key,
    find_apns_key,
    find_authority,
    write_pem,
)


@dataclass(frozen=True, slots=True)
class PushStandIn:
    """`apns` and `fcm` have a `book` each of what they have seen, and a `script` to misbehave by."""

    apns: Apns
    fcm: Fcm
    ca_file: str

    @property
    def settings(self) -> Mapping[str, str]:
        """Of a server that sends to both."""
        return {**self.apns_settings, **self.fcm_settings}

    @property
    def apns_settings(self) -> Mapping[str, str]:
        return {
            "APNS_TEAM_ID": TEAM_ID,
            "APNS_KEY_ID": KEY_ID,
            "APNS_PRIVATE_KEY": write_pem(find_apns_key()),
            "APNS_BUNDLE_ID": BUNDLE_ID,
            "APNS_PRODUCTION": "true",
            "APNS_PRODUCTION_URL": self.apns.urls["production"],
            "APNS_SANDBOX_URL": self.apns.urls["sandbox"],
            "PUSH_CA_FILE": self.ca_file,
        }

    @property
    def fcm_settings(self) -> Mapping[str, str]:
        account = {
            "type": "service_account",
            "project_id": PROJECT_ID,
            "private_key_id": PRIVATE_KEY_ID,
            "private_key": write_pem(find_account_key()),
            "client_email": CLIENT_EMAIL,
            "token_uri": f"{self.fcm.url}{TOKEN_PATH}",
        }
        return {
            "FCM_SERVICE_ACCOUNT": msgspec.json.encode(account).decode(),
            "FCM_URL": self.fcm.url,
            "PUSH_CA_FILE": self.ca_file,
        }


@asynccontextmanager
async def open_push_stand_in() -> AsyncIterator[PushStandIn]:
    """On ports of their own at 127.0.0.1, until the block is left."""
    with find_authority().cert_pem.tempfile() as ca_file:
        async with open_fcm() as fcm, trio.open_nursery() as nursery:
            apns = Apns()
            for environment in ENVIRONMENTS:
                await nursery.start(partial(apns.serve, environment))
            yield PushStandIn(apns, fcm, ca_file)
            nursery.cancel_scope.cancel()
