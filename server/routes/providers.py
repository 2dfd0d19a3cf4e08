"""Who sells the models: facts from the catalogue, and how calls to each go."""

from collections.abc import Mapping, Sequence

from msgspec.structs import asdict
from quart import Blueprint

from server.catalogue_answers import CountedProviderAnswer, ListedProvider, ProviderAnswer
from server.errors import NotFound
from server.operations import operation
from server.provider_health import NOT_CONFIGURED, ProviderHealth, judge_health
from server.services import services
from storage.breakers import Breaker, Outcomes

Seen = Mapping[Breaker, Outcomes] | None

blueprint = Blueprint("providers", __name__, url_prefix="/api/providers")


@blueprint.get("")
@operation("List the providers")
async def list_providers() -> Sequence[ProviderAnswer]:
    """All that this server knows, in the order of their names, and whether calls to them go through now."""
    seen = await read_seen()
    return [describe(listed, seen) for listed in list_known()]


@blueprint.get("/with-counts")
@operation("List the providers with the number of their models")
async def list_with_counts() -> Sequence[CountedProviderAnswer]:
    seen = await read_seen()
    return [
        CountedProviderAnswer(**asdict(describe(listed, seen)), model_count=listed.model_count)
        for listed in list_known()
    ]


@blueprint.get("/by-code/<code>")
@operation("Show one provider")
async def show_provider(code: str) -> ProviderAnswer:
    found = next((listed for listed in list_known() if listed.facts.code == code), None)
    if found is None:
        raise NotFound(f"no provider {code[:100]!r} is known here; GET /api/providers lists those that are")
    return describe(found, await read_seen())


@blueprint.get("/by-capability/<capability>")
@operation("List the providers that can do something")
async def list_capable(capability: str) -> Sequence[ProviderAnswer]:
    """Those that say true for this capability, such as `reasoning`. There may be none."""
    seen = await read_seen()
    capable = [listed for listed in list_known() if listed.facts.capabilities.get(capability) is True]
    return [describe(listed, seen) for listed in capable]


def list_known() -> Sequence[ListedProvider]:
    return services().catalogue_answers.listing.providers


async def read_seen() -> Seen:
    return await services().breakers.read_outcomes(services().catalogue_answers.listing.breakers)


def describe(listed: ListedProvider, seen: Seen) -> ProviderAnswer:
    return ProviderAnswer(**asdict(listed.facts), health=find_health(listed, seen))


def find_health(listed: ListedProvider, seen: Seen) -> ProviderHealth:
    if listed.models is None:
        return NOT_CONFIGURED
    code, breakers = listed.facts.code, services().breakers
    states = {model_id: breakers.state(code, model_id) for model_id in listed.models}
    if seen is None:
        return judge_health(states, None)
    return judge_health(states, {id_: seen[code, id_] for id_ in listed.models if (code, id_) in seen})
