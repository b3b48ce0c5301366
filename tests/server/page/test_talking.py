"""Talking in the page: asking, stopping, editing, branching, files, a context that is full."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from browser import Page
from live import LiveServer
from selenium.webdriver.common.keys import Keys

from bendi.chat.sessions import SessionStore, StoredMessage
from bendi.settings import Settings
from conftest import Opened


def stored(settings: Settings, session_id: str) -> list[StoredMessage]:
    with closing(SessionStore(settings.sessions_file)) as store:
        return store.messages(session_id)


def test_a_question_is_answered_and_kept(page: Page, server: LiveServer, settings: Settings) -> None:
    page.open()
    assert "local models" in page.text(".welcome")
    answer = page.ask("What is a KV cache?")
    assert "cache" in answer.lower()
    question, reply = stored(settings, page.session_id)
    assert question.message.content == "What is a KV cache?"
    assert re.sub(r"[*`]", "", reply.message.content).split() == answer.split()
    assert "tok/s" in page.text(".answer .figures")
    page.wait_text("#sessions [aria-current]", "What is a KV cache?")
    page.wait_text(".below", "tokens")
    page.wait(lambda: "demo" in page.text("#panel .loaded"), "the model in the live panel")
    assert page.text("#title") == "What is a KV cache?"
    assert not page.problems()


def test_an_answer_that_is_stopped_is_kept(scripted: Opened, settings: Settings) -> None:
    page = scripted(delay_s=0.05)
    page.open()
    page.write(" ".join(f"word{number}" for number in range(200)) + Keys.ENTER)
    page.wait_text("article.growing .writing", "word3")
    page.press(Keys.ESCAPE)
    page.wait_text("article.answer", "Stopped here")
    seen = page.answer()
    page.wait(lambda: stored(settings, page.session_id)[-1].state == "partial", "the stored part")
    assert "word3" in seen and "word150" not in seen
    page.wait(lambda: page.answer().split() == stored(settings, page.session_id)[-1].message.content.split())
    assert not page.problems()


def test_an_answer_goes_on_while_another_conversation_is_looked_at(scripted: Opened) -> None:
    page = scripted(delay_s=0.02)
    page.open()
    page.write(" ".join(f"word{number}" for number in range(100)) + Keys.ENTER)
    page.wait_text("article.growing .writing", "word3")
    first = page.session_id
    page.click("#new")
    page.wait(lambda: page.all(".welcome"))
    page.click(f"#sessions a[data-id='{first}']")
    page.wait_text("article.answer .writing", "word99")
    page.settled()
    assert "Stopped" not in page.text("#messages")
    assert not page.problems()


def test_edit_takes_back_and_branch_keeps_both(scripted: Opened, settings: Settings) -> None:
    page = scripted(script=["one", "two", "three", "four"])
    page.open()
    page.ask("first question")
    page.ask("second question")
    page.write(Keys.ARROW_UP)
    field = page.one(".edit")
    assert field.get_attribute("value") == "second question"
    field.send_keys(" again" + Keys.ENTER)
    page.wait_text("#messages", "second question again")
    page.wait(lambda: page.answer() == "three")
    original = page.session_id
    said = [message.message.content for message in stored(settings, original)]
    assert said == ["first question", "one", "second question again", "three"]

    page.write(Keys.ARROW_UP)
    page.one(".edit").send_keys(Keys.CONTROL + "a")
    page.one(".edit").send_keys("another way")
    page.click(".editing .choices button:nth-child(2)")
    page.wait(lambda: page.session_id != original, "the branch")
    page.wait_text("#messages", "another way")
    page.wait(lambda: page.answer() == "four")
    branch = [message.message.content for message in stored(settings, page.session_id)]
    assert branch == ["first question", "one", "another way", "four"]
    assert [message.message.content for message in stored(settings, original)] == said
    assert not page.problems()


def test_another_answer(scripted: Opened, settings: Settings) -> None:
    page = scripted(script=["one", "two"])
    page.open()
    assert page.ask("Choose") == "one"
    page.click(".answer .actions [aria-label='Answer again']")
    page.wait_text(".answer .writing", "two")
    page.settled()
    assert [message.message.content for message in stored(settings, page.session_id)] == ["Choose", "two"]
    assert not page.problems()


def test_a_reload_in_the_middle_loses_nothing(scripted: Opened, settings: Settings) -> None:
    page = scripted(delay_s=0.05)
    page.open()
    page.write(" ".join(f"word{number}" for number in range(100)) + Keys.ENTER)
    page.wait_text("article.growing .writing", "word5")
    page.driver.refresh()
    page.wait_text("#messages", "word0")
    page.wait(lambda: stored(settings, page.session_id)[-1].state == "partial", "the stored part")
    page.driver.refresh()
    page.wait_text("article.answer", "Stopped here")
    assert "word5" in page.answer()
    assert not page.problems()


def test_a_file_goes_in_whole(scripted: Opened, settings: Settings, tmp_path: Path) -> None:
    text = "```py\nprint('本地')\n```\n<script>alert(1)</script>\n"
    (tmp_path / "notes ```.md").write_text(text, "utf-8")
    (tmp_path / "blob.bin").write_bytes(bytes(range(256)))
    page = scripted()
    page.open()
    page.all("#files")[0].send_keys(f"{tmp_path / 'notes ```.md'}\n{tmp_path / 'blob.bin'}")
    page.wait_text("#toasts", "blob.bin is not a text file")
    page.wait_text(".chip", "notes ```.md")
    page.ask("What is in it?")
    sent = stored(settings, page.session_id)[0].message.content
    assert text in sent
    page.click(".question .file summary")
    assert "alert(1)" in page.text(".question .file pre")
    assert page.text(".question .bubble > p") == "What is in it?"
    assert not page.problems()


def test_a_full_context_is_the_readers_choice(scripted: Opened, settings: Settings) -> None:
    page = scripted(context_tok=256)
    page.open()
    page.ask("alpha " * 40)
    page.write("beta " * 60 + Keys.ENTER)
    page.wait_text(".failure.full", "Nothing was sent, and nothing was cut")
    assert len(stored(settings, page.session_id)) == 2
    assert page.one("#question").get_attribute("value").startswith("beta")
    page.click("[data-policy='slide']")
    page.wait_text(".answer .note", "not sent")
    page.settled()
    assert page.one("#question").get_attribute("value") == ""
    kept = stored(settings, page.session_id)
    assert [message.message.content.split()[0] for message in kept] == ["alpha", "alpha", "beta", "beta"]
    assert not page.problems(statuses=(400,))


def test_a_persona_answers(page: Page, settings: Settings) -> None:
    page.open()
    page.choose("#persona", "concise")
    page.wait_text("#persona", "concise")
    page.ask("What is a KV cache?")
    with closing(SessionStore(settings.sessions_file)) as store:
        assert store.get(page.session_id).persona == "concise"
    assert not page.problems()


def test_errors_say_what_to_do(page: Page, server: LiveServer) -> None:
    page.open()
    page.ask("What is a KV cache?")
    server.__exit__(None, None, None)
    page.write("And now?" + Keys.ENTER)
    page.wait_text(".failure", "bendi serve")
    assert page.one("#question").get_attribute("value") == "And now?"
    assert page.all(".failure button.main")
