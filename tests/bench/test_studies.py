"""Studies with the real engine and the built-in model, and what may end them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import small_disk
from bendi.bench.cells import cells_of
from bendi.bench.journal import Journal, read_results
from bendi.bench.opening import Garage, Opened
from bendi.bench.repeats import Place
from bendi.bench.studies import Run
from bendi.bench.study import Care, EngineChoice, ModelChoice, Study
from bendi.bench.subjects import Files, Subject, subjects_of
from bendi.errors import EngineCrashed, StoreError
from bendi.messages import Cancellation, Chunk, GenerateRequest
from bendi.results import SHORTEST_WRITING_S, Cell, StudyFacts, Workload
from bendi.settings import load_settings
from bendi.store import Store

STUDY = """
title = "small"
[[models]]
name = "demo"
[[engines]]
label = "one"
build = "wheel"
[[engines]]
label = "two"
build = "wheel"
settings = { threads = 1 }
[[workloads]]
name = "w"
prompt_tok = 64
answer_tok = 96
[[workloads]]
name = "deep"
prompt_tok = 32
answer_tok = 96
depth_tok = 128
[care]
blocks = 4
warm_up_most = 2
"""
REPEATS = 2 * 2 * 4


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """`bendi` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bendi", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BENDI_LANG": "en"},
    )


def finished(process: subprocess.Popen[str], timeout_s: float = 100.0) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def repeats(path: Path) -> list[bytes]:
    return [line for line in lines(path) if line.startswith(b'{"kind": "repeat"')]


def check_whole(path: Path) -> None:
    results = read_results(path)
    pairs = [(each.cell, each.block) for each in results.repeats]
    assert len(pairs) == len(set(pairs)) == REPEATS
    assert not results.failures
    for each in results.repeats:
        assert each.answers and each.pp_tok_s
        # A model this small may have written most of it before anybody was awake to see the first word.
        assert each.tg_tok_s or all(answer.writing_s < SHORTEST_WRITING_S for answer in each.answers)
        assert each.peak_memory_bytes and each.load_s and each.slowness
        assert all(answer.completion_tok == 96 for answer in each.answers)
        deep = results.cells[each.cell].workload.name == "deep"
        assert each.cached_tok == (128 if deep else 0)
    assert sum(each.tg_tok_s is not None for each in results.repeats) > REPEATS / 2
    assert {check.verdict for check in results.checks} == {"ok"}
    assert {each.asked["threads"] for each in results.engines if each.engine == "two"} == {1}


def test_killed_and_gone_on_with(study_file: Path, tmp_path: Path) -> None:
    """However often it is killed, nothing finished is lost or measured again."""
    out = tmp_path / "r.jsonl"
    for kills in range(1, 4):
        process = started("bench", "run", study_file, "--out", out)
        until(lambda wanted=3 * kills: len(repeats(out)) >= wanted, process)  # type: ignore[misc]
        process.kill()
        process.wait()
        process.communicate()
        kept = read_results(out).repeats
        with out.open("ab") as file:
            file.write(b'{"kind": "repeat", "cell": "cut of')
        assert read_results(out).repeats == kept
    code, text, err = finished(started("bench", "run", study_file, "--out", out))
    assert code == 0, err
    assert "Going on after" in err and "small" not in text
    check_whole(out)
    before = out.read_bytes()
    code, _text, err = finished(started("bench", "run", study_file, "--out", out))
    assert code == 0 and out.read_bytes() == before


def test_interrupted(study_file: Path, tmp_path: Path) -> None:
    process = started("bench", "run", study_file)
    folder = Path(os.environ["HOME"])

    def found() -> list[Path]:
        return list(folder.rglob("studies/*.jsonl"))

    until(lambda: bool(found()) and len(repeats(found()[0])) >= 2, process)
    process.send_signal(signal.SIGINT)
    code, _out, err = finished(process)
    assert code == 130
    assert f"Go on: bendi bench run {study_file}" in err
    (path,) = found()
    kept = repeats(path)
    assert len(kept) >= 2
    # The hint of a study of one model names everything that makes it the same study.
    quick = started("bench", "demo", "--blocks", "900", "--prompt", "16")
    until(lambda: len(found()) == 2 and bool(repeats(max(found(), key=lambda each: each.stat().st_mtime))), quick)
    quick.send_signal(signal.SIGINT)
    code, _out, err = finished(quick)
    assert code == 130 and "bendi bench demo --blocks 900 --prompt 16 --answer 32" in err
    next(each for each in found() if each != path).unlink()
    # The same command finds what it had begun.
    code, _out, err = finished(started("bench", "run", study_file))
    assert code == 0, err
    assert found() == [path]
    assert repeats(path)[: len(kept)] == kept
    check_whole(path)
    # What is complete is not gone on with: the same command measures again.
    code, out, err = finished(started("bench", "run", study_file, "--dry-run", "--json"))
    assert code == 0 and len(json.loads(out)["cells"]) == 4


def test_two_studies_at_once(study_file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    process = started("bench", "run", study_file, "--out", first)
    until(lambda: bool(repeats(first)), process)
    code, _out, err = finished(started("bench", "run", study_file, "--out", second))
    assert code == StoreError.exit_code
    assert "disturb each other" in err and "--wait" in err and not second.exists()
    assert process.poll() is None, "the first one must still be running"
    waiting = started("bench", "run", study_file, "--out", second, "--wait")
    assert finished(process)[0] == 0
    code, _out, err = finished(waiting)
    assert code == 0 and "waiting" in err
    ended_s = max(each.began_s for each in read_results(first).repeats)
    assert min(each.began_s for each in read_results(second).repeats) > ended_s


def test_a_full_disk_in_the_middle(study_file: Path, tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "small", "96k") as folder:
        out = folder / "r.jsonl"
        process = started("bench", "run", study_file, "--out", out)
        until(lambda: len(repeats(out)) >= 2, process)
        ballast = small_disk.fill(folder)
        code, _text, err = finished(process)
        assert code == StoreError.exit_code and "full" in err
        kept = repeats(out)
        assert len(kept) >= 2 and not out.read_bytes().endswith(b"x")
        ballast.unlink()
        code, _text, err = finished(started("bench", "run", study_file, "--out", out))
        assert code == 0, err
        assert repeats(out)[: len(kept)] == kept
        check_whole(out)


class Crashing:
    """An engine that dies at chosen requests."""

    def __init__(self, opened: Opened, dies: Iterator[bool]) -> None:
        self._engine, self._dies = opened.engine, dies
        self.info = opened.engine.info

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        if next(self._dies):
            raise EngineCrashed("the worker is gone")
        return self._engine.generate(request, cancel)

    def close(self) -> None:
        self._engine.close()


class CrashingGarage(Garage):
    dies: Iterator[bool]

    def open(self, cells: tuple[Cell, ...], subject: Subject) -> Opened:  # type: ignore[override]
        opened = super().open(cells, subject)
        return replace(opened, engine=Crashing(opened, self.dies)) if cells[0].engine == "bad" else opened


@pytest.mark.parametrize("deaths", ["once", "always"])
def test_an_engine_that_crashes(deaths: str, tmp_path: Path) -> None:
    """Only its own repeats fail; what works is measured."""
    settings = replace(load_settings(), engine="wheel")
    study = Study(
        "s",
        (ModelChoice("demo"),),
        (EngineChoice("good"), EngineChoice("bad")),
        (Workload("w", 32, 4),),
        care=Care(blocks=2, warm_up_least=1, warm_up_most=1, check=False),
        folder=tmp_path,
    )
    (subject,) = subjects_of(study, Store(settings))
    cells = cells_of(study, {"demo": [subject.quantization]})
    facts = StudyFacts("id", "s", "", 0.0, 2, 1, "0", {}, cells)
    journal = Journal(tmp_path / "r.jsonl", facts)
    garage = CrashingGarage({each.label: each for each in study.engines}, settings, Files(tmp_path / "f", print))
    garage.dies = iter([True] + [False] * 50) if deaths == "once" else iter([True] * 50)
    notes: list[str] = []
    subjects = {(subject.model, subject.quantization): subject}
    Run(study, journal, garage, Place(study.care, 1, tmp_path), subjects, on_note=notes.append).run()
    results = journal.results
    good, bad = cells
    assert len(results.of(good)) == 2
    assert len(results.of(bad)) == (2 if deaths == "once" else 0)
    assert [each.final for each in results.failures] == ([False] if deaths == "once" else [False, True] * 2)
    assert all("the worker is gone" in note for note in notes) and notes
    assert read_results(tmp_path / "r.jsonl") == results


def test_random_weights_are_made_and_removed(tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(
        '[[models]]\nname = "smollm2:135m"\nshape = true\nquantizations = ["Q4_0"]\n[[engines]]\nbuild = "wheel"\n'
        "[[workloads]]\nprompt_tok = 16\nanswer_tok = 2\n[care]\nblocks = 1\nwarm_up_most = 2\n"
    )
    out = tmp_path / "r.jsonl"
    code, _text, err = finished(started("bench", "run", study, "--out", out))
    assert code == 0, err
    results = read_results(out)
    assert [check.verdict for check in results.checks] == ["unchecked"]
    assert len(results.repeats) == 1 and results.repeats[0].input_tok == 16
    assert len(results.predictions) == 1
    assert not list(Path(os.environ["HOME"]).rglob("*.gguf"))
