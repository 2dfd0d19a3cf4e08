"""What a route may use: one frozen record, made at the start and the same for the life of the process."""

from dataclasses import dataclass
from typing import cast

from quart import current_app

from proxy.gateway import Gateway
from server.auditor import Auditor
from server.auth.callers import Callers
from server.auth.local_issuer import LocalIssuer
from server.auth.sign_in import SignIn
from server.billing.billing import Billing
from server.breakers import SharedBreakers
from server.catalogue import Catalogue
from server.catalogue_answers import CatalogueAnswers
from server.config import Config
from server.consent_gate import ConsentGate
from server.limits import Limits
from server.live_configuration import LiveConfiguration
from server.presence import Presence
from server.push.push import Push
from server.relay.cancellations import Cancellations
from server.relay.relay import Relay
from server.relay.watching import Watching
from server.running_calls import RunningCalls
from server.uploads.stored_file import Uploads
from storage.api_keys import ApiKeys
from storage.devices import Devices
from storage.postgres import Database
from storage.redis import Redis

_KEY = "cloche.services"


@dataclass(frozen=True, slots=True)
class Services:
    config: Config
    database: Database
    redis: Redis
    callers: Callers
    limits: Limits
    auditor: Auditor
    api_keys: ApiKeys
    sign_in: SignIn
    local_issuer: LocalIssuer | None
    billing: Billing
    catalogue: Catalogue
    live: LiveConfiguration
    catalogue_answers: CatalogueAnswers
    breakers: SharedBreakers
    consent_gate: ConsentGate | None
    gateway: Gateway
    running_calls: RunningCalls
    cancellations: Cancellations
    devices: Devices
    presence: Presence
    push: Push
    relay: Relay
    watching: Watching
    uploads: Uploads


def use_services(services: Services, extensions: dict[str, object]) -> None:
    """Give the services to an app. Its routes find them with `services()`."""
    extensions[_KEY] = services


def services() -> Services:
    """The services of the app that answers the request at hand."""
    return cast(Services, current_app.extensions[_KEY])
