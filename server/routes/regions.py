"""`/config/regions`: where else this product is served. Clients ask before anybody has signed in."""

from collections.abc import Sequence

import msgspec
from quart import Blueprint

from server.config import Config
from server.guard import access
from server.operations import operation
from server.services import services
from server.times import show_time
from storage.regions import Region

UNNAMED = "default"
"""What REGION says if nobody has set it."""

blueprint = Blueprint("regions", __name__)


class RegionAnswer(msgspec.Struct):
    """`url` is where the region's server answers; times are UTC, and null for a server that lists itself alone."""

    id: int
    label: str
    url: str
    is_default: bool
    created_at: str | None
    updated_at: str | None


@blueprint.get("/config/regions")
@access(is_public=True, budget="public")
@operation("List the regions")
async def show_regions() -> Sequence[RegionAnswer]:
    """The default comes first. Without other regions it is this server alone."""
    here = services()
    return [_describe(region) for region in here.live.regions] or [describe_own(here.config)]


def describe_own(config: Config) -> RegionAnswer:
    label = "This server" if config.region == UNNAMED else config.region
    return RegionAnswer(1, label, config.server_url, is_default=True, created_at=None, updated_at=None)


def _describe(region: Region) -> RegionAnswer:
    return RegionAnswer(
        id=region.id,
        label=region.label,
        url=region.url,
        is_default=region.is_default,
        created_at=show_time(region.created_at),
        updated_at=show_time(region.updated_at),
    )
