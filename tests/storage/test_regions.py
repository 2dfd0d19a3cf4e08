"""Reading the regions."""

import psycopg

from storage.postgres import open_database
from storage.regions import read_regions


async def test_the_default_comes_first_and_the_others_by_their_labels(
    database_url: str, owner_database_url: str
) -> None:
    with psycopg.connect(owner_database_url) as owner:
        for label, is_default in (("a", False), ("United States", True), ("European Union", False)):
            url = f"https://api-{label[0].lower()}.example.com"
            owner.execute("INSERT INTO regions (label, url, is_default) VALUES (%s, %s, %s)", (label, url, is_default))
    async with open_database(database_url, size=1) as database:
        regions = await read_regions(database)
    assert [(region.label, region.url, region.is_default) for region in regions] == [
        ("United States", "https://api-u.example.com", True),
        ("European Union", "https://api-e.example.com", False),
        ("a", "https://api-a.example.com", False),
    ]
    assert all(region.created_at.tzinfo for region in regions)


async def test_there_need_not_be_any(database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        assert await read_regions(database) == []
