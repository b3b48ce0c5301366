"""The `bendi` command as a user meets it: help, wrong verbs, errors without tracebacks, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bendi.cli import main as cli
from bendi.cli import output


def bendi(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bendi", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_help_lists_every_verb() -> None:
    done = bendi("--help")
    assert done.returncode == 0
    assert all(verb.name in done.stdout for verb in cli.VERBS)
    assert bendi().stdout == done.stdout


@pytest.mark.parametrize("verb", [verb.name for verb in cli.VERBS])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_of_each_verb(verb: str, language: str) -> None:
    done = bendi(verb, "--help", BENDI_LANG=language)
    assert done.returncode == 0, done.stderr
    assert f"bendi {verb}" in done.stdout


def test_version() -> None:
    assert bendi("--version").stdout.startswith("bendi 0.")


def test_unknown_verb_names_the_nearest() -> None:
    done = bendi("rnu", "demo")
    assert done.returncode == 2
    assert "bendi run" in done.stderr
    assert bendi("xyzzy").returncode == 2


def test_unknown_option() -> None:
    done = bendi("run", "demo", "--no-such-option")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("language", ["en", "zh"])
def test_unknown_model_says_what_to_type(language: str) -> None:
    done = bendi("run", "no-such-model", "hi", BENDI_LANG=language)
    assert done.returncode == 3
    assert "no-such-model" in done.stderr
    assert "bendi " in done.stderr.splitlines()[-1], "the last line is a command"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_defect_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_name: str, _arguments: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "_run_verb", broken)
    assert cli.main(["list"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    details = Path(said.split("details are in ")[1].split(";")[0])
    assert "ZeroDivisionError" in details.read_text()
    details.unlink()


def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m bendi --help | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_interrupt_exits_with_130() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bendi", "run", "demo"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        time.sleep(1.0)  # it waits for the question that a pipe would bring
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "Traceback" not in said


def test_table_aligns_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "size"], [["模型", "1"], ["model", "22"]], right=frozenset({1}))
    lines = capsys.readouterr().out.splitlines()
    assert {output.cell_width(line) for line in lines} == {output.cell_width(lines[0])}


def test_confirm_takes_the_default_without_a_terminal() -> None:
    assert output.confirm("sure?", default=True) is True
    assert output.confirm("sure?") is False
