"""Headless Chromium, and the page in it as a user meets it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
WAIT_S = 10.0
WIDE = (1280, 860)
PHONE = (390, 844)
# Runs before the page: what must never happen is written down.
_WATCH = """
window.seen = [];
addEventListener("securitypolicyviolation", (event) => seen.push(`${event.violatedDirective}: ${event.blockedURI}`));
addEventListener("error", (event) => seen.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => seen.push(`rejected: ${event.reason}`));
for (const name of ["alert", "confirm", "prompt", "open"]) window[name] = () => seen.push(`attack: ${name}`);
"""
# Every control without a name for screen readers.
_NAMELESS = """
return [...document.querySelectorAll("button, a, input, textarea, select, summary, [role=meter], [role=region]")]
  .filter((node) => node.checkVisibility() && !node.closest("[aria-hidden=true]") && !(node.getAttribute("aria-label")
    || node.textContent.trim() || node.labels?.length)).map((node) => node.outerHTML.slice(0, 120));
"""


def find_programs() -> tuple[str, str] | None:
    """Chromium and its driver, None where one of them is absent."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start_browser(browser: str, driver: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    for argument in ("disable-background-networking", "disable-component-update", "no-first-run", "no-proxy-server"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
    return started


class Page:
    """One tab with the page of one server."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        driver.get_log("browser")  # what earlier pages had to say
        self.look()

    def look(self, size: tuple[int, int] = WIDE, language: str = "en-US", theme: str = "light") -> None:
        """How the browser is: its size, what it prefers. Takes effect with the next `open`."""
        command = self.driver.execute_cdp_cmd
        width, height = size
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        command("Emulation.setDeviceMetricsOverride", metrics)
        command("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        agent = self.driver.execute_script("return navigator.userAgent")
        command("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": language})
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})

    def open(self, address: str = "/") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.url + address)
        self.wait(lambda: self.all("body[data-ready], dialog[open]"), "the page")

    def leave(self) -> None:
        """Closes every connection of the page, so that its server can end."""
        self.driver.get("about:blank")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.wait(lambda: next((node for node in self.all(selector) if node.is_displayed()), None), selector)

    def text(self, selector: str) -> str:
        return " ".join(node.text for node in self.all(selector)).strip()

    def wait(self, look: Callable[[], T | None], what: object = "") -> T:
        """What `look` gives, as soon as it is true."""
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            try:
                found = look()
            except StaleElementReferenceException:
                found = None
            if found:
                return found
            time.sleep(0.03)
        raise AssertionError(f"waited in vain for {what}: {self.text('#messages')[-600:]!r} {self.text('#toasts')!r}")

    def wait_text(self, selector: str, part: str) -> None:
        self.wait(lambda: part in self.text(selector), f"{part!r} in {selector}")

    def wait_spoken(self, part: str) -> None:
        """What a screen reader is told; it is nowhere to be seen."""
        self.wait(lambda: part in self.run("return document.getElementById('spoken').textContent"), part)

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def choose(self, button: str, entry: str) -> None:
        """An entry of the menu that opens at a button."""
        self.click(button)
        self.wait(lambda: [node for node in self.all(".menu button") if node.text.startswith(entry)], entry)[0].click()
        self.wait(lambda: not self.all(".menu"), "the menu to close")

    def write(self, text: str) -> None:
        self.one("#question").send_keys(text)

    def ask(self, text: str) -> str:
        """Asks, waits until the answer is there, and returns it."""
        before = len(self.all("article.answer"))
        self.write(text + Keys.ENTER)
        self.wait(lambda: len(self.all("article.answer:not(.growing)")) > before, "an answer")
        return self.answer()

    def answer(self) -> str:
        """The last answer, when it is complete."""
        self.settled()
        return self.all("article.answer .writing")[-1].text

    def settled(self) -> None:
        """Nothing is being written any more, and what is shown is what is stored."""
        self.wait(lambda: not self.all("article.growing") and self.all("#send") and self.one("#send"), "the end")

    def press(self, *keys: str) -> None:
        """At whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    @property
    def session_id(self) -> str:
        return str(self.run("return location.hash")).removeprefix("#/s/")

    def nameless(self) -> list[str]:
        return list(self.run(_NAMELESS))

    def wider_than_screen(self) -> bool:
        return bool(self.run("return document.documentElement.scrollWidth > innerWidth"))

    def problems(self, *, statuses: tuple[int, ...] = ()) -> list[str]:
        """Whatever must not be: script errors, blocked resources, windows, requests to elsewhere. `statuses`: of
        refused requests that were expected."""
        found = list(self.run("return window.seen"))
        found += self.run(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
            ".filter((name) => !name.startsWith(location.origin + '/'))"
        )
        for entry in self.driver.get_log("browser"):
            expected = any(f"status of {status}" in entry["message"] for status in statuses)
            if entry["level"] == "SEVERE" and not expected:
                found.append(entry["message"])
        return found
