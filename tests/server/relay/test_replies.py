"""What the relay itself says to a device."""

import json
from datetime import UTC, datetime

from server.relay.replies import PONG, build_error, build_registered, build_resumed

AT = datetime(2026, 2, 4, 4, 5, 6, tzinfo=UTC)


def test_fields_of_a_reply_stand_at_the_root() -> None:
    session = {"sessionId": "s", "expiresAt": "2026-02-04T04:05:06.000000+00:00"}
    registered = json.loads(build_registered("s", "t", AT))
    assert registered == {"type": "registered", "resumeToken": "t", **session}
    assert json.loads(build_resumed("s", AT)) == {"type": "resumed", **session}
    assert json.loads(PONG) == {"type": "pong"}


def test_an_error_says_when() -> None:
    error = json.loads(build_error("invalidJson", 'no "JSON"', AT))
    words = {"code": "invalidJson", "message": 'no "JSON"', "timestamp": "2026-02-04T04:05:06.000000Z"}
    assert error == {"type": "error", **words}
