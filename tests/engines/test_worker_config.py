"""What workers are told, and how little of bendi they load for it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from bendi.engines import LoadRequest
from bendi.engines.native_worker import arguments
from bendi.engines.prepare import prepare, worker_config
from bendi.engines.worker_config import WorkerConfig


def told(load: LoadRequest) -> WorkerConfig:
    return worker_config(load, prepare(load))


@pytest.mark.parametrize(
    ("type_v", "asked", "expected"),
    [("f16", None, None), ("f16", False, False), ("bf16", True, True), ("q8_0", None, True), ("q4_0", False, True)],
)
def test_quantized_values_need_flash_attention(
    type_v: str, asked: bool | None, expected: bool | None, demo_model: Path
) -> None:
    config = told(LoadRequest(demo_model, 256, type_v=type_v, flash_attention=asked))
    assert config.flash_attention is expected
    said = dict(pairwise(arguments(config, "/dev/fd/3")))
    assert said.get("--flash-attn") == {None: None, True: "on", False: "off"}[expected]


def test_every_conversation_gets_its_context(demo_model: Path) -> None:
    config = told(LoadRequest(demo_model, 256, parallel=3))
    assert (config.context_tok, config.parallel) == (768, 3)


def test_it_survives_the_pipe(demo_model: Path) -> None:
    config = told(LoadRequest(demo_model, 256, state_dir=Path("a folder")))
    assert config.state_dir == str(Path.cwd() / "a folder"), "the worker runs elsewhere"
    assert WorkerConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_states_only_where_asked_for(demo_model: Path) -> None:
    assert "--slot-save-path" not in arguments(told(LoadRequest(demo_model, 256)), "/dev/fd/3")


@pytest.mark.parametrize("module", ["worker", "native_worker"])
def test_a_worker_loads_little_of_bendi(module: str) -> None:
    code = f"import bendi.engines.{module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"planner", "formats", "store", "hardware", "chat", "measured", "engines.process", "engines.prepare"}
    assert not {f"bendi.{name}" for name in heavy} & loaded
    assert "sqlite3" not in loaded
