"""`bendi run` when memory is tight: with the real engine and models of random weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.engines.random_weights import write_random_model
from bendi.formats.blueprints import blueprint_from_config

Run = Callable[..., tuple[int, str, str]]
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "intermediate_size": 2048,
    "vocab_size": 2000,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 MB of weights; a context of 131072 tokens takes 4 GiB."""
    blueprint = blueprint_from_config(CONFIG, "Random")
    types = ["Q8_0" if default == "F16" else default for default in blueprint.default_types()]
    return write_random_model(tmp_path_factory.mktemp("models") / "random-Q8_0.gguf", blueprint, types)


@pytest.fixture
def bendi() -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bendi", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def ask(bendi: Run, model: Path, *flags: str) -> tuple[int, str, str]:
    return bendi("run", str(model), "word word", "--raw", "--max-tokens", "2", *flags)


def test_what_does_not_fit_is_refused_with_what_does(bendi: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_WORKER_MEMORY", "1200MiB")
    code, out, err = ask(bendi, model, "--context", "131072")
    assert code == 9 and not out
    assert "does not fit" in err and "131072" in err
    command = next(line.strip() for line in err.splitlines() if line.strip().startswith("bendi run "))
    flags = command.partition(str(model))[2].strip("' ").split()
    assert "--context" in flags
    code, _out, err = ask(bendi, model, *flags)
    assert code == 0, err


def test_what_fits_loads_under_that_limit(bendi: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_WORKER_MEMORY", "1200MiB")
    code, _out, err = ask(bendi, model)
    assert code == 0, err


def test_smaller_keys_and_values(bendi: Run, model: Path) -> None:
    code, _out, err = ask(bendi, model, "--kv", "q8_0", "--context", "2048")
    assert code == 0, err


def test_too_small_for_anything(bendi: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_WORKER_MEMORY", "64MiB")
    code, out, err = ask(bendi, model)
    assert code == 9 and not out
    assert "does not fit" in err and "Traceback" not in err


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """560 MB of weights."""
    blueprint = blueprint_from_config({**CONFIG, "num_hidden_layers": 64}, "Large")
    types = ["Q8_0" if default == "F16" else default for default in blueprint.default_types()]
    return write_random_model(tmp_path_factory.mktemp("models") / "large-Q8_0.gguf", blueprint, types)


def test_larger_than_memory_is_slow_and_says_so(bendi: Run, large_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit bounds what the worker may own; mapped weights are not its own, so it really runs."""
    monkeypatch.setenv("BENDI_WORKER_MEMORY", "900MiB")
    code, out, err = ask(bendi, large_model, "--context", "512")
    assert code == 0, err
    assert out.strip()
    assert "larger than memory" in err and "tok/s" in err
