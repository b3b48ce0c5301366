"""What models, sessions and files say may be anything: nothing of it runs, opens a window or loads from elsewhere."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Page
from live import LiveServer
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from bendi.chat.sessions import SessionStore
from bendi.messages import Message
from bendi.settings import Settings
from conftest import Opened

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "[click](javascript:alert(1))",
    "[click](  JaVaScRiPt:alert(1))",
    "![x](https://attacker.example/x.png)",
    "![x](data:image/svg+xml,<svg onload=alert(1)>)",
    "<a href='javascript:alert(1)'>x</a>",
    "```html\n<script>alert(1)</script>\n```",
    '```"><img src=x onerror=alert(1)>\nx\n```',
    "$\\text{<img src=x onerror=alert(1)>}$ $\\href{javascript:alert(1)}{x}$",
    "| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |",
    "<style>*{display:none}</style><link rel=stylesheet href=https://attacker.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://attacker.example'>",
    "<form action=https://attacker.example><input name=q></form>",
    'https://attacker.example/"onmouseover=alert(1)//',
    "<details open ontoggle=alert(1)>x</details>",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
    "\u202egnp.exe\u202c \x00 \ufeff",
)
# Elements that nothing but an attack could have made within a conversation.
FOREIGN = "#messages :is(script, iframe, style, link, meta, form, object, embed, img, video, audio, base), [onerror]"


def check_harmless(page: Page) -> None:
    assert page.run(f"return document.querySelectorAll({FOREIGN!r}).length") == 0
    for address in page.run("return [...document.querySelectorAll('#messages a')].map((node) => node.href)"):
        assert address.startswith(("http://", "https://", "mailto:")), address
    for address in page.run("return [...document.querySelectorAll('#messages a')].map((node) => node.rel)"):
        assert "noopener" in address and "noreferrer" in address
    assert not page.problems()


def test_stored_conversations(page: Page, settings: Settings) -> None:
    with closing(SessionStore(settings.sessions_file)) as store:
        session = store.create("demo")
        for attack in ATTACKS:
            store.append(session.id, Message("user", attack))
            store.append(session.id, Message("assistant", attack, reasoning=attack))
        for attack in ATTACKS[:8]:
            other = store.create("demo")
            store.append(other.id, Message("user", "x"))
            store.change(other.id, title=attack)
    page.open(f"/#/s/{session.id}")
    page.wait(lambda: len(page.all("article.answer")) == len(ATTACKS))
    assert "<script>alert(1)</script>" in page.text("#messages")
    assert "<img src=x onerror=alert(1)>" in page.text("#sessions")
    for summary in page.all(".thinking summary")[:3]:
        summary.click()
    check_harmless(page)


def test_answers_as_they_come(scripted: Opened) -> None:
    page = scripted(script=["\n\n".join(ATTACKS).replace("\x00", "")])
    page.open()
    page.ask("Attack me")
    assert "<svg/onload=alert(1)>" in page.answer()
    check_harmless(page)


def test_names_of_models(chromium: webdriver.Chrome, settings: Settings, demo_model: Path, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(demo_model, folder / f"{name}.gguf")
    with LiveServer(replace(settings, models_dirs=(folder,))) as server:
        page = Page(chromium, server.url)
        page.open()
        page.click("#model")
        page.wait_text(".menu", name)
        page.press(Keys.ESCAPE)
        page.click("#models")
        page.wait_text("dialog.models", name)
        check_harmless(page)
        assert not page.all("dialog img, .menu img")
        page.leave()


@pytest.mark.parametrize(
    "address", ["/#/s/<img src=x onerror=alert(1)>", "/#javascript:alert(1)", "/?x=<script>alert(1)</script>"]
)
def test_addresses(page: Page, address: str) -> None:
    page.open(address)
    page.wait(lambda: page.all(".welcome"))
    check_harmless(page)
