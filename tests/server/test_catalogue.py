"""The catalogue in memory: what is on offer, what is left out, and what an outage changes."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import trio

import server.catalogue
from proxy.pricing import Price, Rates
from server.catalogue import Catalogue, build_models, sees_images
from storage.catalogue import ModelRow
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


@pytest.mark.parametrize("pricing", [{}, {"input_per_million": 1}, {"input_per_million": 0, "output_per_million": 1}])
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


async def test_an_outage_leaves_the_catalogue_as_it_was(
    database_url: str, owner_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that comes to nothing, twice, and then one that succeeds."""
    monkeypatch.setattr(server.catalogue, "REFRESH_SECONDS", 0.01)
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}options=-c%20lock_timeout%3D5ms"
    async with open_database(url, size=1) as database, trio.open_nursery() as nursery:
        catalogue = Catalogue(database)
        await catalogue.refresh()
        before = catalogue.models
        with psycopg.connect(owner_database_url) as owner, trio.fail_after(5):
            owner.execute("LOCK TABLE models; UPDATE models SET status = 'inactive'")
            nursery.start_soon(catalogue.keep_fresh)
            while caplog.text.count("stays as it was") < 2:
                await trio.sleep(0.01)
            assert catalogue.models is before
        with trio.fail_after(5):
            while catalogue.models:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
