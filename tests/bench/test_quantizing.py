"""Quantizations that a study makes for itself: with a real llama-quantize where a native build has one, and with
programs that fail in every way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import small_disk
from bendi.bench.journal import read_results
from bendi.bench.quantizing import FOLDER, PROGRAM, find_quantizer, make_missing, orders_of
from bendi.bench.study import EngineChoice, ModelChoice, Study
from bendi.bench.subjects import Subject, subjects_of
from bendi.engines import native_builds, sandbox
from bendi.engines.random_weights import write_random_model
from bendi.errors import EngineError, EngineUnsupported, NotFoundError, StoreError, UsageError
from bendi.formats import model_info, read_gguf
from bendi.formats.blueprints import blueprint_from_config
from bendi.formats.gguf_writer import BytewiseVocabulary
from bendi.results import Workload
from bendi.settings import Settings, load_settings
from bendi.store import Store
from bendi.store.known_models import known_models

ROOT = Path(__file__).resolve().parent.parent.parent
NATIVE = Path(os.environ.get("BENDI_TEST_NATIVE_CACHE") or ROOT / ".cache" / "native")

# Copies the wanted quantization of the built-in model, as a program that does what it should.
WORKS = """#!{python}
import shutil, sys
print("[   1/   2] blk.0 .. done", flush=True)
shutil.copyfile({demo!r}, sys.argv[-3])
print("[   2/   2] blk.1 .. done", flush=True)
"""
FAILS = "#!/bin/sh\necho 'llama_model_quantize: failed to quantize: tensor is odd' >&2\nexit 1\n"
LIES = "#!/bin/sh\nhead -c 1000 '{demo}' > \"$2\"\nexit 0\n"
LASTS = "#!/bin/sh\nhead -c 1000 '{demo}' > \"$2\"\nexec sleep 60\n"
# Says what it could do that it should not.
REACHES = """#!{python}
import os, shutil, socket, sys
target = sys.argv[-3]
for name, reach in {{
    "wrote": lambda: open({folder!r} + "/stray", "w"),
    "made": lambda: open(os.path.dirname(target) + "/stray", "w"),
    "deleted": lambda: os.unlink({folder!r} + "/precious"),
    "connected": lambda: socket.create_connection(("127.0.0.1", {port})),
}}.items():
    try:
        reach()
    except PermissionError:
        continue
    print(name, flush=True)
    sys.exit(1)
shutil.copyfile({demo!r}, target)
"""


@pytest.fixture
def program(tmp_path: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a llama-quantize with that text on PATH."""

    def put(text: str, port: int = 0) -> Path:
        path = tmp_path / "bin" / PROGRAM
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable, demo=str(demo_model), folder=str(tmp_path), port=port))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
        return path

    return put


def study_of(model: ModelChoice, folder: Path) -> Study:
    return Study("s", (model,), (EngineChoice("e"),), (Workload("w", 8, 2),), folder=folder)


def wanted(source: Path, *quantizations: str) -> list[Subject]:
    model = ModelChoice("m", quantizations, source=str(source))
    return subjects_of(study_of(model, source.parent), Store(load_settings()))


def make(subjects: list[Subject], notes: list[str] | None = None) -> list[Subject]:
    said = notes if notes is not None else []
    return make_missing(subjects, load_settings(), lambda _done, _total, _what: None, said.append)


def left_over(settings: Settings) -> list[Path]:
    return [path for path in (settings.cache_dir / FOLDER).rglob("*") if path.is_file() or ".making-" in path.name]


def native_settings() -> Settings:
    """With a llama-quantize that was built here, and a cache of its own for what it makes."""
    settings = load_settings()
    there = load_settings({"BENDI_CACHE": str(NATIVE), "BENDI_CONFIG": str(NATIVE / "config")})
    for build in native_builds.all_builds(there):
        if native_builds.intact(build, PROGRAM):
            folder = native_builds.engines_folder(settings)
            folder.mkdir(parents=True)
            (folder / build.build_id).symlink_to(build.folder)
            return settings
    pytest.skip(f"no native build with {PROGRAM} in {NATIVE}: scripts/test-native makes one")


