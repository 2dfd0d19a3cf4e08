"""What administrators change while servers run, as this process knows it: a change is seen within a second."""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.routing import Upstream
from server.ai_settings import AiSettings, check_ai_settings, read_ai_settings
from server.catalogue import Catalogue
from server.configuration_keys import AI_SETTINGS
from server.runtime_configuration import (
    EncodedDocument,
    build_runtime_configuration,
    encode_runtime_configuration,
    list_models,
)
from storage.configuration import Configuration
from storage.errors import StorageError
from storage.legal_documents import LegalDocument, read_documents
from storage.listening import Listener
from storage.postgres import Database
from storage.regions import Region, read_regions
from storage.system_prompts import SystemPrompt, read_system_prompts

CHANNEL = "cloche_configuration"
"""On which triggers tell the names of tables that have changed."""

CONFIGURATION, PROMPTS, REGIONS, DOCUMENTS = "configuration", "system_prompts", "regions", "legal_documents"
CATALOGUE = frozenset({"providers", "models", "model_mappings"})
EVERYTHING = CATALOGUE | {CONFIGURATION, PROMPTS, REGIONS, DOCUMENTS}
"""The tables that are kept in memory."""

POLL_SECONDS = 15.0
"""What no notification has told is seen after so long: a pooler in transaction mode carries none."""
RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LiveConfiguration:
    """What the tables say, decoded. Each member is replaced as a whole when its table has changed, and never altered,
    so that whoever holds one goes on with what it has. While PostgreSQL is away all stays as it is.
    """

    database: Database
    catalogue: Catalogue
    upstreams: Mapping[str, Upstream]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """By key."""
    ai_settings: AiSettings = field(default_factory=AiSettings)
    """As administrators have set them. The last ones that could be read."""
    prompts: Mapping[str, SystemPrompt] = field(default_factory=dict)
    """By task type, in its order."""
    regions: Sequence[Region] = ()
    documents: Sequence[LegalDocument] = ()
    """All versions, also those of the future."""
    runtime: EncodedDocument = field(default_factory=lambda: EncodedDocument(b"{}", '""'))
    """What the shipped desktop starts with: what the settings come to with the models that can be called here."""
    _built_from: tuple[int, AiSettings] | None = field(default=None, init=False, repr=False)
    _problems: Sequence[str] = field(default=(), init=False, repr=False)
    """Of the settings, as the log has them."""
    _unread: Set[str] = field(default=frozenset(), init=False, repr=False)
    """Tables that have changed, or may have, and could not be read."""
    _is_away: bool = field(default=False, init=False, repr=False)
    _listeners: list[Callable[[Set[str]], None]] = field(default_factory=list, init=False, repr=False)
    _lock: trio.Lock = field(default_factory=trio.Lock, init=False, repr=False)

    def hear_changed(self, listener: Callable[[Set[str]], None]) -> None:
        """Called with the names of tables that have another content than before, once it is in use; must not wait. The
        catalogue's are told together.
        """
        self._listeners.append(listener)

    async def refresh(self, changed: Set[str] = EVERYTHING) -> None:
        """Read those tables. Raises StorageError; what was read before that is in use."""
        async with self._lock:  # else who was slow would put older rows in the place of newer ones
            before = self._contents()
            try:
                await self._read(changed)
            finally:
                self._tell_changed(before)

    async def _read(self, changed: Set[str]) -> None:
        if changed & CATALOGUE:
            await self.catalogue.refresh()
        if CONFIGURATION in changed:
            self.configuration = await Configuration(self.database).read_all()
        if PROMPTS in changed:
            self.prompts = await read_system_prompts(self.database)
        if REGIONS in changed:
            self.regions = await read_regions(self.database)
        if DOCUMENTS in changed:
            self.documents = await read_documents(self.database)
        self._build_runtime()

    async def follow(self, changed: Set[str]) -> None:
        """`refresh`, for who has made a change or heard of one: a failure is logged, once for an outage, and made good
        by `keep_fresh`.
        """
        try:
            await self.refresh(changed)
        except StorageError as error:
            self._unread |= changed
            self._note_away(error)
        else:
            self._note_back()

    async def keep_fresh(self, listener: Listener) -> None:
        """Never returns. Many changes at once are read once."""
        while True:
            changed = await self._wait_changed(listener) | self._unread
            self._unread = frozenset()
            await self.follow(changed)

    async def _wait_changed(self, listener: Listener) -> Set[str]:
        """What we are told; everything, if we are told nothing for long or may have missed something."""
        with trio.move_on_after(RETRY_SECONDS if self._unread else POLL_SECONDS):
            return await listener.wait_told() or EVERYTHING
        return self._unread or EVERYTHING

    def _contents(self) -> Mapping[str, object]:
        return {
            **dict.fromkeys(CATALOGUE, self.catalogue.version),
            CONFIGURATION: self.configuration,
            PROMPTS: self.prompts,
            REGIONS: self.regions,
            DOCUMENTS: self.documents,
        }

    def _tell_changed(self, before: Mapping[str, object]) -> None:
        changed = {name for name, content in self._contents().items() if content != before[name]}
        if changed:
            for listener in self._listeners:
                listener(changed)

    def _build_runtime(self) -> None:
        """Anew only if what it is made of has changed."""
        settings = self._read_settings()
        if self._built_from == (self.catalogue.version, settings):
            return
        models, rows = self.catalogue.models, self.catalogue.rows
        listed = list_models(models, rows, self.catalogue.providers, self.upstreams)
        self._tell_problems(check_ai_settings(settings, rows, models))
        self.runtime = encode_runtime_configuration(build_runtime_configuration(settings, rows, listed))
        self.ai_settings, self._built_from = settings, (self.catalogue.version, settings)

    def _read_settings(self) -> AiSettings:
        """What cannot be read was written past the routes; the last settings stay."""
        try:
            return read_ai_settings(self.configuration.get(AI_SETTINGS, {}))
        except ValueError as error:
            self._tell_problems([str(error)])
            return self.ai_settings

    def _tell_problems(self, problems: Sequence[str]) -> None:
        if problems and problems != self._problems:
            extra = {"problems": problems}
            logger.error("ai_settings are wrong, and used as far as they go", extra=extra)
        self._problems = problems

    def _note_away(self, error: StorageError) -> None:
        if not self._is_away:
            logger.warning("the configuration could not be refreshed and stays as it was", extra={"reason": str(error)})
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            logger.info("the configuration is fresh again")
        self._is_away = False
