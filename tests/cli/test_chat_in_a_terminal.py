"""The interactive chat on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_terminal import Terminal

from bendi.chat.sessions import SessionStore, StoredMessage
from bendi.settings import load_settings
from eyes import png, write_projector

PROMPT = r"\n>"
DONE = r"TTFT[^\n]*\n>"

Open = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path, clean_environment: Path) -> Open:
    def make(*arguments: str, engine: str = "fake") -> Terminal:
        environment = os.environ | {"BENDI_ENGINE": engine}
        return Terminal(["run", *arguments], environment, tmp_path)

    return make


def _messages() -> list[StoredMessage]:
    with contextlib.closing(SessionStore(load_settings().sessions_file)) as store:
        return store.messages(store.recent(1)[0].id)


def _contents() -> list[str]:
    return [stored.message.content for stored in _messages()]


def test_a_whole_conversation(terminal: Open) -> None:
    with terminal("demo") as chat:
        chat.wait_for(PROMPT)
        chat.type("first question\r")
        shown = chat.wait_for(DONE)
        assert "context" in shown and "PP" in shown and "TG" in shown
        chat.type("/tokens\r")
        assert "of 2048 tokens" in chat.wait_for(r"kept free[^\n]*\n>")
        chat.type("second question\r")
        chat.wait_for(DONE)
        chat.type("/retry\r")
        chat.wait_for(DONE)
        chat.type("/undo\r")
        chat.wait_for(r"taken back.*second question")  # offered again for changing
        chat.type(" changed\r")
        chat.wait_for(DONE)
        chat.type("/nonsense\r")
        chat.wait_for(r"there is no command /nonsense.*\n>")
        chat.type("/quit\r")
        assert chat.wait_for_end() == 0
    assert _contents()[0::2] == ["first question", "second question changed"]
    with terminal("--continue") as chat:
        chat.wait_for(r"Continuing: first question.*second question changed.*\n>")
        chat.type("third\r")
        chat.wait_for(DONE)
        chat.type("\x04")
        chat.wait_for("bendi run --continue")
        assert chat.wait_for_end() == 0
    assert _contents()[0::2] == ["first question", "second question changed", "third"]


def test_ctrl_c_stops_the_answer_not_the_program(terminal: Open) -> None:
    with terminal("demo", engine="slow") as chat:
        chat.wait_for(PROMPT)
        chat.type("hello you\r")
        chat.wait_for(r"youhello you")
        chat.type("\x03")
        chat.wait_for(r"Stopped; what was written is kept\..*\n>")
        chat.type("half a line\x03")  # at the prompt it clears the line
        chat.type("and you\r")
        chat.wait_for(r"youand you")
        chat.type("\x03")
        chat.wait_for(r"kept\..*\n>")
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    question, answer, second, _answer = _messages()
    assert (question.message.content, second.message.content) == ("hello you", "and you")
    assert answer.state == "partial" and 1 < answer.message.content.count("hello") < 30


def test_kill_9_in_the_middle_of_an_answer_loses_no_session(terminal: Open) -> None:
    with terminal("demo", engine="slow") as chat:
        chat.wait_for(PROMPT)
        chat.type("remember me\r")
        chat.wait_for(r"meremember")
        os.kill(chat.pid, signal.SIGKILL)
        assert chat.wait_for_end() == -9
    assert _contents()[0] == "remember me"
    with terminal("--continue") as chat:
        assert "damaged" not in chat.wait_for(r"Continuing: remember me.*\n>")
        chat.type("/retry\r")
        chat.wait_for(DONE)
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    assert len(_contents()) == 2


def test_several_lines_are_one_message(terminal: Open) -> None:
    with terminal("demo") as chat:
        chat.wait_for(PROMPT)
        chat.type("one\\\rtwo\r")
        chat.wait_for(DONE)
        chat.type('"""\rthree\r\rfour"""\r')
        chat.wait_for(DONE)
        chat.type("five\x1b\rsix\r")
        chat.wait_for(DONE)
        chat.type("\x1b[200~pasted\nlines\x1b[201~\r")
        chat.wait_for(DONE)
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    assert _contents()[0::2] == ["one\ntwo", "three\n\nfour", "five\nsix", "pasted\nlines"]


def test_a_full_context_is_asked_about(terminal: Open) -> None:
    with terminal("demo", "--context", "200", "--max-tokens", "20") as chat:
        chat.wait_for(PROMPT)
        for number in range(2):
            chat.type(f"question {number} {'word ' * 40}\r")
            chat.wait_for(DONE)
        long = f"question 2 {'word ' * 40}"
        chat.type(f"{long}\r")
        chat.wait_for(r"context has 200.*Nothing was\s+cut.*\[c\]ompact")
        chat.type("n\r")
        chat.wait_for(r"--policy compact.*question 2")  # refused, and offered again
        chat.type("\r")
        chat.wait_for(r"\[s\]lide")
        chat.type("s\r")
        assert "not sent to the model" in chat.wait_for(DONE)
        chat.type("/set policy compact\r")
        chat.wait_for(r"next message on.*\n>")
        chat.type(f"{'more ' * 40}\r")
        assert "replaced by a summary" in chat.wait_for(DONE)
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    turns = [stored for stored in _messages() if stored.kind == "turn"]
    assert len(turns) == 8 and sum(stored.kind == "summary" for stored in _messages()) == 1


def test_settings_personas_and_thinking(terminal: Open, tmp_path: Path) -> None:
    with terminal("demo") as chat:
        chat.wait_for(PROMPT)
        for command, told in (
            ("/help", "/persona"),
            ("/system be brief", "next message"),
            ("/system", "be brief"),
            ("/set max_tokens 8", "next message"),
            ("/set max-tokens", "max_tokens = 8"),
            ("/set temperature hot", "temperature cannot be"),
            ("/set", "context_policy"),
            ("/persona save mine", "personas.toml"),
            ("/persona", r"\* mine"),
            ("/persona none", "No persona"),
            ("/persona nobody", "no persona 'nobody'"),
            ("/set think on", "next message"),
        ):
            chat.type(command + "\r")
            chat.wait_for(f"{told}.*{PROMPT}")
        chat.type("why?\r")
        chat.wait_for(r"thought for 3 tokens.*" + DONE)
        chat.type("/thinking\r")
        chat.wait_for(rf"Let me think.*shown in full.*{PROMPT}")
        chat.type("why?\r")
        chat.wait_for(r"Let me think.*" + DONE)
        chat.type("/title a good talk\r")
        chat.wait_for(rf"a good talk{PROMPT}")
        chat.type(f"/save {tmp_path}/copy.md\r")
        chat.wait_for(rf"Saved in.*{PROMPT}")
        chat.type("/new\r")
        chat.wait_for(rf"new session begins.*{PROMPT}")
        chat.type("/quit\r")
        assert chat.wait_for_end() == 0
    assert "# a good talk" in (tmp_path / "copy.md").read_text("utf-8")
    assert 'system = "be brief"\nmax_tokens = 8\n' in load_settings().personas_file.read_text("utf-8")


def test_commands_and_earlier_questions_are_completed(terminal: Open) -> None:
    with terminal("demo") as chat:
        chat.wait_for(PROMPT)
        chat.type("an old question\r")
        chat.wait_for(DONE)
        chat.type("/tok")
        chat.wait_for("/tokens")  # the menu
        chat.type("\t")
        chat.wait_for("ens")
        chat.type("\r")
        chat.wait_for(r"kept free.*\n>")
        chat.type("/tok\r")  # the beginning is enough
        chat.wait_for(r"kept free.*\n>")
        chat.type("/t\r")
        chat.wait_for(r"/tokens, /thinking, /title.*\n>")
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    with terminal("demo") as chat:
        chat.wait_for(PROMPT)
        chat.type("\x1b[A\r")  # arrow up: from the session of another run
        chat.wait_for(DONE)
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    assert _contents()[0] == "an old question"


def test_nothing_is_kept_with_no_save(terminal: Open) -> None:
    with terminal("demo", "--no-save") as chat:
        chat.wait_for(rf"Nothing of this conversation is kept.*{PROMPT}")
        chat.type("a secret\r")
        chat.wait_for(DONE)
        chat.type("/save\r")
        chat.wait_for(rf"not kept.*{PROMPT}")
        chat.type("\x04")
        assert chat.wait_for_end() == 0
    assert not load_settings().state_dir.exists()


def test_one_question_on_a_terminal_is_rendered(terminal: Open) -> None:
    with terminal("demo", "some **bold** text", "--max-tokens", "3") as chat:
        chat.wait_for("some bold text")
        assert chat.wait_for_end() == 0


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    environment = os.environ | {"BENDI_ENGINE": "slow"}
    with Terminal(["run", "demo"], environment, tmp_path, term="dumb") as chat:
        chat.wait_for(">>> ")
        chat.type("plain\\\nwords\n")
        chat.wait_for(r"\.\.\. .*plain\nwordsplain\n")
        chat.type("\x03")
        chat.wait_for(r"kept\..*>>> ")
        chat.type("/tokens\n")
        chat.wait_for(r"kept free.*>>> ")
        chat.type("\x04")
        assert chat.wait_for_end() == 0
        assert "\x1b" not in chat.seen
    assert _contents()[0] == "plain\nwords"


def test_an_image_goes_with_the_next_question_and_comes_back_with_undo(
    terminal: Open, demo_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "seeing.gguf").write_bytes(demo_model.read_bytes())
    write_projector(tmp_path / "mmproj-seeing.gguf", 256, **{"general.name": "bendi demo"})
    (tmp_path / "red.png").write_bytes(png(255, 0, 0))
    with terminal(str(tmp_path / "seeing.gguf"), "--max-tokens", "4", engine="wheel") as chat:
        chat.wait_for(PROMPT)
        chat.type("/image none.png\r")
        chat.wait_for(r"cannot be read.*none.png")
        chat.type("\x15/image red.png\r")
        chat.wait_for(r"shows 1 image\..*\n>")
        chat.type("What is this?\r")
        chat.wait_for(DONE)
        chat.type("/image\r")
        chat.wait_for(r"shows no image\..*\n>")
        chat.type("/undo\r")
        chat.wait_for(r"taken back.*What is this")
        chat.type(" Tell me\r")
        chat.wait_for(DONE)
    question = _messages()[0]
    assert question.message.content == "What is this? Tell me"
    with contextlib.closing(SessionStore(load_settings().sessions_file)) as store:
        assert store.images(question) == (png(255, 0, 0),)
