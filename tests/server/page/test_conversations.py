"""The list of conversations, which is that of the terminal; keys; another start of the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest
from browser import Page
from live import LiveServer
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from bendi.chat.sessions import SessionStore
from bendi.messages import Message
from bendi.server.policy import Policy
from bendi.settings import Settings
from conftest import Opened


def remember(settings: Settings, *titles: str) -> list[str]:
    """Conversations as the terminal keeps them."""
    made = []
    with closing(SessionStore(settings.sessions_file)) as store:
        for title in titles:
            session = store.create("demo")
            store.append(session.id, Message("user", title))
            store.append(session.id, Message("assistant", f"About {title}: nothing."))
            made.append(session.id)
    return made


def test_conversations_of_the_terminal_are_here(page: Page, settings: Settings) -> None:
    first, second = remember(settings, "Sourdough", "京都四日")
    page.open()
    page.wait(lambda: len(page.all("#sessions a")) == 2)
    page.click(f"#sessions a[data-id='{first}']")
    page.wait_text("#messages", "About Sourdough")
    page.write("/")  # in the field it is a letter, not a command
    assert page.one("#question").get_attribute("value") == "/"
    page.press(Keys.BACKSPACE)
    page.run("document.activeElement.blur()")
    page.one("body").send_keys("/")
    page.press("京都")
    page.wait(lambda: [node.get_attribute("data-id") for node in page.all("#sessions a")] == [second], "the search")
    page.press(Keys.ESCAPE)
    page.wait(lambda: len(page.all("#sessions a")) == 2)
    assert not page.problems()


def test_rename_and_delete(page: Page, settings: Settings) -> None:
    kept, gone = remember(settings, "Sourdough", "Rust")
    page.open(f"/#/s/{kept}")
    page.wait_text("#title", "Sourdough")
    page.choose("#bar > button[aria-haspopup]:not(#model)", "Rename")
    page.one("dialog input").send_keys(Keys.CONTROL + "a")
    page.press("Bread & <b>butter</b>" + Keys.ENTER)
    page.wait_text("#title", "Bread & <b>butter</b>")
    page.click(f"#sessions a[data-id='{gone}']")
    page.wait_text("#messages", "About Rust")
    page.one(f"#sessions a[data-id='{gone}']").send_keys(Keys.DELETE)
    page.wait_text("dialog", "deleted for good")
    page.click("dialog .danger")
    page.wait(lambda: len(page.all("#sessions a")) == 1 and page.all(".welcome"))
    with closing(SessionStore(settings.sessions_file)) as store:
        assert [(session.id, session.title) for session in store.recent()] == [(kept, "Bread & <b>butter</b>")]
    assert not page.problems()


def test_a_conversation_that_is_gone(page: Page) -> None:
    page.open("/#/s/abcdefghijkm")
    page.wait_text("#toasts", "There is no such session")
    assert page.all(".welcome")


def test_the_key_is_asked_for_and_kept_in_the_tab_only(chromium: webdriver.Chrome, settings: Settings) -> None:
    with LiveServer(settings, Policy(keys_required=True)) as server:
        key = server.services.keys.add("reader")
        page = Page(chromium, server.url)
        page.open()
        page.wait_text("dialog", "This server wants a key")
        page.press("wrong" + Keys.ENTER)
        page.wait_text("dialog", "did not accept")
        page.press(key + Keys.ENTER)
        page.wait_text("#model", "demo")
        assert "cache" in page.ask("What is a KV cache?").lower()
        assert page.run("return JSON.stringify(localStorage) + document.cookie + location.href").count(key) == 0
        assert page.run("return JSON.stringify(sessionStorage)").count(key) == 1
        assert not page.problems(statuses=(401,))
        page.leave()


@contextmanager
def served(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`bendi serve` as a process of its own."""
    command = [sys.executable, "-m", "bendi", "serve", "--port", str(port), "--log", "none"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        with httpx.Client(trust_env=False) as client:
            for _attempt in range(200):
                try:
                    if client.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None
                    time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_killed_server_is_started_again_and_the_talk_goes_on(
    chromium: webdriver.Chrome, settings: Settings, free_port: int
) -> None:
    page = Page(chromium, f"http://127.0.0.1:{free_port}")
    with served(free_port) as process:
        page.open()
        page.ask("What is a KV cache?")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        page.write("What is quantization?" + Keys.ENTER)
        page.wait_text(".failure", "does not answer")
    with served(free_port):
        page.click(".failure button.main")
        page.wait(lambda: len(page.all("article.answer")) == 2)
        assert page.answer()
        page.driver.refresh()
        page.wait(lambda: len(page.all("article.answer")) == 2)
    with closing(SessionStore(settings.sessions_file)) as store:
        said = [message.message.content for message in store.messages(page.session_id)]
    assert [said[0], said[2]] == ["What is a KV cache?", "What is quantization?"]


def test_two_tabs_do_not_answer_at_once(scripted: Opened) -> None:
    page = scripted(delay_s=0.05)
    page.open()
    page.write("word " * 100 + Keys.ENTER)
    page.wait_text("article.growing .writing", "word")
    first, address = page.driver.current_window_handle, page.run("return location.hash")
    page.driver.switch_to.new_window("tab")
    try:
        page.open(f"/{address}")
        page.wait_text("#messages", "word")
        page.write("me too" + Keys.ENTER)
        page.wait(lambda: page.all(".failure"), "the refusal")
        assert page.one("#question").get_attribute("value") == "me too"
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    page.press(Keys.ESCAPE)
    page.wait_text("article.answer", "Stopped here")
