"""The first evening with bendi, by clicks alone: get a model, talk with it, change one's mind, come back later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from browser import Page
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from serve_process import Process
from servers import Fault, FileServer, HubServer

import scripted_model
from bendi.chat.sessions import SessionStore
from bendi.settings import Settings

NAME = "hf:org/Parrot-GGUF:Q8_0"
PARROT = {"?": "y", "y": "e", "e": "s", "a": "a"}
"""Says yes to every question, and never ends after an `a`."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that is slow enough to be watched."""
    model = scripted_model.write(tmp_path / "parrot.gguf", PARROT, scripted_model.PLAIN_TEMPLATE).read_bytes()
    with FileServer(host="localhost") as files, HubServer(files) as hub:
        hub.repos["org/Parrot-GGUF"] = {"Parrot-Q8_0.gguf": model}
        files.faults.append(Fault(times=-1, slow_s=0.004))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def pulled_share(page: Page) -> int:
    """Of the download that is shown, in percent; 0 where none is."""
    return max((int(node.get_attribute("aria-valuenow") or 0) for node in page.all(".pull .meter")), default=0)


def card(page: Page, name: str) -> WebElement | None:
    """Of a model that is here, in the window with models."""
    return next((node for node in page.all("dialog .row-card") if name in node.text), None)


def get_a_model(page: Page) -> None:
    page.choose("#model", "More models")
    page.one("#pull-name").send_keys(NAME)
    page.click(".by-name button")
    page.wait(lambda: 0 < pulled_share(page) < 100 and " of " in page.text(".pull small"), "progress")
    assert not card(page, NAME)
    page.wait(lambda: not page.all(".pull"), "the end of the download")
    found = page.wait(lambda: card(page, NAME), "the model")
    assert "Q8_0" in found.text
    found.find_element(By.CSS_SELECTOR, "button.main").click()
    page.wait(lambda: not page.all("dialog"), "the window to close")
    page.wait_text("#model", NAME)


def answers(page: Page) -> list[str]:
    return [node.text for node in page.all("article.answer .writing")]


def test_from_the_first_model_to_the_next_day(
    chromium: webdriver.Chrome, settings: Settings, hub: HubServer, start: Callable[..., Process]
) -> None:
    server = start()
    page = Page(chromium, server.url)
    page.open()
    page.wait_text("#model", "demo")
    get_a_model(page)
    assert page.ask("Are you there?") == "yes"

    page.write("Say a" + Keys.ENTER)
    page.wait_text("article.growing .writing", "aaaa")
    page.click("#stop")
    page.wait_text("article.answer", "Stopped here")
    page.settled()

    page.write(Keys.ARROW_UP)
    field = page.one(".edit")
    assert field.get_attribute("value") == "Say a"
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys("Then say yes?" + Keys.ENTER)
    page.wait_text("#messages", "Then say yes?")
    page.wait(lambda: answers(page) == ["yes", "yes"], "the new answer")
    page.settled()

    page.driver.refresh()
    page.wait(lambda: answers(page) == ["yes", "yes"], "the conversation after a reload")
    page.wait_text("#model", NAME)
    assert not page.problems()

    server.signal(signal.SIGTERM)
    assert server.end() == 0
    again = start("--port", server.url.rpartition(":")[2])
    assert again.url == page.url
    assert page.ask("Still the same?") == "yes"
    page.driver.refresh()
    page.wait(lambda: answers(page) == ["yes"] * 3, "the whole conversation")
    # While there was no server, the page could not look what was loaded.
    assert not [problem for problem in page.problems() if "net::ERR_CONNECTION" not in problem]
    page.leave()
    with closing(SessionStore(settings.sessions_file)) as store:
        (session,) = store.recent()
        said = [stored.message.content for stored in store.messages(session.id)]
    assert session.model == NAME
    assert said == ["Are you there?", "yes", "Then say yes?", "yes", "Still the same?", "yes"]
