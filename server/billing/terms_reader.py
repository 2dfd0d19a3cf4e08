"""The terms as they are now."""

import logging
from dataclasses import dataclass, field

from server.billing.terms import KEYS, Terms, read_terms
from storage.configuration import Configuration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TermsReader:
    """`default` is for what the configuration does not say."""

    configuration: Configuration
    default: Terms
    _told: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Why a value is of no use, by its key: each is told once, though it is read with every request."""

    async def read(self) -> Terms:
        """From PostgreSQL, each time: a change counts at once, in every process. Raises DatabaseUnavailable."""
        return read_terms(await self.configuration.read(KEYS), self.default, self._tell)

    def _tell(self, key: str, reason: str) -> None:
        if self._told.get(key) != reason:
            self._told[key] = reason
            logger.warning("a value of the configuration is of no use", extra={"key": key, "reason": reason})
