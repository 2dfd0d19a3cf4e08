"""Regions, as the desktop asks for them before anybody has signed in."""

from pathlib import Path

import psycopg

from tests.server.served import open_served

PATH = "/config/regions"


async def test_a_server_that_is_the_only_one_lists_itself(database_url: str, redis_url: str, tmp_path: Path) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    for region, label in (("", "This server"), ("eu-west", "eu-west")):
        async with open_served(stores, tmp_path, SERVER_URL="https://api.example.com/", REGION=region) as served:
            answer = await served.ask("GET", PATH)
        assert answer.status == 200
        assert answer.json == [
            {
                "id": 1,
                "label": label,
                "url": "https://api.example.com",
                "is_default": True,
                "created_at": None,
                "updated_at": None,
            }
        ]


async def test_regions_come_the_default_first_with_every_member(
    database_url: str, owner_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute(
            "INSERT INTO regions (label, url, is_default, created_at, updated_at) VALUES"
            " ('European Union', 'https://api-eu.example.com', false, '2025-01-02 03:04:05.678Z', '2025-02-03 00:00Z'),"
            " ('United States', 'https://api-us.example.com', true, '2025-01-02 03:04:05.678Z', '2025-02-03 00:00Z')"
        )
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        regions = (await served.ask("GET", PATH)).json
    times = {"created_at": "2025-01-02T03:04:05.678Z", "updated_at": "2025-02-03T00:00:00.000Z"}
    assert [region.pop("id") for region in regions]
    assert regions == [
        {"label": "United States", "url": "https://api-us.example.com", "is_default": True, **times},
        {"label": "European Union", "url": "https://api-eu.example.com", "is_default": False, **times},
    ]
