"""`/openapi.json` and `/docs` as they are served: to everybody, made once, and complete in themselves."""

import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from server.routes import openapi
from server.version import VERSION
from tests.server.served import Served, open_served


class Links(HTMLParser):
    """Ids, where links lead to, and whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links |= {given[name] or "" for name in ("href", "src") if name in given}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def test_the_document_is_everybodys(served: Served) -> None:
    answer = await served.ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.json["openapi"], answer.json["info"]["version"]) == ("3.1.0", VERSION)
    assert answer.json["servers"] == [{"url": served.services.config.server_url}]
    assert "/api/llm/chat/completions" in answer.json["paths"]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_who_has_this_version_is_not_sent_it_again(served: Served, path: str) -> None:
    first = await served.ask("GET", path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, f'"other", W/{etag}'):
        again = await served.ask("GET", path, {"If-None-Match": known})
        assert (again.status, again.headers["etag"], again.body) == (304, etag, b"")
        assert not again.headers.keys() & {"content-type", "content-length"}
    assert (await served.ask("GET", path, {"If-None-Match": '"other"'})).status == 200


async def test_both_are_made_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await served.ask("GET", "/docs")
    monkeypatch.delattr(openapi, "describe")
    assert (await served.ask("GET", "/docs")).body == first.body
    assert (await served.ask("GET", "/openapi.json")).status == 200


async def test_the_page_tells_of_every_operation_and_each_of_its_links_leads_somewhere(served: Served) -> None:
    page = Links()
    page.feed((await served.ask("GET", "/docs")).body.decode())
    paths = (await served.ask("GET", "/openapi.json")).json["paths"]
    operations = [described for methods in paths.values() for described in methods.values()]
    assert {described["operationId"] for described in operations} <= set(page.ids)
    assert {described["summary"] for described in operations} <= {word.strip() for word in page.words}
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


async def test_the_page_needs_no_script_and_nothing_from_elsewhere(served: Served) -> None:
    answer = await served.ask("GET", "/docs")
    page = Links()
    page.feed(answer.body.decode())
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert not page.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert not re.search(r"@import|url\(|\son\w+=", answer.body.decode())
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert set(rules.values()) == {"'none'"}


async def test_what_is_told_is_escaped(served: Served) -> None:
    document = (await served.ask("GET", "/openapi.json")).json
    document["info"]["description"] = "<script>alert(1)</script> `<b>`"
    page = openapi.render_page(json.loads(json.dumps(document))).decode()
    assert ("<script>" in page, "&lt;script&gt;" in page, "<code>&lt;b&gt;</code>" in page) == (False, True, True)