def test_made_by_a_native_build_and_measured(stories_model: Path, tmp_path: Path) -> None:
    settings = native_settings()
    assert find_quantizer(settings).own
    source = tmp_path / "model-f32.gguf"
    source.write_bytes(stories_model.read_bytes())
    study = tmp_path / "s.toml"
    study.write_text(
        '[[models]]\nname = "stories"\nsource = "model-f32.gguf"\nquantizations = ["F32", "Q8_0", "q4_0"]\n'
        '[[engines]]\nbuild = "wheel"\n[[workloads]]\nprompt_tok = 8\nanswer_tok = 4\n'
        "[care]\nblocks = 1\nwarm_up_most = 1\nwarm_up_least = 1\ncheck = false\n"
    )
    command = [sys.executable, "-m", "bendi", "bench", "run", str(study)]
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0 and "Made first" in done.stderr and not left_over(settings)
    done = subprocess.run([*command, "--out", str(tmp_path / "r.jsonl")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = read_results(tmp_path / "r.jsonl")
    assert [cell.quantization for cell in results.facts.cells] == ["F32", "Q8_0", "Q4_0"]
    assert len({each.model_sha256 for each in results.engines}) == 3 and len(results.repeats) == 3
    made = left_over(settings)
    assert sorted(path.name for path in made) == ["Q4_0.gguf", "Q8_0.gguf"]
    for path in made:
        assert model_info(read_gguf(path)).quantization == path.stem
    stamps = [path.stat().st_mtime_ns for path in made]
    done = subprocess.run([*command, "--out", str(tmp_path / "2.jsonl")], capture_output=True, text=True)
    assert done.returncode == 0 and "Made for" not in done.stderr
    assert [path.stat().st_mtime_ns for path in made] == stamps


def test_made_from_q8_0_by_a_native_build(demo_model: Path) -> None:
    native_settings()
    notes: list[str] = []
    (made,) = make(wanted(demo_model, "Q4_0"), notes)
    assert made.path is not None and model_info(read_gguf(made.path)).quantization == "Q4_0"
    assert "from Q8_0" in notes[0] and str(made.path) in notes[1]


def test_nothing_here_can_make_them(stories_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnsupported, match=PROGRAM) as raised:
        make(wanted(stories_model, "Q8_0"))
    assert "bendi engine build" in raised.value.hint
    assert not left_over(load_settings())
    # Nothing is missing where only the file itself is wanted.
    (same,) = make(wanted(stories_model, "F32"))
    assert same.path == stories_model


def test_a_finished_file_is_used_again_and_a_cut_one_is_not(
    program: Callable[..., Path], stories_model: Path, tmp_path: Path
) -> None:
    path = program(WORKS)
    seen: list[tuple[float, float]] = []
    subjects = wanted(stories_model, "Q8_0")
    (made,) = make_missing(subjects, load_settings(), lambda done, of, _what: seen.append((done, of)), print)
    assert made.path is not None and seen == [(1, 2), (2, 2)]
    whole = made.path.read_bytes()
    path.unlink()
    assert make(subjects) == [made]
    made.path.write_bytes(whole[:-100_000])
    with pytest.raises(EngineUnsupported):
        make(subjects)
    program(WORKS)
    assert make(subjects) == [made] and made.path.read_bytes() == whole
    # Another content is another source.
    other = tmp_path / stories_model.name
    content = bytearray(stories_model.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    (order,) = orders_of(wanted(other, "Q8_0"), load_settings())
    assert order.path != made.path and not order.is_there


@pytest.mark.parametrize(("text", "said"), [(FAILS, "tensor is odd"), (LIES, "could not make Q8_0")])
def test_programs_that_fail_leave_nothing(
    text: str, said: str, program: Callable[..., Path], stories_model: Path
) -> None:
    program(text)
    with pytest.raises(EngineError, match=said) as raised:
        make(wanted(stories_model, "Q8_0"))
    assert 'files = { Q8_0 = "..." }' in raised.value.hint
    assert not left_over(load_settings())


@pytest.mark.skipif(sandbox.landlock_version() < 4, reason="this kernel has no Landlock that knows of TCP")
def test_a_program_from_elsewhere_writes_its_file_and_reaches_nothing_else(
    program: Callable[..., Path], stories_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program(REACHES, listener.getsockname()[1])
        (made,) = make(wanted(stories_model, "Q8_0"))
    assert made.path and model_info(read_gguf(made.path)).quantization == "Q8_0"
    assert (tmp_path / "precious").exists() and not (tmp_path / "stray").exists()


def test_no_program_at_all(program: Callable[..., Path], stories_model: Path) -> None:
    program("#!/no/such/interpreter\n")
    with pytest.raises(EngineError, match="cannot be started"):
        make(wanted(stories_model, "Q8_0"))
    assert not left_over(load_settings())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_ended_in_the_middle(
    end: signal.Signals, program: Callable[..., Path], stories_model: Path, tmp_path: Path
) -> None:
    """Neither half a file nor a running program is left; what a kill leaves, the next run removes."""
    program(LASTS)
    study = tmp_path / "s.toml"
    study.write_text(
        f'[[models]]\nname = "m"\nsource = "{stories_model}"\nquantizations = ["Q8_0"]\n'
        '[[engines]]\nbuild = "wheel"\n[[workloads]]\nprompt_tok = 8\nanswer_tok = 2\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "bendi", "bench", "run", str(study)], stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + 60
    made = load_settings().cache_dir / FOLDER
    while not any(path.stat().st_size for path in made.glob(".making-*/Q8_0.gguf")):
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.send_signal(end)
    process.communicate(timeout=60)
    assert process.returncode == (130 if end == signal.SIGINT else -end)
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    settings = load_settings()
    assert bool(left_over(settings)) is (end == signal.SIGKILL)
    assert not list(settings.state_dir.rglob("*.jsonl"))
    program(WORKS)
    make(wanted(stories_model, "Q8_0"))
    assert [path.name for path in left_over(settings)] == ["Q8_0.gguf"]


def test_no_space(program: Callable[..., Path], stories_model: Path, tmp_path: Path) -> None:
    """It is said before anything is made."""
    program(WORKS)
    with small_disk.mounted(tmp_path / "small", "4m") as folder:
        settings = replace(load_settings(), cache_dir=folder)
        with pytest.raises(StoreError, match="are needed") as raised:
            make_missing(wanted(stories_model, "Q8_0"), settings, lambda *_: None, print)
        assert "BENDI_CACHE" in raised.value.hint
        assert not left_over(settings)


def test_what_is_there_already_is_not_made(stories_model: Path, demo_model: Path, tmp_path: Path) -> None:
    store = Store(load_settings())
    model = ModelChoice("m", ("F32", "Q8_0", "Q4_K", "q4_k_m"), {"F32": stories_model, "q8_0": demo_model})
    subjects = subjects_of(study_of(model, tmp_path), store)
    assert [(each.quantization, each.path, each.source) for each in subjects] == [
        ("F32", stories_model, None), ("q8_0", demo_model, None), ("Q4_K_M", None, stories_model),
    ]  # fmt: skip
    plain = ModelChoice("m", ("F32",), {"F32": stories_model})
    assert len(subjects_of(study_of(plain, tmp_path), store)) == 1


def wide_model(folder: Path) -> Path:
    """With rows long enough for every type."""
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 400}  # fmt: skip
    blueprint = blueprint_from_config({**known_models()["smollm2:135m"].config, **shape}, "model")
    types = ["F32" for _tensor in blueprint.header().tensors]
    numbers = BytewiseVocabulary(400).metadata() | {"general.file_type": 0}
    return write_random_model(folder / "wide.gguf", blueprint, types, numbers)


def test_what_cannot_be_made(stories_model: Path, demo_model: Path, tmp_path: Path) -> None:
    store = Store(load_settings())

    def fails(model: ModelChoice, kind: type[Exception], said: str) -> None:
        with pytest.raises(kind, match=said):
            subjects_of(study_of(model, tmp_path), store)

    fails(ModelChoice("m", ("IQ1_S",), source=str(wide_model(tmp_path))), UsageError, "importance matrix")
    fails(ModelChoice("m", ("Q9_9",), source=str(stories_model)), UsageError, "no quantization Q9_9")
    fails(ModelChoice("m", ("Q8_0",), source="no-such-model"), NotFoundError, "no-such-model")
    fails(ModelChoice("m", ("Q8_0",), {"Q4_0": demo_model}), UsageError, "can only be made from one of")
    coarse = tmp_path / "coarse.gguf"
    content = bytearray(demo_model.read_bytes())
    at = content.index(b"general.file_type") + len(b"general.file_type") + 4
    content[at : at + 4] = (2).to_bytes(4, "little")  # it says that it is Q4_0
    coarse.write_bytes(content)
    fails(ModelChoice("m", ("Q8_0",), source=str(coarse)), UsageError, "worse than its name")
