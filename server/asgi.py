"""`app`: what hypercorn loads. It opens what lives as long as the process and owns the root nursery."""

import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from proxy.audience import Several
from proxy.gateway import Gateway
from proxy.provider import load_providers
from proxy.pump import Patience, Reach
from proxy.sandbox import SandboxTransport
from proxy.transport import Deadlines, Transport, open_transport
from server import hypercorn_fixes
from server.app import create_app
from server.auditor import Auditor
from server.auth.callers import Callers
from server.auth.local_issuer import LocalIssuer
from server.auth.openid import OpenIdProvider, open_openid_provider
from server.auth.provisioning import Provisioning
from server.auth.sign_in import SignIn
from server.billing.billing import open_billing
from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from server.billing.true_up import TrueUp
from server.breakers import SharedBreakers
from server.catalogue import Catalogue
from server.catalogue_answers import CatalogueAnswers
from server.config import Config, ConfigInvalid, read_config
from server.connection import find_edge
from server.consent_gate import build_consent_gate
from server.leases import Leases
from server.limits import Limits
from server.live_configuration import CHANNEL, LiveConfiguration
from server.logs import set_up_logs
from server.outage import Outage
from server.presence import Presence
from server.presence_sweep import PresenceSweep
from server.push.push import open_push
from server.relay.cancellations import Cancellations
from server.relay.chat_watch import ChatWatch
from server.relay.endless import make_endless
from server.relay.relay import open_relay
from server.relay.sign_in_check import SignInCheck
from server.relay.watching import build_watching
from server.running_calls import RunningCalls
from server.services import Services
from server.sockets import SocketHandler, Sockets
from server.uploads.stored_file import Uploads
from storage.accounts import Accounts
from storage.api_keys import ApiKeys
from storage.audit import AuditLog
from storage.bookings import Bookings
from storage.breakers import BreakerTable
from storage.configuration import Configuration
from storage.credits import Credits
from storage.device_events import DeviceEvents
from storage.devices import Devices
from storage.errors import StorageError
from storage.journal import open_journal
from storage.listening import Listener
from storage.login_states import LoginStates
from storage.migrate import check_schema
from storage.postgres import Database, open_database
from storage.presence import PresenceTable
from storage.presence_history import PresenceHistory
from storage.rate_limits import RateLimits
from storage.redis import Redis, open_redis
from storage.sessions import Sessions
from storage.sign_ins import SignIns
from storage.unchecked_usage import UncheckedUsages
from storage.watched import WatchedUsers

Loop = Callable[[], Awaitable[object]]


