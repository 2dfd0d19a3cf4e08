"""WebSocket frames as a server sends them: https://www.rfc-editor.org/rfc/rfc6455#section-5.2. Pure."""

_FINAL_TEXT, _FINAL_BINARY, _FINAL_CLOSE, _FINAL_PING, _FINAL_PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
MAX_CONTROL_BYTES = 125


def build_text(payload: bytes) -> bytes:
    """UTF-8."""
    return _build(_FINAL_TEXT, payload)


def build_binary(payload: bytes) -> bytes:
    return _build(_FINAL_BINARY, payload)


def build_ping(payload: bytes) -> bytes:
    """Up to 125 bytes."""
    return _build(_FINAL_PING, payload)


def build_pong(payload: bytes) -> bytes:
    """Up to 125 bytes: those of the ping."""
    return _build(_FINAL_PONG, payload)


def build_close(code: int | None, reason: str = "") -> bytes:
    """Without a code there is no reason either. What of the reason does not fit is left out."""
    if code is None:
        return _build(_FINAL_CLOSE, b"")
    told = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return _build(_FINAL_CLOSE, code.to_bytes(2, "big") + told)


def _build(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload
