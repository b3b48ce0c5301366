"""`bendi fit` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.cli.main import main
from bendi.cli.output import cell_width

Run = Callable[..., tuple[int, str, str]]
LAPTOP = ("--machine", "ram=16GiB,cores=8")
ROW_KEYS = {
    *("model", "title", "maker", "released", "licence", "kind", "thinking", "languages", "parameters"),
    *("active_parameters", "equivalent_parameters", "benchmarks", "score", "lost", "plan", "why", "get", "run"),
}


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("BENDI_OFFLINE", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_for_this_machine(bendi: Run) -> None:
    code, out, err = bendi("fit", "--all")
    assert code == 0, err
    assert "qwen3:0.6b" in out and "To get it: bendi pull " in out
    assert "bendi calibrate" in out


def test_for_another_machine(bendi: Run) -> None:
    code, out, _err = bendi("fit", *LAPTOP, "--for", "code")
    assert code == 0
    assert out.startswith("Another machine: ") and "nobody has measured" in out
    assert "\x1b" not in out


def test_as_json(bendi: Run) -> None:
    code, out, _err = bendi("fit", *LAPTOP, "--json")
    report = json.loads(out)
    assert code == 0 and report["schema"] == 1
    assert set(report) == {"schema", "machine", "models"}
    assert set(report["models"][0]) == ROW_KEYS
    assert report["models"][0]["plan"]["settings"]["context_tok"] > 0
    assert report["machine"]["here"] is False


def test_a_request_of_ones_own(bendi: Run) -> None:
    """A longer prompt takes longer until the first token."""

    def ttft_s(prompt_tok: int) -> float:
        code, out, err = bendi("fit", *LAPTOP, "--prompt", str(prompt_tok), "--json")
        assert code == 0, err
        plans = {model["model"]: model["plan"] for model in json.loads(out)["models"]}
        assert plans["qwen3:0.6b"]["workload"]["prompt_tok"] == prompt_tok
        return float(plans["qwen3:0.6b"]["ttft_s"])

    assert ttft_s(9000) > 10 * ttft_s(200)


def test_a_part_of_a_gpus_name_is_enough(bendi: Run) -> None:
    short, long = (bendi("fit", "--machine", f"ram=32GiB,gpu={name}", "--json") for name in ("4090", "RTX 4090"))
    assert short[0] == 0 and short[1] == long[1]


def test_an_unknown_gpu_is_not_ignored(bendi: Run) -> None:
    code, _out, err = bendi("fit", "--machine", "ram=32GiB,gpu=toaster")
    assert code == 2
    assert "toaster" in err and "gpu=toaster:16GiB" in err
    code, out, _err = bendi("fit", "--machine", "ram=32GiB,gpu=toaster:16GiB")
    assert code == 0 and "toaster" in out


def test_in_chinese_on_a_narrow_terminal(bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("BENDI_LANG", "zh")
    code, out, _err = bendi("fit", *LAPTOP)
    assert code == 0
    table = [line for line in out.splitlines() if "GiB" in line and "±" in line]
    assert table and max(cell_width(line) for line in table) <= 80


def test_nothing_fits(bendi: Run) -> None:
    code, out, err = bendi("fit", *LAPTOP, "--min-tg", "100000")
    assert code == 9
    assert "No model" in out and "bendi fit --all" in err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--machine", "ram=lots"),
        ("--machine", "/no/such/file.json"),
        ("--machine", ""),
        ("--max-size", "big"),
        ("--min-tg", "-1"),
        ("--language", "中文"),
        ("--for", "love"),
        ("--context", "0"),
        ("--context", "1000", "--min-ctx", "2000"),
        ("surplus",),
    ],
)
def test_what_makes_no_sense(bendi: Run, wrong: tuple[str, ...]) -> None:
    code, out, err = bendi("fit", *wrong)
    assert code == 2 and not out and "Traceback" not in err


def test_a_file_of_the_doctor_is_a_machine(bendi: Run, tmp_path: Path) -> None:
    _code, report, _err = bendi("doctor", "--json")
    path = tmp_path / "机器.json"
    path.write_text(report, "utf-8")
    code, out, err = bendi("fit", "--machine", str(path))
    assert code == 0, err
    assert out.startswith("Another machine: ")
