"""`bendi session` and `bendi persona`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bendi.chat.sessions import SessionStore
from bendi.cli.main import main
from bendi.messages import Message
from bendi.settings import load_settings


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)

        def run(*arguments: str) -> Done:
            capsys.readouterr()
            return Done(main(arguments), *capsys.readouterr())

        yield run


@pytest.fixture
def ids(clean_environment: Path) -> list[str]:
    """Two sessions; the second was used last."""
    made = []
    with contextlib.closing(SessionStore(load_settings().sessions_file)) as store:
        for question, answer in (("什么是量化?", "减少位数 \x1b[31m"), ("Why is the sky blue?", "Rayleigh scattering")):
            session = store.create("demo")
            store.append(session.id, Message("user", question))
            store.append(session.id, Message("assistant", answer, "a thought"), state="partial")
            made.append(session.id)
    return made


def test_list(bendi: Run, ids: list[str]) -> None:
    done = bendi("session", "list")
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.split()[0] == "ID" and [row.split()[0] for row in rows] == ids[::-1]
    assert [record["id"] for record in bendi("session", "list", "--json", "--limit", "1").json] == [ids[1]]


def test_an_empty_list_says_how_to_begin(bendi: Run) -> None:
    done = bendi("session", "list")
    assert done.code == 0 and "bendi run demo" in done.err and done.out == ""
    assert bendi("session", "list", "--json").json == []


def test_search(bendi: Run, ids: list[str]) -> None:
    assert ids[0] in bendi("session", "search", "量化").out
    (record,) = bendi("session", "search", "rayleigh", "--json").json
    assert record["id"] == ids[1] and record["role"] == "assistant" and "Rayleigh" in record["excerpt"]
    assert bendi("session", "search", "nothing of that").out == ""


def test_show_and_export(bendi: Run, ids: list[str], tmp_path: Path) -> None:
    text = bendi("session", "show", ids[1][:5]).out
    assert "# Why is the sky blue?" in text and "(interrupted)" in text and "a thought" in text
    record = bendi("session", "show", ids[1], "--json").json
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    assert bendi("session", "export", ids[1]).out == text
    assert bendi("session", "export", ids[1], "--json").json == record
    assert bendi("session", "export", ids[1], "--format", "json").json == record
    for name in ("copy.md", "copy.json"):
        assert bendi("session", "export", ids[1], "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / "copy.md").read_text("utf-8") == text
    assert json.loads((tmp_path / "copy.json").read_text("utf-8")) == record
    (tmp_path / "no folder").write_text("a file")
    failed = bendi("session", "export", ids[1], "-o", str(tmp_path / "no folder" / "x.md"))
    assert failed.code not in (0, 1), "explained, not a defect"
    assert bendi("session", "show", "zzzzzzz").code == 3


def test_rename(bendi: Run, ids: list[str]) -> None:
    assert bendi("session", "rename", ids[0], "新标题").code == 0
    assert bendi("session", "show", ids[0], "--json").json["title"] == "新标题"


def test_rm_asks_and_deletes_for_good(bendi: Run, ids: list[str]) -> None:
    done = bendi("session", "rm", ids[1])
    assert done.code == 2 and "--yes" in done.err
    assert len(bendi("session", "list", "--json").json) == 2
    assert bendi("session", "rm", ids[1], "--yes", "--json").json == {"deleted": [ids[1]]}
    for file in load_settings().state_dir.iterdir():
        assert b"Rayleigh" not in file.read_bytes(), file.name
    assert [record["id"] for record in bendi("session", "list", "--json").json] == [ids[0]]
    assert bendi("session", "rm").code == 2
    assert bendi("session", "rm", ids[0], "--all").code == 2
    assert bendi("session", "rm", "--all", "-y").code == 0
    assert bendi("session", "list", "--json").json == []


def test_rm_names_the_files_that_repairs_set_aside(bendi: Run, ids: list[str]) -> None:
    path = load_settings().sessions_file
    path.write_bytes(path.read_bytes()[:2000])
    done = bendi("session", "rm", ids[0], "--yes")
    assert done.code == 0 and "restored" in done.err and done.err.count(".damaged-") == 2


def test_an_unknown_action_is_a_usage_error(bendi: Run) -> None:
    assert bendi("session", "burn").code == 2
    assert bendi("session").code == 2
    assert bendi("persona").code == 2


def test_persona_list_show_path(bendi: Run) -> None:
    assert "翻译" in bendi("persona", "list").out
    path = load_settings().personas_file
    assert bendi("persona", "path").out == f"{path}\n"
    assert bendi("persona", "path", "--json").json == {"path": str(path), "exists": False}
    path.parent.mkdir(parents=True)
    path.write_text('[mine]\nsystem = "short"\ntop_k = 3\n', "utf-8")
    record = bendi("persona", "list", "--json").json[0]
    assert record["name"] == "mine" and record["parameters"] == {"top_k": 3} and record["builtin"] is False
    assert bendi("persona", "show", "mine").out == "name: mine\ntop_k: 3\n\nshort\n"
    assert bendi("persona", "show", "nobody").code == 3
    path.write_text("[mine]\ntop_k = many\n", "utf-8")
    done = bendi("persona", "list")
    assert done.code == 2 and "line 2" in done.err


def test_persona_edit_makes_the_section_and_checks_the_result(tmp_path: Path, bendi: Run) -> None:
    path = load_settings().personas_file
    done = bendi("persona", "edit", "translator")
    assert done.code == 0 and done.out == f"{path}\n" and "EDITOR" in done.err
    assert "professional translator" in path.read_text("utf-8")
    assert bendi("persona", "show", "translator", "--json").json["builtin"] is False
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; open(sys.argv[1], 'a').write('[broken]\\ntop_k = -1\\n')")
    script = (
        "import os, pty, sys\n"
        "code = pty.spawn([sys.executable, '-m', 'bendi', 'persona', 'edit', 'new one'])\n"
        "sys.exit(os.waitstatus_to_exitcode(code))\n"
    )
    environment = os.environ | {"EDITOR": f"{sys.executable} {editor}"}
    done_in_pty = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done_in_pty.returncode == 2 and "top_k" in done_in_pty.stdout
    assert '["new one"]' in path.read_text("utf-8")


def test_editing_with_an_editor_that_does_not_exist(bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "/nonexistent/editor")
    assert bendi("persona", "edit").code == 0  # no terminal: the path is enough
    assert load_settings().personas_file.exists()