class Application:
    """Answers once its lifespan has started. One per process; hypercorn starts the lifespan first."""

    def __init__(self, config: Config | ConfigInvalid) -> None:
        self._config = config
        self._answers: Answers | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._answers is not None:
            await self._answers(scope, receive, send)

    async def _live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """What keeps us from starting is told in one line each, all at once. A loop that dies ends the lifespan."""
        await receive()
        if isinstance(self._config, ConfigInvalid):
            await send({"type": "lifespan.startup.failed", "message": str(self._config)})
        else:
            set_up_logs(self._config.log_level)
            await self._serve(self._config, receive, send)

    async def _serve(self, config: Config, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            async with open_services(config) as (services, loops), trio.open_nursery() as root:
                for loop in loops:
                    root.start_soon(loop)
                self._answers = Answers(services, list_sockets(services))
                leave_to_live()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await services.relay.settle()
                root.cancel_scope.cancel()
        except StorageError as error:
            if self._answers is not None:
                raise
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


class Answers:
    """Whoever comes in: requests to the app, WebSockets to who serves their path."""

    def __init__(self, services: Services, table: Mapping[str, SocketHandler]) -> None:
        self.app = create_app(services)
        self._sockets = Sockets(find_edge(self.app), services.callers, table)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def list_sockets(services: Services) -> Mapping[str, SocketHandler]:
    """Who serves which path."""
    return {"/ws/device-link": services.relay.serve, "/ws/events": services.watching.serve}


def leave_to_live() -> None:
    """Take what has been made by now out of the garbage collector's sight: it lives as long as the process, and looking
    through its hundred thousand objects would stop all streams for 60 ms, several times a second under load.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def open_services(config: Config) -> AsyncIterator[tuple[Services, list[Loop]]]:
    """Everything that a process needs, opened in order and closed in reverse, and the loops that it has to run.

    Raises StorageError if a store is not there.
    """
    deadlines = Deadlines(
        config.connect_seconds, config.first_byte_seconds, config.idle_seconds, config.write_deadline_seconds
    )
    async with (
        open_database(config.database_url, size=config.database_connections) as database,
        open_redis(config.redis_url) as redis,
        open_transport(deadlines) as network,
        open_openid_provider(config.sign_in) as issuer,
        AsyncExitStack() as stack,
    ):
        await check_schema(database)
        catalogue = Catalogue(database)
        live = LiveConfiguration(database, catalogue, config.upstreams)
        await live.refresh()
        listener = Listener(config.database_url, CHANNEL)
        stack.callback(listener.close_nowait)
        with open_journal(config.journal_folder) as journal:
            credits_ = Credits(database, config.hold_lease_seconds)
            transport: Transport = network if config.is_production else SandboxTransport(network)
            patience = Patience(config.first_token_seconds, config.total_seconds, config.retry_seconds)
            breakers = SharedBreakers(BreakerTable(redis))
            watched = WatchedUsers(redis)
            chats, running_calls = ChatWatch(watched), RunningCalls()
            audience = Several((chats, running_calls))
            reach = Reach(transport, breakers, patience)
            gateway = Gateway(lambda: catalogue.models, config.upstreams, reach, credits_, journal, audience)
            terms = TermsReader(Configuration(database), Terms(free_credits_usd=config.sign_in.signup_credits_usd))
            sign_in, callers = build_sign_in(config, database, redis, issuer, terms)
            billing = await stack.enter_async_context(
                open_billing(config.billing, database, credits_, sign_in.auditor, terms)
            )
            push = await stack.enter_async_context(open_push(config.push, database))
            links, presence_history = PresenceTable(redis), PresenceHistory(database)
            presence_sweep = PresenceSweep(links, presence_history)
            devices, check = Devices(database), SignInCheck(callers.sessions, callers.api_keys)
            build_presence = partial(Presence, links, DeviceEvents(redis), presence_history, push.notify)
            relay = await stack.enter_async_context(
                open_relay(config.redis_url, redis, build_presence, devices, check)
            )
            cancellations = Cancellations(running_calls, relay.parts.bridge)
            watching = build_watching(
                events=relay.events,
                channels=relay.channels,
                chats=chats,
                watched=watched,
                credits_=credits_,
                notifications=push.notifications,
                live=live,
                has_ended=check.has_ended,
            )
            services = Services(
                config=config,
                database=database,
                redis=redis,
                callers=callers,
                limits=sign_in.limits,
                auditor=sign_in.auditor,
                api_keys=callers.api_keys,
                sign_in=sign_in,
                local_issuer=LocalIssuer(config.sign_in, redis) if config.sign_in.is_local else None,
                billing=billing,
                catalogue=catalogue,
                live=live,
                catalogue_answers=CatalogueAnswers(catalogue, config.upstreams),
                breakers=breakers,
                consent_gate=build_consent_gate(database, config.consent_region, lambda: live.documents),
                gateway=gateway,
                running_calls=running_calls,
                cancellations=cancellations,
                devices=devices,
                presence=relay.presence,
                push=push,
                relay=relay,
                watching=watching,
                uploads=Uploads(config.upload_folder, config.max_uploads_bytes, config.upload_seconds),
            )
            leases = Leases(credits_, journal, config.journal_folder, gateway.call_off, cancellations.end_call)
            true_up = TrueUp(UncheckedUsages(database), credits_, gateway.look_up, gateway.looks_up)
            loops: list[Loop] = [partial(live.keep_fresh, listener), breakers.keep_fresh, network.watch_silence]
            loops += [issuer.keep_keys_fresh, sign_in.keep_purged, true_up.keep_truing_up, *billing.loops]
            loops += [presence_sweep.keep_sweeping, presence_sweep.keep_purged, *push.loops]
            loops += [*relay.loops, *make_endless(cancellations.loops), *watching.loops]
            yield services, [*loops, leases.keep_renewing, leases.keep_sweeping]


def build_sign_in(
    config: Config, database: Database, redis: Redis, issuer: OpenIdProvider, terms: TermsReader
) -> tuple[SignIn, Callers]:
    """Who may call, and how they come to."""
    secrets = [config.jwt_secret, *([config.jwt_previous_secret] if config.jwt_previous_secret else [])]
    limits = Limits(RateLimits(redis), config.budgets, Outage())
    audit = AuditLog(database, config.region, config.audit_secret)
    sign_ins = SignIns(database, audit)
    sessions = Sessions(redis, Accounts(database))
    api_keys = ApiKeys(redis, database)
    provisioning = Provisioning(sign_ins, config.sign_in.issuer)
    auditor = Auditor(audit)
    callers = Callers(sessions, api_keys, provisioning, limits, auditor, secrets, config.api_key_secret)
    sign_in = SignIn(
        settings=config.sign_in,
        token_days=config.token_days,
        secrets=secrets,
        issuer=issuer,
        states=LoginStates(redis),
        sign_ins=sign_ins,
        sessions=sessions,
        limits=limits,
        terms=terms,
        bookings=Bookings(database),
        auditor=auditor,
    )
    return sign_in, callers


def load_application(environment: Mapping[str, str]) -> Application:
    """Called where hypercorn imports us, in every worker, before the first connection."""
    try:
        config = read_config(environment, load_providers())
    except ConfigInvalid as error:
        hypercorn_fixes.install()
        return Application(error)
    hypercorn_fixes.install(write_deadline_seconds=config.write_deadline_seconds)
    return Application(config)


app = load_application(os.environ)
