"""`bendi bench` as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.bench.journal import read_results
from bendi.cli.bench import preset_text
from bendi.cli.main import main
from plug_server import Plug, one, shelly2

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
            "bench", "demo", "--blocks", "5", "--prompt", "32", "--answer", "192", "--out", out, "--json"
        )  # fmt: skip
        assert code == 0, err
        (row,) = json.loads(text)["cells"]
        assert (row["n"], row["check"]) == (5, "ok")
        assert row["tg_tok_s"]["low"] <= row["tg_tok_s"]["median"] <= row["tg_tok_s"]["high"]
        told = [each.tg_tok_s for each in read_results(out).repeats if each.tg_tok_s]
        assert sorted(row["tg_tok_s"]["values"]) == sorted(told) and len(told) >= 3, "few found nearly all at once"
    code, text, err = bendi("bench", "compare", a, b, "--json")
    assert code == 0
    told = json.loads(text)
    assert told["changes"] == [] or {each["where"] for each in told["changes"]} <= {"disturbed"}
    assert told["only_a"] == told["only_b"] == []
    found = told["compared"]
    assert {row["metric"] for row in found} == {"pp_tok_s", "tg_tok_s"}
    assert all(0 < row["p"] <= row["p_corrected"] <= 1 for row in found)
    code, text, err = bendi("bench", "compare", a, b)
    assert "Holm" in err and "four of five" in err
    assert text.index("WHAT DIFFERS") < text.index("VERDICT") < text.index("from ")
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


STUDY = """
title = "small"
[[models]]
name = "demo"
[[engines]]
label = "{label}"
build = "wheel"
{settings}
[[workloads]]
prompt_tok = 32
answer_tok = 192
[care]
blocks = {blocks}
warm_up_most = 2
check = false
[energy]
hardware = false
declared_w = {watts}
"""


def test_what_is_different_is_told_before_the_numbers(bendi: Run, tmp_path: Path) -> None:
    results = []
    for name, label, settings, blocks, watts in (
        ("a", "one", "", 3, 40), ("b", "two", "settings = { threads = 1 }", 2, 50), ("c", "one", "", 3, 40),
    ):  # fmt: skip
        study = tmp_path / f"{name}.toml"
        study.write_text(STUDY.format(label=label, settings=settings, blocks=blocks, watts=watts))
        results.append(tmp_path / f"{name}.jsonl")
        code, _text, err = bendi("bench", "run", study, "--out", results[-1])
        assert code == 0, err
    a, b, c = results
    code, text, err = bendi("bench", "compare", a, b)
    assert code == 0
    changes, numbers = text.split("MODEL", 1)
    for said in ("one → two: threads", "study file: care.blocks", "study file: energy.declared_w"):
        assert said in changes
    assert "one → two" in numbers and "– → threads=1" in numbers and "3 / 2" in numbers
    # Three and two repeats of three metrics: not even the clearest result would be beyond chance.
    assert "J/token, declared wall" in numbers
    assert "--blocks 5" in err and "beyond chance after that correction" in err
    told = json.loads(bendi("bench", "compare", a, b, "--json")[1])
    assert {"asked.one → two.threads", "study.care.blocks", "study.energy.declared_w"} <= {
        each["where"] for each in told["changes"]
    }
    assert {each["metric"] for each in told["compared"]} == {"pp_tok_s", "tg_tok_s", "gross_j_tok"}
    told = json.loads(bendi("bench", "compare", a, c, "--json")[1])
    assert {each["where"] for each in told["changes"]} <= {"disturbed"}
    # Another machine, another model file and another build are told, too.
    first, *rest = c.read_text().splitlines()
    facts = json.loads(first)
    facts["machine"]["cpu"] |= {"model": "Another CPU", "isa": [*facts["machine"]["cpu"]["isa"], "amx_int8"]}
    facts["machine"]["memory"]["available_bytes"] += 1
    rest = [line.replace('"build": "', '"build": "other ').replace('"model_sha256": "', '"model_sha256": "ffff')
            for line in rest]  # fmt: skip
    c.write_text("\n".join([json.dumps(facts), *rest, ""]))
    told = json.loads(bendi("bench", "compare", a, c, "--json")[1])
    by_name = {each["where"]: each for each in told["changes"] if each["where"] != "disturbed"}
    assert set(by_name) == {"machine.cpu.model", "machine.cpu.isa", "build.one", "model.demo Q8_0"}
    assert by_name["machine.cpu.model"]["b"] == "Another CPU" and by_name["machine.cpu.isa"]["b"] == '["amx_int8"]'
    assert by_name["model.demo Q8_0"]["b"].startswith("ffff")


def test_what_only_one_study_has(bendi: Run, tmp_path: Path) -> None:
    for name, prompt in (("a", 16), ("b", 24)):
        words = ("bench", "demo", "--blocks", "1", "--prompt", str(prompt), "--answer", "2", "--out")
        assert bendi(*words, tmp_path / f"{name}.jsonl")[0] == 0
    code, text, err = bendi("bench", "compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert code == 1 and "begun" in text
    assert "Only in A: demo Q8_0 bendi 16+2" in err and "Only in B: demo Q8_0 bendi 24+2" in err


def test_a_dry_run_knows_how_long_other_workloads_take(bendi: Run, tmp_path: Path) -> None:
    """Conversations and answers at once are no predictions that are checked later, but their time is known."""
    study = tmp_path / "s.toml"
    work = '[[workloads]]\nname = "talk"\nprompt_tok = 64\nanswer_tok = 16\nturns = {turns}\n[care]\nblocks = 2\n'
    seconds = {}
    for turns, at_once in ((1, 1), (4, 1), (1, 8)):
        study.write_text(f'concurrency = [{at_once}]\n[[models]]\nname = "demo"\n' + work.format(turns=turns))
        told = json.loads(bendi("bench", "run", study, "--dry-run", "--json")[1])
        (cell,) = told["cells"]
        assert (cell["prediction"] is not None) is ((turns, at_once) == (1, 1))
        seconds[turns, at_once] = told["predicted_s"]
    assert seconds[1, 1] < seconds[4, 1] < 30 and seconds[1, 1] < seconds[1, 8] < 30


def test_an_idle_time_that_is_too_short_says_why(bendi: Run, tmp_path: Path) -> None:
    with Plug(one("/rpc/Switch.GetStatus?id=0", shelly2(30.0, 1.0))) as plug:
        study = tmp_path / "s.toml"
        text = STUDY.format(label="e", settings="", blocks=1, watts=40)
        study.write_text(text + f'plug_url = "{plug.url}"\n')
        _code, _text, err = bendi("bench", "run", study, "--dry-run")
        assert "nothing runs for 12 s" in err and "too short" not in err
        study.write_text(text.replace("[care]", "[care]\nidle_s = 0.5") + f'plug_url = "{plug.url}"\n')
        _code, _text, err = bendi("bench", "run", study, "--dry-run")
        assert "idle_s = 0.5 is too short for the meter plug" in err and "needs 10 s" in err
        out = tmp_path / "r.jsonl"
        code, _text, err = bendi("bench", "run", study, "--out", out)
        assert code == 0 and "idle_s = 0.5 is too short" in err


@pytest.mark.parametrize("name", ["concurrency", "depth"])
def test_presets_as_they_are_but_small(bendi: Run, name: str, tmp_path: Path) -> None:
    """With the built-in model: every cell has its repeat, and the cache does what the preset is about."""
    text = preset_text(name)
    for large, small in (
        ('name = "qwen2.5:0.5b"\nshape = true\nquantizations = ["Q4_K_M"]', 'name = "demo"'),
        ("depth_tok = 2048", "depth_tok = 256"), ("depth_tok = 8192", "depth_tok = 1024"),
        ("answer_tok = 64", "answer_tok = 16"), ("blocks = 5", "blocks = 1\nwarm_up_most = 2"),
    ):  # fmt: skip
        text = text.replace(large, small)
    study, out = tmp_path / "s.toml", tmp_path / "r.jsonl"
    study.write_text(text)
    code, _text, err = bendi("bench", "run", study, "--out", out, "--report", tmp_path / "page.html")
    assert code == 0, err
    results = read_results(out)
    assert len(results.repeats) == len(results.facts.cells) == 6 and not results.failures
    for repeat in results.repeats:
        cell = results.cells[repeat.cell]
        cached = [answer.cached_tok or 0 for answer in repeat.answers]
        assert len(cached) == cell.concurrency
        kept = cell.workload.depth_tok or (100 if cell.cache == "warm" else 0)
        assert min(cached) >= kept
        assert max(cached) <= kept + 32
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "not in the cache and computed again" not in page
