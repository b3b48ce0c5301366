"""`bendi report` as people type it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.cli.main import main

Run = Callable[..., tuple[int, str, str]]
STUDY = """
title = "Prices <b>and</b> power"
[[models]]
name = "demo"
[[engines]]
label = "bendi"
build = "wheel"
[[workloads]]
prompt_tok = 16
answer_tok = 64
[care]
blocks = 2
warm_up_most = 2
idle_s = 0
[energy]
hardware = false
declared_w = 50
[cost]
currency = "EUR"
price_per_kwh = 0.3
"""


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def results(bendi: Run, tmp_path: Path) -> Path:
    (tmp_path / "s.toml").write_text(STUDY)
    code, _out, err = bendi("bench", "run", tmp_path / "s.toml", "--out", tmp_path / "r.jsonl")
    assert code == 0, err
    return tmp_path / "r.jsonl"


def test_every_form(bendi: Run, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _err = bendi("report", results)
    assert code == 0 and out.strip() == "r.html"
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Prices &lt;b&gt;and&lt;/b&gt; power" in page and "<b>and" not in page
    assert "EUR" in page and "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    for kind in ("md", "csv", "repeats", "text"):
        code, out, _err = bendi("report", results, "--format", kind)
        # What is the same everywhere is not repeated in the terminal: the name of the only model.
        assert code == 0 and ("Q8_0" if kind == "text" else "demo") in out
    code, out, _err = bendi("report", results, "--style", "paper")
    assert code == 0 and "Wh" in out
    for kind in ("svg", "png"):
        code, out, _err = bendi("report", results, "--format", kind, "--out", tmp_path / kind)
        files = [Path(line) for line in out.split("\n") if line]
        assert code == 0 and files and all(each.stat().st_size > 1000 for each in files)
    code, out, _err = bendi("report", results, "--out", tmp_path / "r.csv")
    assert code == 0 and (tmp_path / "r.csv").read_text().startswith("study,")
    code, out, _err = bendi("report", results, "--cloud", "gpt-5-mini", "--price-per-kwh", "0.5", "--format", "md")
    assert code == 0 and "gpt-5-mini" in out


def test_what_cannot_be(bendi: Run, results: Path) -> None:
    for words, code, said in (
        (("report", "nothing"), 3, "bendi bench list"),
        (("report", results, "--baseline", "none"), 2, "bendi"),
        (("report", results, "--cloud", "none"), 2, "gpt-5"),
        (("report", results, "--price-per-kwh", "-1"), 2, "--price-per-kwh"),
        (
            ("bench", "run", results.with_name("s.toml"), "--out", results.with_name("n.jsonl"), "--require-power"),
            0,
            "",
        ),
    ):
        found, _out, err = bendi(*words)
        assert found == code and said in err


def test_power_is_required_and_missing(bendi: Run, tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(STUDY.replace("declared_w = 50\n", ""))
    code, _out, err = bendi("bench", "run", study, "--out", tmp_path / "r.jsonl", "--require-power")
    assert code == 2 and "plug_url" in err
    assert not (tmp_path / "r.jsonl").exists()


def test_prompts_alone_have_a_cost_too(bendi: Run, tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(STUDY.replace("prompt_tok = 16\nanswer_tok = 64", "prompt_tok = 64\nanswer_tok = 4"))
    assert bendi("bench", "run", study, "--out", tmp_path / "r.jsonl")[0] == 0
    code, out, _err = bendi("report", tmp_path / "r.jsonl", "--format", "md")
    assert code == 0 and "EUR per 1000 requests" in out and "have no price of their own here" in out
    study.write_text(STUDY.replace("declared_w = 50\n", ""))
    assert bendi("bench", "run", study, "--out", tmp_path / "n.jsonl")[0] == 0
    code, out, _err = bendi("report", tmp_path / "n.jsonl", "--format", "text")
    assert code == 0 and "There is no cost: No energy was measured." in " ".join(out.split())
