"""How the page looks and is used: languages, light and dark, narrow screens, the keyboard alone, screen readers."""

from __future__ import annotations

import pytest
from browser import PHONE, WIDE, Page
from selenium.webdriver.common.keys import Keys

from conftest import Opened

LONG = (
    "# Heading\n\nSome **bold** text, `code` and $x^2$.\n\n```python\n" + "x = " + "1 + " * 80 + "1\n```\n\n"
    "| "
    + " | ".join(f"column {number}" for number in range(12))
    + " |\n|"
    + "---|" * 12
    + "\n|"
    + "value|" * 12
    + "\n\n"
    "$$\n\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}\n$$\n\n" + "unbreakable" * 60
)


@pytest.mark.parametrize(
    ("wish", "tag", "text"),
    [("zh-CN,zh", "zh-CN", "新对话"), ("en-GB", "en", "New conversation"), ("fr-FR", "en", "New conversation")],
)
def test_the_language_of_the_browser(page: Page, wish: str, tag: str, text: str) -> None:
    page.look(language=wish)
    page.open()
    assert page.text("#new") == text
    assert page.run("return document.documentElement.lang") == tag
    assert not page.problems()


def test_the_language_can_be_chosen_and_stays(page: Page) -> None:
    page.open()
    page.ask("What is a KV cache?")
    page.choose("#settings", "中文")
    page.wait_text("#new", "新对话")
    assert page.one("#question").get_attribute("placeholder") == "想问什么都可以，内容不会离开本机。"
    page.driver.refresh()
    page.wait_text("#new", "新对话")
    page.choose("#settings", "English")
    page.wait_text("#new", "New conversation")
    assert not page.problems()


def background(page: Page) -> int:
    """How light it is, 0 to 255."""
    colour = page.run("return getComputedStyle(document.documentElement).backgroundColor")
    return max(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


def test_light_and_dark(page: Page) -> None:
    page.look(theme="dark")
    page.open()
    assert background(page) < 60
    page.choose("#settings", "Light")
    assert background(page) > 200
    page.driver.refresh()
    page.wait(lambda: page.all("body[data-ready]"))
    assert background(page) > 200
    page.choose("#settings", "As the system")
    assert background(page) < 60
    page.look()
    assert background(page) > 200


@pytest.mark.parametrize("size", [PHONE, (768, 1024), WIDE])
def test_nothing_is_wider_than_the_screen(scripted: Opened, size: tuple[int, int]) -> None:
    page = scripted(script=[LONG, LONG])
    page.look(size=size)
    page.open()
    assert not page.wider_than_screen()
    page.write("Show me everything")
    page.click("#send")
    page.wait(lambda: page.all("article.answer:not(.growing)"))
    assert not page.wider_than_screen()
    assert page.run("const box = document.getElementById('talk'); return box.scrollWidth <= box.clientWidth")
    page.click("#panel-button")
    assert not page.wider_than_screen()
    assert not page.problems()


def test_a_phone_has_its_conversations_in_a_drawer(page: Page) -> None:
    page.look(size=PHONE)
    page.open()
    assert page.one("#menu").get_attribute("aria-expanded") != "true"
    page.click("#menu")
    page.wait(lambda: page.one("#new").is_displayed())
    page.click("#new")
    page.wait(lambda: not page.all("#new")[0].is_displayed(), "the drawer to close")
    page.write("one" + Keys.ENTER + "two")
    assert page.one("#question").get_attribute("value") == "one\ntwo"
    assert not page.problems()


def test_the_keyboard_alone(scripted: Opened) -> None:
    page = scripted()
    page.open()
    page.press("first line" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "second line" + Keys.ENTER)
    page.wait_text("article.answer", "second line")
    page.settled()
    page.press(Keys.TAB)
    page.run("document.activeElement.blur()")
    page.press("?")
    page.wait_text("dialog", "Keyboard")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all("dialog"))
    page.run("document.activeElement.blur()")
    page.press("m")
    page.wait(lambda: page.all("dialog.models"))
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all("dialog"))
    page.run("document.activeElement.blur()")
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.F2)
    page.wait(lambda: page.all("dialog input"))
    page.press("By keys" + Keys.ENTER)
    page.wait_text("#title", "By keys")
    page.run("document.activeElement.blur()")
    page.press("n")
    page.wait(lambda: page.all(".welcome"))
    assert page.run("return document.activeElement.id") == "question"
    assert not page.problems()


def test_enter_takes_the_choice_of_an_input_method(scripted: Opened) -> None:
    page = scripted()
    page.open()
    page.write("ben di")
    page.run(
        "document.getElementById('question').dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"
    )
    assert not page.all("article.question")
    assert page.one("#question").get_attribute("value") == "ben di"


def test_screen_readers(scripted: Opened) -> None:
    page = scripted(script=[LONG])
    page.open()
    assert not page.nameless()
    page.ask("Show me everything")
    page.wait_spoken("The answer is complete")
    assert not page.nameless()
    page.click("#models")
    page.wait(lambda: page.all("dialog .card"))
    assert not page.nameless()
    assert page.run("return document.querySelectorAll('main, aside, nav, header, h1').length") >= 5
