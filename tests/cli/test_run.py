"""`bendi run` without a terminal: questions, pipes, JSON, raw text, sessions, refusals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chat_terminal import LAUNCHER, SLOW_ENGINE

from bendi.chat.sessions import SessionStore
from bendi.cli.main import main
from bendi.settings import load_settings
from eyes import IMAGE_TOK, png, write_projector


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Bendi:
    """Runs commands in this process, with the fake engine and standard input from bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.engine = "fake"

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        self._monkeypatch.setenv("BENDI_ENGINE", self.engine)
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        code = main(arguments)
        return Done(code, *self._capsys.readouterr())


@pytest.fixture
def bendi(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bendi:
    return Bendi(monkeypatch, capsys)


def _stored() -> list[list[str]]:
    with contextlib.closing(SessionStore(load_settings().sessions_file)) as store:
        return [[stored.message.content for stored in store.messages(session.id)] for session in store.recent()]


def test_the_answer_is_on_stdout_and_nothing_else(bendi: Bendi) -> None:
    done = bendi("run", "demo", "hi", "there")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("hi therehi there") and done.out.endswith("\n")
    assert _stored() == [["hi there", done.out.rstrip("\n")]]


def test_json_has_text_usage_timings_context_and_session(bendi: Bendi) -> None:
    done = bendi("run", "demo", "什么是量化?", "--json", "--think")
    assert done.code == 0 and done.err == ""
    record = done.json
    assert list(record) == ["model", "text", "reasoning", "finish", "usage", "timings", "context", "session"]
    assert list(record["usage"]) == ["prompt_tok", "completion_tok", "cached_tok"]
    assert list(record["timings"]) == ["load_s", "ttft_s", "pp_tok_s", "tg_tok_s"]
    assert record["model"] == "demo" and record["finish"] == "stop" and record["reasoning"] == "Let me think."
    assert record["context"]["used_tok"] == record["usage"]["prompt_tok"] + record["usage"]["completion_tok"]
    assert record["context"]["available_tok"] == 2048
    assert bendi("session", "show", record["session"], "--json").json["messages"][0]["content"] == "什么是量化?"


@pytest.mark.parametrize(
    ("words", "stdin", "question"),
    [
        ((), "piped 问题\n", "piped 问题"),
        (("sum this up",), "line 1\nline 2\n", "sum this up\n\nline 1\nline 2"),
        (("only", "words"), "", "only words"),
        ((), "windows\r\n", "windows"),
    ],
)
def test_questions_from_a_pipe(bendi: Bendi, words: Sequence[str], stdin: str, question: str) -> None:
    assert bendi("run", "demo", *words, stdin=stdin.encode()).code == 0
    assert _stored()[0][0] == question


def test_old_chinese_files_are_read_and_binary_ones_refused(bendi: Bendi) -> None:
    done = bendi("run", "demo", stdin="什么是量化".encode("gb18030"))
    assert done.code == 0 and "GB18030" in done.err and _stored()[0][0] == "什么是量化"
    done = bendi("run", "demo", stdin=b"\x89PNG\r\n\x1a\n\x00\x00\xff")
    assert done.code == 2 and "not text" in done.err
    assert bendi("run", "demo", stdin=b"\xef\xbb\xbfbyte order mark").code == 0
    assert _stored()[0][0] == "byte order mark"


def test_no_question_is_an_error_that_says_what_to_type(bendi: Bendi) -> None:
    for arguments in (("run", "demo"), ("run", "demo", "--json"), ("run", "demo", "--raw"), ("run",)):
        done = bendi(*arguments)
        assert done.code == 2 and "bendi run" in done.err and done.out == ""


def test_options_may_stand_anywhere(bendi: Bendi) -> None:
    for arguments in (
        ("run", "demo", "--max-tokens", "2", "a b c", "--no-save"),
        ("run", "--max-tokens", "2", "demo", "--no-save", "a b c"),
        ("run", "demo", "a b c", "--no-save", "--max-tokens=2"),
    ):
        assert bendi(*arguments).out == "a b\n"
    assert _stored() == []


def test_nothing_is_kept_with_no_save(bendi: Bendi) -> None:
    assert bendi("run", "demo", "my secret", "--no-save").code == 0
    assert not load_settings().state_dir.exists()


def test_raw_continues_a_text_and_keeps_nothing(bendi: Bendi) -> None:
    done = bendi("run", "demo", "once upon", "--raw", "--max-tokens", "3")
    assert done.out == "once upononce upononce\n" and done.err == ""
    record = bendi("run", "demo", "--raw", "--json", "--max-tokens", "1", stdin=b"from a pipe\n").json
    assert record["text"] == "from" and record["finish"] == "length" and record["session"] is None
    assert not load_settings().state_dir.exists()
    for flags in (("--system", "x"), ("--persona", "concise"), ("--continue",), ("--think",)):
        assert bendi("run", "demo", "x", "--raw", *flags).code == 2


def test_sessions_are_continued(bendi: Bendi) -> None:
    assert bendi("run", "--continue", "hi").code == 3
    first = bendi("run", "demo", "one", "--json", "--temperature", "0").json["session"]
    second = bendi("run", "demo", "two", "--json").json["session"]
    assert bendi("run", "--continue", "and more", "--json").json["session"] == second
    assert bendi("run", "demo", "--continue", "with a model", "--json").json["session"] == second
    assert bendi("run", "--session", first[:6], "back to one", "--json").json["session"] == first
    assert [texts[0::2] for texts in _stored()] == [["one", "back to one"], ["two", "and more", "with a model"]]
    assert bendi("run", "--session", "nothing", "x").code == 3
    assert bendi("run", "--session", first, "--continue", "x").code == 2
    assert bendi("run", "--continue", "--no-save", "x").code == 2
    record = bendi("session", "show", first, "--json").json
    assert record["settings"] == {"set": {"temperature": 0.0}}, "flags stay with the session"


def test_a_context_that_is_too_small_is_refused_and_nothing_is_stored(bendi: Bendi) -> None:
    done = bendi("run", "demo", "word " * 200, "--context", "100")
    assert done.code == 10 and done.out == ""
    assert "200" in done.err or "needs" in done.err
    assert "--context" in done.err and _stored() == []


def test_policies_make_room_and_say_so(bendi: Bendi) -> None:
    for policy in ("slide", "compact"):
        first = ("run", "demo", "first " * 30, "--context", "300", "--max-tokens", "40", "--json")
        session = bendi(*first).json["session"]
        for number in range(4):
            more = ("--session", session, f"question {number} " + "word " * 25, "--context", "300")
            assert bendi("run", *more, "--policy", policy).code == 0
        done = bendi("run", "--session", session, "x " * 120, "--context", "300", "--policy", policy)
        assert done.code == 0 and "The context" in done.err and "session" in done.err
        record = bendi("run", "--session", session, "x " * 120, "--context", "300", "--json").json
        assert record["context"]["left_out"] > 0
        assert len(bendi("session", "show", session, "--json").json["messages"]) >= 14
        assert bendi("run", "--session", session, "x " * 120, "--context", "300", "--policy", "error").code == 10


def test_wrong_values_are_explained(bendi: Bendi, tmp_path: Path) -> None:
    for flags, told in (
        (("--temperature", "hot"), "temperature"),
        (("--top-p", "2"), "0 to 1"),
        (("--max-tokens", "0"), "max_tokens"),
        (("--context", "-5"), "--context"),
        (("--schema", str(tmp_path / "missing.json")), "missing.json"),
        (("--persona", "nobody"), "concise"),
        (("--policy", "drop"), "drop"),
    ):
        done = bendi("run", "demo", "hi", *flags)
        assert done.code in (2, 3) and told in done.err, flags
    (tmp_path / "bad.json").write_text("[1]")
    assert bendi("run", "demo", "hi", "--schema", str(tmp_path / "bad.json")).code == 2


def test_a_schema_constrains_the_answer(bendi: Bendi, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "properties": {"city": {"type": "string"}}}')
    assert json.loads(bendi("run", "demo", "where?", "--schema", str(path)).out) == {"city": "x"}


def test_personas_choose_model_and_words(bendi: Bendi) -> None:
    path = load_settings().personas_file
    path.parent.mkdir(parents=True)
    path.write_text('["诗 人"]\nmodel = "demo"\nsystem = "rhyme"\nmax_tokens = 2\n', "utf-8")
    assert bendi("run", "@诗 人", "a b c").out == "a b\n"
    assert bendi("run", "--persona", "诗 人", stdin=b"a b c").out == "a b\n"
    assert bendi("run", "@concise", "x").code == 2
    path.write_text('["诗 人"]\nmodel = "demo"\nmax_tokens = 1\n', "utf-8")
    assert bendi("run", "--continue", "c d").out == "c\n"


def test_a_damaged_database_is_repaired_and_told(bendi: Bendi) -> None:
    bendi("run", "demo", "before")
    path = load_settings().sessions_file
    path.write_bytes(path.read_bytes()[:3000])
    done = bendi("run", "--continue", "after")
    assert done.code == 0 and "restored" in done.err
    assert [texts[0::2] for texts in _stored()] == [["before", "after"]]


def test_a_pipe_loads_no_terminal_library() -> None:
    code = (
        "import sys; from bendi.cli.main import main; code = main(['run', 'demo', 'hi']); "
        "heavy = {'rich', 'prompt_toolkit', 'tomlkit', 'httpx', 'xllamacpp'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"BENDI_ENGINE": "fake"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def _interrupted(tmp_path: Path, *options: str) -> tuple[str, str]:
    """What was written until Ctrl-C, and what was said then."""
    (tmp_path / "slow_engine.py").write_text(SLOW_ENGINE)
    environment = os.environ | {"BENDI_ENGINE": "slow", "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, "run", "demo", "hello you", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout and child.stderr
        first = child.stdout.read(5)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read()
        told = child.stderr.read().decode()
        assert child.wait() == 130
    answer = (first + rest).decode().rstrip("\n")
    assert 1 <= answer.count("hello") < 30
    return answer, told


def test_ctrl_c_stops_the_answer_and_keeps_it(tmp_path: Path, bendi: Bendi) -> None:
    answer, told = _interrupted(tmp_path)
    assert "kept" in told and _stored() == [["hello you", answer]]
    (session,) = json.loads(bendi("session", "list", "--json").out)
    assert f"bendi run --continue, or --session {session['id']}" in told
    assert bendi("run", "--continue", "and then").code == 0
    assert _stored()[0][:3] == ["hello you", answer, "and then"]


@pytest.mark.parametrize("option", ["--raw", "--no-save"])
def test_what_is_not_kept_is_not_said_to_be(tmp_path: Path, option: str) -> None:
    _answer, told = _interrupted(tmp_path, option)
    assert told.strip() == "Stopped." and _stored() == []


def test_a_reader_that_goes_away_stops_the_answer_quietly(tmp_path: Path) -> None:
    (tmp_path / "slow_engine.py").write_text(SLOW_ENGINE)
    environment = os.environ | {"BENDI_ENGINE": "slow", "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, "run", "demo", "hello you"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout and child.stderr
        child.stdout.read(5)
        child.stdout.close()
        assert child.wait() == 0 and child.stderr.read() == b""
    ((question, answer),) = _stored()
    assert question == "hello you" and answer.count("hello") < 30


def test_a_real_model_continues_a_text(bendi: Bendi, stories_model: Path) -> None:
    bendi.engine = "wheel"
    done = bendi("run", str(stories_model), "Once upon a time", "--raw", "--temperature", "0", "--max-tokens", "30")
    assert done.code == 0 and done.out.startswith(", there was a little girl named Lily.")


def test_the_built_in_model_answers_in_json(bendi: Bendi) -> None:
    bendi.engine = "wheel"
    done = bendi("run", "demo", "什么是量化?", "--json")
    assert done.code == 0
    assert done.json["text"] and done.json["timings"]["load_s"] > 0 and done.json["usage"]["completion_tok"] > 0


# Images


@pytest.fixture
def seeing(demo_model: Path, tmp_path: Path) -> str:
    """A model that sees, by its path."""
    (tmp_path / "seeing.gguf").write_bytes(demo_model.read_bytes())
    write_projector(tmp_path / "mmproj-seeing.gguf", 256, **{"general.name": "bendi demo"})
    return str(tmp_path / "seeing.gguf")


def test_an_image_is_seen_also_when_the_session_is_gone_on_with(bendi: Bendi, seeing: str, tmp_path: Path) -> None:
    bendi.engine = "wheel"
    (tmp_path / "red.png").write_bytes(png(255, 0, 0))
    options = ("--json", "--max-tokens", "2", "--temperature", "0")
    plain = bendi("run", seeing, "What is this?", *options).json
    seen = bendi("run", seeing, "What is this?", "--image", str(tmp_path / "red.png"), *options).json
    assert seen["usage"]["prompt_tok"] >= plain["usage"]["prompt_tok"] + IMAGE_TOK
    again = bendi("run", "--session", seen["session"], "And now?", *options)
    assert again.code == 0, again.err
    assert again.json["usage"]["prompt_tok"] > seen["usage"]["prompt_tok"]
    shown = bendi("session", "export", seen["session"])
    assert "data:image/png;base64," in shown.out
    assert "[an image]" in bendi("session", "show", seen["session"]).out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"no image", "cannot be used"),
        (png(1, 2, 3)[:20], "cannot be used"),
    ],
)
def test_what_is_no_image_is_refused_before_the_model_is_loaded(
    bendi: Bendi, seeing: str, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    refused = bendi("run", seeing, "What is this?", "--image", str(path))
    assert refused.code == 2 and said in refused.err
    assert _stored() == []
    endless = bendi("run", seeing, "What is this?", "--image", "/dev/zero")
    assert endless.code == 2 and "larger than" in endless.err


def test_a_model_without_a_projector_says_where_others_are(bendi: Bendi, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(255, 0, 0))
    refused = bendi("run", "demo", "What is this?", "--image", str(tmp_path / "red.png"))
    assert refused.code == 2 and "cannot see" in refused.err and "bendi fit --for vision" in refused.err
