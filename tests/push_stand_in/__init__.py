"""APNs and FCM for tests, over real TLS with an authority of our own; APNs over real HTTP/2.

    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        push.apns.script.play(token, refuse_apns(503, "ServiceUnavailable"), Cut())    # then it is accepted
        ...                                                                            # a phone, a notification
        (seen,) = await push.apns.book.wait_acknowledged(1)
        assert seen.payload["aps"]["alert"]["title"] == "Done"

They check what Apple and Google check, in their words: a request that breaks a rule is refused and stands in
`book.refused`. Whatever is allowed gets what the script says: by token, by number, or `script.otherwise`, a function.

Of every push the book says what its sender cannot know: whether the acknowledgement has gone out completely
(`book.acknowledged`), or the connection ended before (`book.cut`), so that it may come again.
"""

from tests.push_stand_in.apns import Apns
from tests.push_stand_in.books import Book, Push, Refusal
from tests.push_stand_in.fcm import Fcm
from tests.push_stand_in.stand_in import PushStandIn, open_push_stand_in
from tests.push_stand_in.steps import (
    Accept,
    Cut,
    GoAway,
    Held,
    ResetStream,
    Say,
    Script,
    Silence,
    Step,
    refuse_apns,
    refuse_fcm,
)

__all__ = [
    "Accept",
    "Apns",
    "Book",
    "Cut",
    "Fcm",
    "GoAway",
    "Held",
    "Push",
    "PushStandIn",
    "Refusal",
    "ResetStream",
    "Say",
    "Script",
    "Silence",
    "Step",
    "open_push_stand_in",
    "refuse_apns",
    "refuse_fcm",
]
