"""What goes wrong at Stripe, as a test wishes it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fault:
    """Of the next request whose method and path begin so. `unavailable`: 503 and nothing done; `lost_answer`: done, and
    the connection closed; `hangs`: never answered.
    """

    path: str
    kind: Literal["unavailable", "lost_answer", "hangs"] = "unavailable"
    method: str = ""

    def hits(self, method: str, path: str) -> bool:
        return path.startswith(self.path) and method.startswith(self.method)
