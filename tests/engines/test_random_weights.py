"""Models with random weights: every type of number loads, computes finite numbers, and is as large as it should be."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import pytest

from bendi.engines import LoadRequest, open_engine
from bendi.engines.probes import dense_config, expert_config
from bendi.engines.random_weights import MEASURABLE_TYPES, write_random_model
from bendi.formats import TENSOR_TYPES_BY_NAME, read_gguf
from bendi.formats.blueprints import blueprint_from_config
from bendi.messages import GenerateRequest
from bendi.settings import load_settings

_NEVER_IN_FILES = {"I8", "I16", "I32", "I64", "F64"}


def test_every_type_of_weights_can_be_made() -> None:
    kept = {kind.name for kind in TENSOR_TYPES_BY_NAME.values() if not kind.activations_only}
    assert kept - _NEVER_IN_FILES == MEASURABLE_TYPES


@pytest.mark.parametrize("type_name", sorted(MEASURABLE_TYPES))
def test_a_model_of_one_type_runs(type_name: str, tmp_path: Path) -> None:
    blueprint = blueprint_from_config(dense_config(1, 256, 256, (4, 2, 64)), type_name)
    types = [type_name if name != "F32" else name for name in blueprint.default_types()]
    path = write_random_model(tmp_path / "model.gguf", blueprint, types)
    header = read_gguf(path)
    assert [tensor.type.name for tensor in header.tensors] == types
    assert header.tensors == blueprint.header(types).tensors
    with closing(open_engine(LoadRequest(path, context_tok=512), load_settings())) as engine:
        request = GenerateRequest(prompt=tuple(range(300, 340)), max_tokens=4, ignore_end=True)
        *_texts, last = engine.generate(request)
    assert last.usage is not None and last.usage.completion_tok == 4
    assert last.timings is not None and math.isfinite(last.timings.pp_tok_s or math.nan)


def test_a_model_of_experts_runs(tmp_path: Path) -> None:
    blueprint = blueprint_from_config(expert_config(2, 256, (8, 2, 256), (4, 2, 64)), "experts")
    types = ["Q4_K" if name != "F32" else name for name in blueprint.default_types()]
    path = write_random_model(tmp_path / "model.gguf", blueprint, types)
    with closing(open_engine(LoadRequest(path, context_tok=512), load_settings())) as engine:
        *_texts, last = engine.generate(GenerateRequest(prompt=(300, 301), max_tokens=3, ignore_end=True))
    assert last.usage is not None and (last.usage.prompt_tok, last.usage.completion_tok) == (2, 3)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("mine")
    blueprint = blueprint_from_config(dense_config(1, 256, 256, (4, 2, 64)), "x")
    with pytest.raises(FileExistsError):
        write_random_model(path, blueprint, blueprint.default_types())
    assert path.read_text() == "mine"
