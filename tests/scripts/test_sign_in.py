"""`python -m scripts.sign_in`: what a newcomer types to sign in. A plain HTTP client plays the browser here."""

import html
import json
import re
from pathlib import Path

import httpx2
import pytest
import trio

from scripts.environment import write_settings
from scripts.sign_in import Attempt, SignInFailed, read, read_code, read_wish
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.sign_in_attempt import DEVELOPMENT
from tests.scripts.commands import open_command, run_command

ATTEMPT = Attempt("http://127.0.0.1:1/token", "pid", "our-own-word", "verifier")


@pytest.fixture
def stores(database_url: str, owner_database_url: str, redis_url: str, tmp_path: Path) -> Stores:
    return Stores(database_url, owner_database_url, redis_url, tmp_path / "journal")


async def read_until(stream: trio.abc.ReceiveStream | None, mark: bytes) -> str:
    """All of it, if the mark is empty."""
    assert stream is not None
    text = b""
    with trio.fail_after(30):
        while (not mark or mark not in text) and (piece := await stream.receive_some()):
            text += piece
    return text.decode()


async def choose(cloche: Cloche, told: str, choice: str) -> httpx2.Response:
    """Open what we were told to, fill in the form, press the button; returns the last page."""
    link = next(word for word in told.split() if word.startswith(cloche.url))
    async with httpx2.AsyncClient(base_url=cloche.url, trust_env=False, follow_redirects=True) as browser:
        page = (await browser.get(link)).text
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
        form = {name: html.unescape(text) for name, text in hidden.items()}
        form |= {"email": "ann@example.com", "name": "Ann", "choice": choice}
        action = re.search(r'action="([^"]+)"', page)
        assert action is not None, page
        return await browser.post(html.unescape(action[1]), data=form)


async def test_what_it_prints_is_accepted_by_the_server(stores: Stores) -> None:
    async with open_cloche(stores, settings=DEVELOPMENT) as cloche, open_command("sign_in", "--url", cloche.url) as it:
        told = await read_until(it.stderr, b"Waiting")
        assert (await choose(cloche, told, "sign-in")).status_code == 200
        made = json.loads(await read_until(it.stdout, b""))
        assert f"curl -N {cloche.url}/v1/chat/completions" in await read_until(it.stderr, b"")
        assert await it.wait() == 0
        async with httpx2.AsyncClient(base_url=cloche.url, trust_env=False) as client:
            user = (await client.get("/api/auth/userinfo", headers=made["headers"])).json()
        assert (user["id"], user["email"], user["name"]) == (made["userId"], "ann@example.com", "Ann")
        assert made["headers"]["X-Device-ID"] == made["deviceId"]


async def test_whoever_turns_back_is_taken_at_their_word(stores: Stores) -> None:
    async with open_cloche(stores, settings=DEVELOPMENT) as cloche, open_command("sign_in", "--url", cloche.url) as it:
        told = await read_until(it.stderr, b"Waiting")
        await choose(cloche, told, "cancel")
        errors = await read_until(it.stderr, b"")
        assert "answered 400" in errors
        assert "Traceback" not in errors
        assert await it.wait() == 1


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    done = run_command("sign_in", "--url", "http://127.0.0.1:9", environment={})
    assert (done.status, done.output) == (1, "")
    assert done.errors.startswith("http://127.0.0.1:9 does not answer")
    assert "start ./scripts/run first" in done.errors
    assert len(done.errors.splitlines()) == 1


# What is read


def test_the_server_is_the_one_that_run_started_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOCHE_DATA", str(tmp_path))
    monkeypatch.delenv("SERVER_URL", raising=False)
    assert read_wish([]).url == "http://127.0.0.1:8080"
    write_settings(tmp_path, {"SERVER_URL": "http://127.0.0.1:8081"})
    assert read_wish([]).url == "http://127.0.0.1:8081"
    assert read_wish([]).issuer == "http://127.0.0.1:8081/local-issuer"


def test_another_issuer_and_its_app_can_be_named() -> None:
    issuer = ["--issuer", "https://example.eu.auth0.com/", "--client-id", "app", "--audience", "https://api"]
    wish = read_wish(["--url", "http://own/", *issuer])
    assert (wish.url, wish.issuer) == ("http://own", "https://example.eu.auth0.com")
    assert (wish.client_id, wish.audience) == ("app", "https://api")


def test_an_answer_to_somebody_elses_question_is_refused() -> None:
    polled = {"status": "ready", "authorizationCode": "code-of-another", "tauriCsrfToken": "another-word"}
    with pytest.raises(SignInFailed, match="belongs to another sign-in"):
        read_code(polled, ATTEMPT)
    assert read_code({**polled, "tauriCsrfToken": ATTEMPT.csrf}, ATTEMPT) == "code-of-another"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(400, json={"message": "ours"}), "it answered 400: ours"),
        (httpx2.Response(400, json={"error": "invalid_grant", "error_description": "no"}), "it answered 400: no"),
        (httpx2.Response(403, json={"error": "invalid_grant"}), "it answered 403: invalid_grant"),
        (httpx2.Response(502, text="<html>"), "it answered 502"),
        (httpx2.Response(500, json=[1]), "it answered 500"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_whoever_refused(answer: httpx2.Response, words: str) -> None:
    with pytest.raises(SignInFailed) as refused:
        read(answer, "it")
    assert str(refused.value) == words


def test_no_secret_shows_in_a_repr() -> None:
    assert "our-own-word" not in repr(ATTEMPT)
    assert "verifier'" not in repr(ATTEMPT)
