"""`bendi tune` as people type it, with the real engine and the built-in model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bendi.cli.main import main
from bendi.cli.tune_text import print_list, print_report, settings_text
from bendi.engines.paired import speedup
from bendi.engines.tuning import new_scratch
from bendi.engines.tuning_report import Answers, Shape, Trial, Tuned, TuningReport, to_json
from bendi.hardware import detect_machine
from bendi.measured import TuningRow, TuningStore, machine_id
from bendi.settings import load_settings

Run = Callable[..., tuple[int, str, str]]
DEFAULT, CHOSEN = Tuned(), Tuned(4, 8, False, False, 256, "a-build")
TRIALS = (
    Trial("flash_attention", "off", Tuned(flash_attention=False), DEFAULT, "faster", 6, 0, 90.0, 12.0, 100.0, 9.0,
          speedup([1.25] * 6, [1.0] * 6)),
    Trial("threads", "4", Tuned(threads=4), DEFAULT, "slower", 2, 0, 50.0, 5.0, 100.0, 9.0,
          speedup([1.0] * 2, [2.0] * 2)),
    Trial("repack", "off", Tuned(repack=False), DEFAULT, "failed", reason="it died"),
    Trial("batch_tok", "256", Tuned(batch_tok=256), DEFAULT, "no time"),
)  # fmt: skip
REPORT = TuningReport(
    model="gone", model_key="k", machine="", build="a build", kv_type="f16", workload="chat",
    shape=Shape(1500, 150, 32), default=DEFAULT, chosen=CHOSEN, trials=TRIALS,
    final=Trial("", "", CHOSEN, DEFAULT, "faster", 6, 0, 90.0, 12.0, 100.0, 9.0, speedup([1.25] * 6, [1.0] * 6)),
    answers=Answers(0.5, 1.0, False), measured_at="2026-11-21T06:00:00", took_s=100.0, disturbed_share=0.5,
)  # fmt: skip


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_tune_show_and_forget(bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = bendi("tune", "demo", "--seconds", "30")
    assert code == 0, err
    for words in ("SETTING", "flash attention", "chosen", "measured"):
        assert words in out
    code, out, err = bendi("tune", "--show", "demo", "--json")
    (report,) = json.loads(out)
    assert (code, report["model"], report["workload"], report["kv_type"]) == (0, "demo", "chat", "f16")
    assert {"threads", "flash_attention", "repack", "batch_tok", "engine"} <= set(report["chosen"])
    assert report["trials"] and report["took_s"] > 0
    code, out, err = bendi("tune", "--show")
    assert code == 0 and "demo" in out
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, out, err = bendi("run", "demo", "What is quantization?", "--max-tokens", "3", "--no-save", "--json")
    assert code == 0, err
    assert bendi("tune", "--forget", "demo")[0] == 0
    code, out, err = bendi("tune", "--show", "demo")
    assert code == 2 and "bendi tune demo" in err
    assert bendi("tune", "--forget", "demo")[0] == 2


def test_json_tells_everything(bendi: Run) -> None:
    code, out, err = bendi("tune", "demo", "--seconds", "40", "--for", "rag", "--kv", "q8_0", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["kv_type"], report["workload"]) == ("q8_0", "rag")
    assert "flash_attention" not in {trial["setting"] for trial in report["trials"]}
    assert report["shape"]["depth_tok"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("nothing-like-this",), 3, "bendi list --catalogue"),
        ((), 2, "bendi tune demo"),
        (("--forget",), 2, "bendi tune --forget demo"),
        (("demo", "--seconds", "3"), 2, "bendi tune demo --seconds 120"),
        (("demo", "--seconds", "nan"), 2, "--seconds"),
        (("demo", "--show", "--forget"), 2, "--show"),
        (("--forget", "nothing-like-this"), 3, "bendi list --catalogue"),
        (("demo", "--kv", "q3"), 2, "q8_0"),
    ],
)
def test_mistakes(bendi: Run, arguments: tuple[str, ...], code: int, hint: str) -> None:
    found, out, err = bendi("tune", *arguments)
    assert (found, out) == (code, ""), err
    assert hint in err


def test_a_model_that_does_not_fit(bendi: Run, demo_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    shutil.copy(demo_model, path)
    os.truncate(path, 1 << 40)
    code, _out, err = bendi("tune", str(path))
    assert code == 9 and "larger than memory" in err and "bendi plan" in err


def test_a_file_that_is_no_model(bendi: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF nonsense")
    assert bendi("tune", str(path))[0] == 4


def test_interrupted_nothing_is_kept(demo_model: Path, tmp_path: Path) -> None:
    environment = os.environ | {"BENDI_STATE": str(tmp_path / "state"), "BENDI_CACHE": str(tmp_path / "cache")}
    # Whoever started the tests may have had interrupts ignored.
    heeding = "import signal, sys; signal.signal(2, signal.default_int_handler); from bendi.cli.main import main; "
    command = [sys.executable, "-c", heeding + "sys.exit(main(sys.argv[1:]))", "tune", "demo", "--seconds", "60"]
    for ending, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
            deadline_s = time.monotonic() + 60
            while not list((tmp_path / "cache").glob("tune-*/depth*")) and time.monotonic() < deadline_s:
                time.sleep(0.05)
            running.send_signal(ending)
            running.communicate(timeout=30)
            assert running.returncode == code
        assert not (tmp_path / "state" / "measured.sqlite3").exists()
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 1, "of the one that was killed"
    own = new_scratch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [own], "the next one cleans up"


def test_a_model_that_is_gone_can_be_forgotten(bendi: Run, demo_model: Path, tmp_path: Path) -> None:
    settings = load_settings()
    row = TuningRow(machine_id(detect_machine()), "k", "a build", "f16", "gone", to_json(REPORT))
    with closing(TuningStore(settings.measured_file)) as store:
        assert store.save(row)
    code, out, _err = bendi("tune", "--show")
    assert code == 0 and "gone" in out and "a-build" in out
    assert bendi("tune", "--forget", "gone", "--json")[1].strip().startswith("{")
    shutil.copy(demo_model, tmp_path / "other.gguf")
    code, _out, err = bendi("tune", "--show", str(tmp_path / "other.gguf"))
    assert code == 2 and "was not tuned" in err


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("flash attention")).split()[2:] == [
        "off", "90", "12", "1.25", "1.25-1.25", "6", "faster",
    ]  # fmt: skip
    assert "not tried" in out and "does not work" in out and "slower" in out
    assert "PP" in out and "100 → 90 tok/s" in out and "9 → 12 tok/s" in out
    for words in ("it died", "differ by up to 0.5 nats", "50%", "bendi tune gone --seconds 200"):
        assert words in err
    print_list([REPORT])
    assert "1.25 times as fast" in capsys.readouterr().out
    text = settings_text(CHOSEN, DEFAULT)
    for words in ("a-build", "4 threads", "8 for prompts", "flash attention off", "256"):
        assert words in text
