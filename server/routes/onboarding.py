"""`/public/onboarding`: the videos that newcomers are shown before they sign in."""

from collections.abc import Mapping

import msgspec
from quart import Blueprint

from server.configuration_keys import ONBOARDING_VIDEOS
from server.guard import access
from server.onboarding_videos import build_video_urls
from server.operations import operation
from server.services import services

blueprint = Blueprint("onboarding", __name__)


class OnboardingAnswer(msgspec.Struct):
    """The URL of each video by its name, such as `intro`."""

    videos: Mapping[str, str]


@blueprint.get("/public/onboarding")
@access(is_public=True, budget="public")
@operation("List the videos for newcomers")
async def show_videos() -> OnboardingAnswer:
    """Empty if this server has none."""
    here = services()
    return OnboardingAnswer(build_video_urls(here.config.cdn_base_url, here.live.configuration.get(ONBOARDING_VIDEOS)))
