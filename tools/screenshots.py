"""Takes the pictures of the web page in docs/screenshots: real servers, real answers of the built-in model.

    .venv/bin/python tools/screenshots.py [NAME ...]

Needs Chromium and its driver (scripts/install-browser). Uses a home of its own: no conversation of yours is shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "server"), str(ROOT / "tests" / "server" / "page")]

from browser import PHONE, Page, find_programs, start_browser  # noqa: E402
from live import LiveServer  # noqa: E402

from bendi.chat.sessions import SessionStore  # noqa: E402
from bendi.messages import Message  # noqa: E402
from bendi.settings import Settings, load_settings  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
DESKTOP = (1440, 900)
LARGEST_BYTES = 300_000
SAMPLE = ROOT / "tools" / "screenshots_sample.md"


def talk(page: Page) -> None:
    page.look(DESKTOP)
    page.open()
    page.ask("Why does memory bandwidth decide the speed?")
    page.ask("What is a KV cache?")


def talk_in_chinese(page: Page) -> None:
    page.look(DESKTOP, language="zh-CN", theme="dark")
    page.open()
    page.ask("什么是量化?")
    page.ask("什么是 KV 缓存?")


def writing(page: Page) -> None:
    page.look(DESKTOP)
    page.open()
    page.wait(lambda: page.all("#sessions a"))
    page.wait(lambda: [link for link in page.all("#sessions a") if link.text.startswith("How does")])[0].click()
    page.wait_text("#messages", "half-open")
    page.run("document.getElementById('talk').scrollTop = 0")


def models(page: Page) -> None:
    page.look(DESKTOP)
    page.open()
    page.click("#models")
    page.wait(lambda: page.all("dialog .card.best"))


def full_context(page: Page) -> None:
    page.look(DESKTOP)
    page.open()
    page.ask("What is quantization?")
    page.run("const field = document.getElementById('question'); field.value = 'What is MoE? '.repeat(355)")
    page.write("?")
    page.click("#send")
    page.wait_text(".failure.full", "Nothing was sent")
    page.run("document.getElementById('question').value = ''")
    page.run("document.getElementById('question').dispatchEvent(new Event('input'))")


def phone(page: Page) -> None:
    page.look(PHONE, language="zh-CN")
    page.open()
    page.write("什么是量化?")
    page.click("#send")
    page.wait(lambda: page.all("article.answer:not(.growing)"))


def phone_empty(page: Page) -> None:
    page.look(PHONE, theme="dark")
    page.open()


PICTURES: dict[str, Callable[[Page], None]] = {
    "talk": talk,
    "talk-zh-dark": talk_in_chinese,
    "writing": writing,
    "models": models,
    "full-context": full_context,
    "phone": phone,
    "phone-dark": phone_empty,
}


def prepared_home() -> Settings:
    """Settings of an empty home, with a conversation in it that has everything an answer may have."""
    home = tempfile.mkdtemp(prefix="bendi-screenshots-")
    for name in [name for name in os.environ if name.startswith(("BENDI_", "XDG_", "HF_", "OLLAMA_"))]:
        del os.environ[name]
    os.environ["HOME"] = home
    settings = replace(load_settings(), language="en")
    with closing(SessionStore(settings.sessions_file)) as store:
        session = store.create("demo")
        store.append(session.id, Message("user", "How does binary search work, and what does it cost?"))
        store.append(session.id, Message("assistant", SAMPLE.read_text("utf-8")))
    return settings


def main(names: list[str]) -> int:
    programs = find_programs()
    if programs is None:
        print("No Chromium with its driver: scripts/install-browser installs them.", file=sys.stderr)
        return 1
    settings = prepared_home()
    FOLDER.mkdir(parents=True, exist_ok=True)
    driver = start_browser(*programs)
    try:
        with LiveServer(settings) as server:
            for name in names or list(PICTURES):
                page = Page(driver, server.url)
                PICTURES[name](page)
                page.wait(lambda: True)
                target = FOLDER / f"{name}.png"
                target.write_bytes(driver.get_screenshot_as_png())
                size = target.stat().st_size
                print(f"{target.relative_to(ROOT)}: {size:,} bytes")
                assert size < LARGEST_BYTES, f"{target} is too large for the repository"
    finally:
        driver.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
