"""Images in the page: attached, shown to a model that sees, kept with the conversation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Page
from live import LiveServer
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from bendi.chat.sessions import SessionStore
from bendi.settings import Settings
from eyes import png, write_projector

DEMO_LENGTH = 256
RED = png(255, 0, 0)


@pytest.fixture
def seeing(
    chromium: webdriver.Chrome, settings: Settings, demo_model: Path, tmp_path: Path
) -> Iterator[tuple[Page, Settings]]:
    """The page of a server whose only model sees."""
    folder = tmp_path / "seeing-models"
    folder.mkdir()
    (folder / "seeing.gguf").write_bytes(demo_model.read_bytes())
    write_projector(folder / "mmproj-seeing.gguf", DEMO_LENGTH, **{"general.name": "bendi demo"})
    own = replace(settings, models_dirs=(folder,), engine="wheel")
    with LiveServer(own) as live:
        page = Page(chromium, live.url)
        yield page, own
        page.leave()


def images_of(settings: Settings, session_id: str) -> list[tuple[bytes, ...]]:
    with closing(SessionStore(settings.sessions_file)) as store:
        return [store.images(stored) for stored in store.messages(session_id) if stored.message.role == "user"]


def attach(page: Page, path: Path) -> None:
    page.all("#files")[0].send_keys(str(path))


def shown(page: Page) -> list[int]:
    """How wide the images of the conversation are, once they are there."""
    script = "return [...document.querySelectorAll('.question .image img')].map((image) => image.naturalWidth)"
    return page.wait(lambda: [width for width in page.run(script) if width], "an image")


def test_an_image_is_shown_to_the_model_and_kept(seeing: tuple[Page, Settings], tmp_path: Path) -> None:
    page, settings = seeing
    (tmp_path / "red.png").write_bytes(RED)
    page.open()
    page.choose("#model", "seeing")
    attach(page, tmp_path / "red.png")
    page.wait_text(".chip", "16 × 16")
    page.ask("What is this?")
    assert shown(page) == [16]
    session_id = page.session_id
    assert images_of(settings, session_id) == [(RED,)]
    page.open(f"/#/s/{session_id}")
    assert shown(page) == [16], "after a reload it comes from the server"
    page.click(".question .image")
    assert not page.all(".question .image img.small")
    assert not page.problems()
    assert not page.nameless()


def test_an_edited_question_keeps_its_image_and_so_does_a_branch(seeing: tuple[Page, Settings], tmp_path: Path) -> None:
    page, settings = seeing
    (tmp_path / "red.png").write_bytes(RED)
    page.open()
    page.choose("#model", "seeing")
    attach(page, tmp_path / "red.png")
    page.ask("What is this?")
    page.open(f"/#/s/{page.session_id}")
    page.write(Keys.ARROW_UP)
    page.one("textarea.edit").send_keys(" Say it briefly." + Keys.ENTER)
    page.wait_text(".question .bubble", "briefly")
    page.settled()
    assert images_of(settings, page.session_id) == [(RED,)]
    assert not page.problems()
    for path in settings.sessions_file.parent.rglob("*-images/*/*"):
        path.unlink()
    page.open(f"/#/s/{page.session_id}")
    page.wait_text(".question", "This image is lost")
    page.write(Keys.ARROW_UP)
    page.one("textarea.edit").send_keys(" Without it." + Keys.ENTER)
    page.wait_text(".question .bubble", "Without it")
    page.settled()
    assert images_of(settings, page.session_id) == [()]


def test_what_engines_do_not_read_is_drawn_anew(seeing: tuple[Page, Settings], tmp_path: Path) -> None:
    page, settings = seeing
    (tmp_path / "broken.png").write_bytes(RED[:20])
    page.open()
    page.choose("#model", "seeing")
    attach(page, tmp_path / "broken.png")
    page.wait_text("#toasts", "broken.png cannot be read as an image")
    page.run(_ATTACH_WEBP)
    page.wait_text(".chip", "40 × 20")
    page.ask("What is this?")
    ((image,),) = images_of(settings, page.session_id)
    assert image.startswith(b"\xff\xd8\xff"), "JPEG"
    assert not page.problems()


_ATTACH_WEBP = """
const canvas = new OffscreenCanvas(40, 20);
canvas.getContext("2d").fillRect(0, 0, 20, 20);
canvas.convertToBlob({ type: "image/webp" }).then((blob) => {
  const files = new DataTransfer();
  files.items.add(new File([blob], "half.webp", { type: "image/webp" }));
  const chooser = document.getElementById("files");
  chooser.files = files.files;
  chooser.dispatchEvent(new Event("change"));
});
"""


def test_a_model_that_sees_nothing_gives_the_image_back(page: Page, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    page.open()
    attach(page, tmp_path / "red.png")
    page.write("What is this?" + Keys.ENTER)
    page.wait_text(".failure", "cannot see images")
    page.wait_text(".chip", "red.png")
    assert page.one("#question").get_attribute("value") == "What is this?"
    page.click(".chip button")
    assert "cache" in page.ask(" What is a KV cache?").lower()
    assert images_of(settings, page.session_id) == [()]
    assert not page.problems(statuses=(400,))
