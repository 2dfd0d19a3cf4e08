"""What is measured, for Prometheus: whether the accounts add up, and what this server is doing.

https://prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4. What is said of the accounts comes from
the last reconciliation (see server/billing/report.py): nothing is added up here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import trio
from quart import Blueprint, Response, request

from server.connection import edge
from server.errors import Problem, envelope
from server.guard import access
from server.relay.parts import Parts
from server.routes.deployment import CLOSED, REFUSED, is_token
from server.services import services
from storage.deliveries import Traffic
from storage.journal import count_running

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

blueprint = Blueprint("metrics", __name__)


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric. `samples` has a value for each value of its label; "" for a metric without one."""

    name: str
    help: str
    samples: Mapping[str, object]
    label: str = ""


@blueprint.get("/metrics")
@access(is_public=True)
async def show_metrics() -> Response:
    """For whoever brings the token of the deployment page. A small read of PostgreSQL, and another if pushes are on."""
    expected = services().config.deployment_token
    if expected is None:
        return _refuse(CLOSED)
    if not is_token(request.headers.get("Authorization", ""), expected):
        return _refuse(REFUSED)
    running = await trio.to_thread.run_sync(count_running, services().config.journal_folder)
    latest = await services().billing.reconciliation.books.find_latest()
    traffic = await services().push.deliveries.count() if services().push.platforms else None
    gauges = [*build_process_gauges(running, edge().requests - 1), *build_account_gauges(latest)]
    gauges += [*build_push_gauges(traffic), *build_relay_gauges(services().relay.parts)]
    return Response(write_text(gauges), content_type=CONTENT_TYPE)


def build_process_gauges(running_calls: int, requests: int) -> Iterator[Gauge]:
    yield Gauge("cloche_running_calls", "Calls of models under way in all workers of this server", {"": running_calls})
    yield Gauge("cloche_requests", "Requests that this process answers, without this one", {"": requests})


def build_account_gauges(latest: tuple[float, Mapping[str, Any]] | None) -> Iterator[Gauge]:
    """`latest` is the age in seconds and the figures of the last reconciliation; none before the first."""
    if latest is None:
        return
    age_seconds, found = latest
    yield Gauge("cloche_reconciliation_age_seconds", "Time since the accounts were reconciled", {"": age_seconds})
    usd = found.get("drift_usd", {})
    yield Gauge("cloche_drift_usd", "US dollars by which the accounts do not add up", usd, "kind")
    yield Gauge("cloche_drifts", "Things in the accounts that do not add up", found.get("drifts", {}), "kind")
    for name, text in _PLAIN.items():
        if name in found:
            yield Gauge(f"cloche_{name}", text, {"": found[name]})
    yield Gauge("cloche_stripe_events", "Events of Stripe that are not done", found.get("stripe_events", {}), "state")
    if stripe := found.get("stripe"):
        yield Gauge("cloche_stripe_payments", "Payments of the last days, compared with Stripe", stripe, "what")


def build_push_gauges(traffic: Traffic | None) -> Iterator[Gauge]:
    """None where pushes are off."""
    if traffic is None:
        return
    late = "How long the push waits that should have been sent first, in seconds"
    yield Gauge("cloche_pushes_due", "Pushes that are to be sent", traffic.due, "platform")
    yield Gauge("cloche_push_late_seconds", late, traffic.late_seconds, "platform")
    yield Gauge("cloche_pushes_recent", "Pushes of the last hour's notifications", traffic.recent, "state")


def build_relay_gauges(parts: Parts) -> Iterator[Gauge]:
    """Of this process. Messages and bytes are those since its start."""
    traffic, sockets = parts.traffic, parts.sockets
    yield Gauge("cloche_device_sockets", "Connected sockets of devices, registered or not", {"": sockets.count})
    yield Gauge("cloche_devices", "Devices that are registered on a socket", {"": len(parts.hub.members)})
    messages = {"in": traffic.texts_in + traffic.binaries_in, "out": traffic.frames_out}
    yield Gauge("cloche_device_messages", "Messages of devices, and messages and pings to them", messages, "direction")
    yield Gauge("cloche_device_bytes_out", "Bytes written to devices", {"": traffic.bytes_out})
    yield Gauge("cloche_device_bytes_waiting", "Bytes that wait to be written to devices", {"": sockets.waiting_bytes})
    spooled = "Bytes of terminals that wait for their devices to take others"
    yield Gauge("cloche_terminal_bytes_waiting", spooled, {"": parts.terminals.waiting_bytes})
    yield Gauge("cloche_pending_calls", "Calls of devices that have no answer yet", {"": parts.calls.pending})


_PLAIN = {
    "accounts": "Users with an account",
    "debts": "Users whose paid credits are below zero",
    "debts_usd": "What they owe, in US dollars",
    "open_holds": "Calls that hold credits",
    "held_usd": "What they hold, in US dollars",
    "provisional": "Charges by our own count that no provider has confirmed",
    "open_purchases": "Purchases that are not paid yet",
}


def write_text(gauges: Sequence[Gauge]) -> str:
    """Every line ends in a line feed."""
    return "".join(f"{line}\n" for gauge in gauges for line in _write_gauge(gauge))


def _write_gauge(gauge: Gauge) -> Iterator[str]:
    yield f"# HELP {gauge.name} {gauge.help}"
    yield f"# TYPE {gauge.name} gauge"
    for value, sample in gauge.samples.items():
        label = f'{{{gauge.label}="{_escape(value)}"}}' if gauge.label else ""
        yield f"{gauge.name}{label} {sample}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _refuse(problem: Problem) -> Response:
    return Response(msgspec.json.encode(envelope(problem)), problem.status, content_type="application/json")
