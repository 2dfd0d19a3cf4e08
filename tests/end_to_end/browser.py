"""Headless Chromium, as somebody who signs in uses it: opens a page, fills in a form, presses a button, reads."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ChromeOptions, Remote
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.proxy import Proxy, ProxyType
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

T = TypeVar("T")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PAGE_SECONDS = 20

# Loopback alone: no proxy, no update, and no name is ever looked up.
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # as root, Chromium does not start with one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=900,700",
)


def find_missing_browser() -> str | None:
    """Why no browser can be started here; None if one can."""
    missing = [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
    return f"there is no {' and no '.join(missing)}: scripts/prepare-browser says how to get it" if missing else None


@dataclass(frozen=True, slots=True)
class Browser:
    """Selenium blocks, so every step is taken in a thread. Selectors are CSS. Raises TimeoutException if no page comes
    that has what is looked for.
    """

    driver: Remote
    folder: Path

    async def open(self, url: str) -> None:
        await trio.to_thread.run_sync(self.driver.get, url)

    async def fill(self, selector: str, text: str) -> None:
        await trio.to_thread.run_sync(lambda: self._find(selector).send_keys(text))

    async def press(self, selector: str) -> None:
        """A button, or a link; where that leads to another page, that page has come."""
        await trio.to_thread.run_sync(lambda: self._find(selector).click())

    async def read_page(self, phrase: str) -> str:
        """The words of the page that shows the phrase, in any case, once it is there."""
        return await trio.to_thread.run_sync(self._read_page, phrase.lower())

    async def read_url(self) -> str:
        return await trio.to_thread.run_sync(lambda: self.driver.current_url)

    async def save_picture(self, name: str) -> Path:
        path = self.folder / f"{name}.png"
        await trio.to_thread.run_sync(self.driver.save_screenshot, str(path))
        return path

    def _find(self, selector: str) -> WebElement:
        return self._wait(lambda: self.driver.find_element(By.CSS_SELECTOR, selector), f"no {selector}")

    def _read_page(self, phrase: str) -> str:
        def find_words() -> str | None:
            words = str(self.driver.execute_script("return document.body ? document.body.innerText : ''"))
            return words if phrase in words.lower() else None

        return self._wait(find_words, f"no page says: {phrase}")

    def _wait(self, find: Callable[[], T | None], complaint: str) -> T:
        """A page that is just leaving may answer with any error."""
        wait = WebDriverWait(self.driver, PAGE_SECONDS, poll_frequency=0.05, ignored_exceptions=[WebDriverException])
        return wait.until(lambda _: find() or False, complaint)


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser without a past. When a test fails a picture of its last page is left in the folder."""
    profile = folder / "profile"
    service = Service(DRIVER, env={"PATH": os.environ["PATH"], "HOME": str(profile), "LANG": "C.UTF-8"})
    try:
        driver = await trio.to_thread.run_sync(start_chromium, service, profile)
        browser = Browser(driver, folder)
        try:
            yield browser
        except Exception:  # whatever failed is raised again, with a picture beside it
            with trio.move_on_after(PAGE_SECONDS, shield=True):
                url, picture = await browser.read_url(), await browser.save_picture("failed")
                sys.stderr.write(f"the browser was at {url}: {picture}\n")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(driver.quit)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(service.stop)
            await trio.to_thread.run_sync(lambda: shutil.rmtree(profile, ignore_errors=True))


def start_chromium(service: Service, profile: Path) -> Remote:
    """The driver is asked directly, whatever proxy the environment names."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for switch in (*SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    service.start()
    url, direct = service.service_url, Proxy({"proxyType": ProxyType.DIRECT})
    return Remote(url, options=options, client_config=ClientConfig(url, proxy=direct))
