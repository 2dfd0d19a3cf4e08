"""The catalogue in memory: what is on offer, what is left out, and what an outage changes."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from proxy.pricing import Price, Rates
from server.catalogue import Catalogue, build_models, sees_images
from storage.catalogue import ModelRow
from storage.errors import StorageError
from storage.postgres import open_database

ROW = ModelRow(
    id="openai/a",
    name="A",
    provider_code="openai",
    context_window=1000,
    max_output_tokens=100,
    capabilities={"vision": True},
    pricing_info={"input_per_million": "1", "output_per_million": 2.5},
    provider_models={"openai": "a-1"},
)


def test_a_row_becomes_a_model() -> None:
    model = build_models([ROW])["openai/a"]
    assert (model.id, model.name, model.provider_code) == ("openai/a", "A", "openai")
    assert (model.context_window, model.max_output_tokens, model.sees_images) == (1000, 100, True)
    assert model.price == Price(Rates(Decimal(1), Decimal("2.5"), Decimal(1), Decimal(1)))
    assert model.provider_models == {"openai": "a-1"}
    assert model.model_type == "text"
    assert build_models([replace(ROW, model_type="transcription")])["openai/a"].model_type == "transcription"


@pytest.mark.parametrize("pricing", [{}, {"input_per_million": 1}, {"input_per_million": -1, "output_per_million": 1}])
def test_a_model_that_cannot_be_charged_is_not_offered_and_reported(
    pricing: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    models = build_models([replace(ROW, id="openai/free", pricing_info=pricing), ROW])
    assert set(models) == {"openai/a"}
    assert "no usable price" in caplog.text


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"vision": True}, True),
        ({"vision": False, "multimodal": True, "modalities": ["image"]}, False),
        ({"multimodal": True}, True),
        ({"multimodal": False}, False),
        ({"multimodal": {"vision": True}}, True),
        ({"multimodal": {"vision": False}, "modalities": ["text"]}, False),
        ({"modalities": ["text", "image"]}, True),
        ({"modalities": ["vision"]}, True),
        ({"modalities": ["text"]}, False),
        ({"modalities": None}, False),
    ],
    ids=str,
)
def test_vision_is_said_in_several_ways(capabilities: Mapping[str, Any], expected: bool) -> None:
    assert sees_images(capabilities) is expected


async def test_a_change_is_seen_after_a_refresh(database_url: str, owner_database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        catalogue = Catalogue(database)
        assert catalogue.models == {}
        await catalogue.refresh()
        assert "openai/gpt-4.1-mini" in catalogue.models
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("UPDATE models SET status = 'inactive' WHERE id = 'openai/gpt-4.1-mini'")
        await catalogue.refresh()
        assert "openai/gpt-4.1-mini" not in catalogue.models
        assert catalogue.models


async def test_the_version_counts_changes_also_of_what_is_only_told(
    database_url: str, owner_database_url: str
) -> None:
    async with open_database(database_url, size=1) as database:
        catalogue = Catalogue(database)
        await catalogue.refresh()
        await catalogue.refresh()
        assert catalogue.version == 1
        for number, change in enumerate(("models SET description = 'new'", "providers SET website_url = 'x'"), 2):
            with psycopg.connect(owner_database_url) as owner:
                owner.execute(f"UPDATE {change}".encode())
            await catalogue.refresh()
            assert catalogue.version == number


async def test_providers_come_in_the_order_of_their_names(database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        catalogue = Catalogue(database)
        await catalogue.refresh()
    names = [provider.name for provider in catalogue.providers]
    assert len(names) > 1
    assert names == sorted(names)


async def test_an_outage_leaves_the_catalogue_as_it_was(database_url: str, owner_database_url: str) -> None:
    """It comes between the providers and the models."""
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}options=-c%20lock_timeout%3D5ms"
    async with open_database(url, size=1) as database:
        catalogue = Catalogue(database)
        await catalogue.refresh()
        before = (catalogue.providers, catalogue.models, catalogue.version)
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("UPDATE providers SET description = 'new'")
            owner.commit()
            owner.execute("LOCK TABLE models")
            with pytest.raises(StorageError):
                await catalogue.refresh()
        assert (catalogue.providers, catalogue.models, catalogue.version) == before
