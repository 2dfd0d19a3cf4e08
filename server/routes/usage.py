"""What the caller's calls used and cost in a time: by model, and by whatever else a dashboard asks for."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import get_args

import msgspec
from quart import Blueprint, request

from proxy.routing import Model
from server.billing.wire import PeriodQuery, read_period
from server.errors import RequestInvalid
from server.guard import caller
from server.operations import operation
from server.services import services
from storage.api_keys import ApiKey
from storage.usage import Grouping, UsageGroup, sum_up

UNKNOWN = "unknown"
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
WITHOUT_KEY = "Signed in"
"""What calls are told under that came from a person's app."""

blueprint = Blueprint("usage", __name__, url_prefix="/api/billing")


class UsageTotals(msgspec.Struct, rename="camel"):
    """Costs in US dollars. Input is the whole prompt; what was cached of it, read or written, is also told alone."""

    total_cost: Decimal
    total_requests: int
    total_input_tokens: int
    total_output_tokens: int
    total_cached_tokens: int
    total_duration_ms: int


class ModelUsage(UsageTotals, rename="camel"):
    """What one model was used for."""

    service_name: str
    model_display_name: str
    provider_code: str


class UsageSummary(msgspec.Struct, rename="camel"):
    """The dearest models first."""

    detailed_usage: Sequence[ModelUsage]
    summary: UsageTotals


class UsageOfGroup(UsageTotals, rename="camel"):
    """`key` is null for what has none; `label` is for people."""

    key: str | None
    label: str


class UsageBreakdown(msgspec.Struct, rename="camel"):
    """Days stand in their order, other groups by their cost."""

    group_by: Grouping
    groups: Sequence[UsageOfGroup]
    summary: UsageTotals


class BreakdownQuery(PeriodQuery):
    group_by: Grouping = "model"


@blueprint.get("/usage-summary")
@operation("Show your usage by model", query=PeriodQuery)
async def show_summary() -> UsageSummary:
    """What the calls that ended in a time have used and cost. Both ends of the time belong to it."""
    period = read_period(request.args)
    groups = await services().billing.usage.group(caller().user_id, period.start_date, period.end_date, "model")
    models = services().catalogue.models
    shown = [_describe_model(group, models.get(group.key or "")) for group in groups]
    return UsageSummary(shown, _describe_totals(sum_up(groups)))


@blueprint.get("/usage/breakdown")
@operation("Show your usage in groups", query=BreakdownQuery)
async def show_breakdown() -> UsageBreakdown:
    """What the calls that ended in a time have used and cost, by whatever else they are told apart. Days are those of
    UTC.
    """
    wish = read_breakdown(request.args)
    groups = await services().billing.usage.group(caller().user_id, wish.start_date, wish.end_date, wish.group_by)
    label = await _find_labels(wish.group_by)
    shown = [_describe_group(group, label(group.key)) for group in groups]
    return UsageBreakdown(wish.group_by, shown, _describe_totals(sum_up(groups)))


def read_breakdown(query: Mapping[str, str]) -> BreakdownQuery:
    """Raises RequestInvalid, naming the parameter."""
    period = read_period(query)
    return BreakdownQuery(period.start_date, period.end_date, read_grouping(query))


def read_grouping(query: Mapping[str, str]) -> Grouping:
    """Raises RequestInvalid."""
    wish = query.get("group_by", "model")
    for grouping in GROUPINGS:
        if wish == grouping:
            return grouping
    raise RequestInvalid(f"group_by: one of {', '.join(GROUPINGS)}")


def label_key(keys: Mapping[str, ApiKey], key_id: str | None) -> str:
    """As its owner knows the key: by its label, and how it begins."""
    if key_id is None:
        return WITHOUT_KEY
    return f"{keys[key_id].label} ({keys[key_id].hint}…)" if key_id in keys else UNKNOWN


async def _find_labels(by: Grouping) -> Callable[[str | None], str]:
    if by == "key":
        keys = {str(key.id): key for key in await services().api_keys.list(caller().user_id)}
        return lambda key_id: label_key(keys, key_id)
    if by == "model":
        names = {model.id: model.name for model in services().catalogue.models.values()}
        return lambda model_id: names.get(model_id or "", model_id or UNKNOWN)
    return lambda key: key or UNKNOWN


def _describe_model(group: UsageGroup, model: Model | None) -> ModelUsage:
    """A model that is offered no more goes by its id."""
    model_id = group.key or UNKNOWN
    return ModelUsage(
        *_list_totals(group),
        service_name=model_id,
        model_display_name=model.name if model else model_id,
        provider_code=model.provider_code if model else UNKNOWN,
    )


def _describe_group(group: UsageGroup, label: str) -> UsageOfGroup:
    return UsageOfGroup(*_list_totals(group), key=group.key, label=label)


def _describe_totals(group: UsageGroup) -> UsageTotals:
    return UsageTotals(*_list_totals(group))


def _list_totals(group: UsageGroup) -> tuple[Decimal, int, int, int, int, int]:
    return (
        group.cost_usd,
        group.calls,
        group.input_tokens,
        group.output_tokens,
        group.cached_tokens,
        group.duration_ms,
    )
