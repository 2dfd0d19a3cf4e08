"""What a socket needs of its process: one frozen record, the same for all sockets."""

from dataclasses import dataclass, field

from server.presence import Presence
from server.relay.bridge import Bridge
from server.relay.calls import Calls
from server.relay.channels import Channels
from server.relay.departures import Departures
from server.relay.events import Events
from server.relay.hub import Hub
from server.relay.open_sockets import OpenSockets
from server.relay.registration import Registrar
from server.relay.replacements import Replacements
from server.relay.sign_in_check import SignInCheck
from server.relay.terminals import Terminals
from storage.devices import Devices


@dataclass(slots=True)
class Traffic:
    """Of all device sockets of this process so far. Messages that devices have sent, and those written to them."""

    texts_in: int = 0
    binaries_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    hub: Hub
    bridge: Bridge
    channels: Channels
    events: Events
    calls: Calls
    terminals: Terminals
    presence: Presence
    devices: Devices
    registrar: Registrar
    check: SignInCheck
    sockets: OpenSockets
    departures: Departures
    replacements: Replacements
    traffic: Traffic = field(default_factory=Traffic)
