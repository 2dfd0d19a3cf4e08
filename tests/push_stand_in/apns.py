"""APNs for tests: two hosts over HTTP/2 and TLS that check what Apple checks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import uuid4

import trio

from tests.push_stand_in.apns_rules import ApnsRequest, ProviderTokenRules, Refused, check_request
from tests.push_stand_in.books import Book, Push, Refusal
from tests.push_stand_in.http2_connection import Http2Connection
from tests.push_stand_in.keys import BUNDLE_ID, KEY_ID, TEAM_ID, build_server_tls, find_apns_key
from tests.push_stand_in.steps import Script, Step, refuse_apns

ENVIRONMENTS = ("production", "sandbox")
_TOKEN_REASONS = (b"ExpiredProviderToken", b"InvalidProviderToken")


@dataclass(slots=True)
class Apns:
    """`homes` says in which environment a token is known: those that are not there are known in both. `gone` are those
    that reach nobody any more, with the moment since when, if APNs says it.
    """

    urls: dict[str, str] = field(default_factory=dict)
    book: Book = field(default_factory=Book)
    script: Script = field(default_factory=Script)
    homes: dict[str, str] = field(default_factory=dict)
    gone: dict[str, datetime | None] = field(default_factory=dict)
    connections: list[Http2Connection] = field(default_factory=list)
    is_away: bool = False
    """New connections are reset at once."""
    read_time: Callable[[], float] = time.time

    @property
    def open_connections(self) -> list[Http2Connection]:
        return [connection for connection in self.connections if connection.is_open]

    @property
    def violations(self) -> list[str]:
        """What clients have done against HTTP/2."""
        return [violation for connection in self.connections for violation in connection.violations]

    @property
    def provider_tokens(self) -> set[str]:
        return {push.provider_token for push in self.book.received}

    def cut_all(self) -> None:
        for connection in self.open_connections:
            connection.cut()

    async def serve(self, environment: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. `urls` knows where when it listens."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.urls[environment] = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(partial(self._serve_connection, environment), listeners)

    async def _serve_connection(self, environment: str, tcp: trio.SocketStream) -> None:
        tls = trio.SSLStream(tcp, build_server_tls("h2"), server_side=True, https_compatible=True)
        connection = Http2Connection(tcp, tls, len(self.connections) + 1, self.book)
        self.connections.append(connection)
        if self.is_away:
            connection.cut()
        rules = ProviderTokenRules(find_apns_key().public_key(), KEY_ID, TEAM_ID)
        await connection.serve(partial(self._take, environment, rules))

    def _take(
        self, environment: str, rules: ProviderTokenRules, connection: Http2Connection, request: ApnsRequest
    ) -> tuple[Push, Step]:
        push = self._build_push(environment, connection, request)
        self.book.receive(push)
        refused = check_request(request, BUNDLE_ID)
        refused = refused or rules.check(request.fields.get("authorization"), self.read_time())
        if refused is None:
            connection.open_up()
            refused = self._find_bad_home(push)
        if refused is not None:
            self.book.refuse(Refusal(push, refused.status, refused.reason))
            return push, refuse_apns(refused.status, refused.reason, since=self.gone.get(push.token))
        step = self.script.take(push)
        if any(reason in getattr(step, "body", b"") for reason in _TOKEN_REASONS):
            rules.forget()
        return push, step

    def _find_bad_home(self, push: Push) -> Refused | None:
        if self.homes.get(push.token, push.environment) != push.environment:
            return Refused(400, "BadDeviceToken")
        return Refused(410, "Unregistered") if push.token in self.gone else None

    def _build_push(self, environment: str, connection: Http2Connection, request: ApnsRequest) -> Push:
        fields = request.fields
        return Push(
            number=len(self.book.received) + 1,
            connection=connection.number,
            token=request.token,
            push_id=fields.get("apns-id") or str(uuid4()),
            collapse_id=fields.get("apns-collapse-id", ""),
            payload=request.payload,
            headers=fields,
            environment=environment,
            provider_token=fields.get("authorization", "").removeprefix("bearer "),
        )
