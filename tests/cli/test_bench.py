"""`bendi bench` as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return (code, *capsys.readouterr())

    return run


def test_a_model_measured_listed_compared_and_exported(bendi: Run, tmp_path: Path) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for out in (a, b):
        code, text, err = bendi(
            "bench", "demo", "--blocks", "5", "--prompt", "32", "--answer", "8", "--out", out, "--json"
        )  # fmt: skip
        assert code == 0, err
        (row,) = json.loads(text)["cells"]
        assert (row["n"], row["check"]) == (5, "ok")
        assert row["tg_tok_s"]["low"] <= row["tg_tok_s"]["median"] <= row["tg_tok_s"]["high"]
        assert len(row["tg_tok_s"]["values"]) == 5
    code, text, err = bendi("bench", "compare", a, b, "--json")
    assert code == 0
    found = json.loads(text)
    assert {row["metric"] for row in found} == {"pp_tok_s", "tg_tok_s"}
    assert all(0 < row["p"] <= row["p_corrected"] <= 1 for row in found)
    code, text, err = bendi("bench", "compare", a, b)
    assert "Holm" in err and "VERDICT" in text
    code, text, err = bendi("bench", "export", a, tmp_path / "a.sqlite3")
    assert code == 0 and (tmp_path / "a.sqlite3").read_bytes().startswith(b"SQLite")


def test_list_and_dry_run(bendi: Run, tmp_path: Path) -> None:
    code, text, err = bendi("bench", "list")
    assert code == 0 and not text and "bendi bench preset" in err
    code, text, err = bendi("bench", "demo", "--dry-run")
    assert code == 0 and "demo" in text and "repeats" in err
    page = tmp_path / "page.html"
    words = ("bench", "model", "demo", "--blocks", "1", "--prompt", "8", "--answer", "2", "--report", page)
    code, text, err = bendi(*words)
    assert code == 0 and "tok/s" in text and str(page) in err
    assert page.read_text("utf-8").lower().startswith("<!doctype html>")
    code, text, err = bendi("bench", "list", "--json")
    (row,) = json.loads(text)
    assert row["complete"] and row["repeats"] == 1
    assert bendi("bench", "compare", "last", row["name"])[0] == 0


def test_presets(bendi: Run) -> None:
    code, names, _err = bendi("bench", "preset")
    assert code == 0 and "quantizations" in names.split()
    code, text, _err = bendi("bench", "preset", "quantizations")
    assert code == 0 and "[[models]]" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("bench", "preset", "nothing"), 3, "quantizations"),
        (("bench", "run", "nothing.toml"), 3, "bendi bench preset"),
        (("bench", "no-such-model"), 3, "bendi"),
        (("bench", "demo", "--blocks", "0"), 2, "--blocks"),
        (("bench", "compare", "nothing", "last"), 3, "bendi bench list"),
        (("bench", "demo", "--out", "r.txt"), 2, "r.jsonl"),
        (("bench",), 2, "ACTION"),
    ],
)
def test_what_cannot_be(bendi: Run, words: tuple[str, ...], code: int, said: str) -> None:
    found, _out, err = bendi(*words)
    assert found == code
    assert said in err


def test_another_study_is_not_mixed_in(bendi: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    assert bendi("bench", "demo", "--blocks", "1", "--prompt", "8", "--answer", "2", "--out", out)[0] == 0
    before = out.read_bytes()
    code, _text, err = bendi("bench", "demo", "--blocks", "2", "--prompt", "8", "--answer", "2", "--out", out)
    assert code == 2 and "another study" in err
    code, _text, err = bendi("bench", "demo", "--blocks", "1", "--prompt", "8", "--answer", "2", "--out", out, "--new")
    assert code == 2 and "exists" in err
    assert out.read_bytes() == before
