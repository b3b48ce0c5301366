"""Fixtures for the page in a browser: one Chromium for all tests, and servers with slow or scripted engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest
from browser import Page, find_programs, start_browser
from live import LiveServer
from selenium import webdriver

from bendi.engines import Engine, LoadRequest
from bendi.engines.fake import FakeEngine
from bendi.server.pool import ModelPool
from bendi.settings import Settings
from bendi.store import Store

Opened = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    programs = find_programs()
    if programs is None:
        pytest.skip("no Chromium with its driver: scripts/install-browser installs them")
    driver = start_browser(*programs)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, server: LiveServer) -> Iterator[Page]:
    """The page of a server with the real engine and the built-in model."""
    page = Page(chromium, server.url)
    yield page
    page.leave()


@pytest.fixture
def scripted(chromium: webdriver.Chrome, settings: Settings) -> Iterator[Opened]:
    """Pages of servers whose engine repeats the question, or says what `script` says, with `delay_s` before every
    word and a context of `context_tok`."""
    with ExitStack() as stack:

        def opened(*, script: Sequence[str] = (), delay_s: float = 0.0, context_tok: int = 2048) -> Page:
            def opener(
                load: LoadRequest, _settings: Settings, _progress: Callable[[float], None], _name: str
            ) -> Engine:
                return FakeEngine(replace(load, context_tok=context_tok), delay_s=delay_s, script=script)

            pool = ModelPool(settings, Store(settings), opener=opener)
            live = stack.enter_context(LiveServer(settings, pool=pool))
            page = Page(chromium, live.url)
            stack.callback(page.leave)
            return page

        yield opened
