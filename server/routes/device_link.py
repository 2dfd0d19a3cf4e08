"""`/ws/device-link` for who asks for it without a WebSocket. server/sockets.py answers those who do."""

from quart import Blueprint, Response

from server.errors import UpgradeRequired
from server.guard import access
from server.operations import EMPTY, Content, operation

blueprint = Blueprint("device_link", __name__, url_prefix="/ws")


@blueprint.get("/device-link")
@access(budget="sockets")
@operation("Connect a device", answers={101: Content(media_type=EMPTY)})
async def connect_device() -> Response:
    """A WebSocket, by which the devices of a user find each other. Without an upgrade it is answered with 426."""
    raise UpgradeRequired("/ws/device-link is a WebSocket: ask for an upgrade")
