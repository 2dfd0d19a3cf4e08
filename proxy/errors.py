"""What can go wrong in proxy. Messages name a host and a phase, and never hold a header, a key or a body."""

from typing import Literal

Phase = Literal["connect", "write", "response", "idle"]


class ProxyError(Exception):
    """The base of everything that this package raises."""


class ModelUnknown(ProxyError):
    """The catalogue has no active model of that id."""


class ModelNotPriced(ProxyError):
    """A model without a usable price is refused: what can't be charged must not run."""


class ProviderNotConfigured(ProxyError):
    """The model exists, but no key for its provider is set on this server."""


class RequestNotSupported(ProxyError):
    """The request asks for something that the model or its provider cannot do. The message names the field."""


class ContextWindowExceeded(ProxyError):
    """The prompt does not fit into the model's context window."""


class MediaUnreadable(ProxyError):
    """A file that is to be sent to a provider cannot be read: our own fault, and not the provider's."""


class UsageOutOfBounds(ProxyError):
    """A provider reported usage that cannot be, so no charge can be made from it."""


class UpstreamError(ProxyError):
    """A provider could not be asked, or did not answer to the end."""


class RequestNotSendable(UpstreamError):
    """A URL or header that must not go out: our mistake or the operator's, and of no use to repeat."""


class UpstreamUnreachable(UpstreamError):
    """No connection: the name did not resolve, nobody listens, or TLS was not agreed. The provider saw no request."""


class UpstreamTimedOut(UpstreamError):
    """The provider was silent for longer than the deadline of `phase`."""

    def __init__(self, message: str, phase: Phase) -> None:
        super().__init__(message)
        self.phase: Phase = phase


class UpstreamBroken(UpstreamError):
    """The connection ended before the answer was complete, or what came was not an HTTP answer that we take."""


class FileNotReady(UpstreamError):
    """A file was uploaded, and the provider did not get it ready in time."""


class FileUnreadable(UpstreamError):
    """A file was uploaded, and the provider could make nothing of it."""
