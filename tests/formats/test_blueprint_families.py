"""Headers from published configurations: totals of parameters, what the engine accepts, what readers make of them."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from bendi.errors import ModelFileError
from bendi.formats import anatomy, model_info
from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprints import MODEL_TYPES, blueprint_from_config
from bendi.formats.gguf import read_gguf
from bendi.formats.gguf_writer import Vocabulary, write_gguf
from published_configs import ALL, ENCODERS, Published

_BY_NAME = {model.name: model for model in ALL}


def of(name: str) -> Blueprint:
    return blueprint_from_config(_BY_NAME[name].config, name)


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_parameters_are_those_that_were_published(model: Published) -> None:
    blueprint = blueprint_from_config(model.config, model.name)
    assert sum(prod(shape) for shape in blueprint.tensors.values()) == pytest.approx(model.parameters, rel=0.003)


def test_every_family_has_a_published_model() -> None:
    shown = set()
    for model in ALL:
        part = model.config.get("text_config")
        inner = part.get("model_type") if isinstance(part, dict) else None
        shown |= {str(kind).removesuffix("_text") for kind in (inner, model.config["model_type"]) if kind}
    same = {"gemma4_unified", "gemma_embedding", "granitemoeshared", "hunyuan", "mamba", "qwen2_vl", "roberta"}
    assert set(MODEL_TYPES) - shown == same


@pytest.mark.parametrize(
    ("name", "architecture", "kinds"),
    [
        ("Qwen3-Next-80B-A3B", "qwen3next", {"attention": 12, "recurrent": 36}),
        ("Qwen3.6-27B", "qwen35", {"attention": 16, "recurrent": 48}),
        ("Granite-4.0-H-Tiny", "granitehybrid", {"attention": 4, "recurrent": 36}),
        ("Nemotron-Nano-9B-v2", "nemotron_h", {"attention": 4, "recurrent": 27, "none": 25}),
        ("Falcon-H1-7B", "falcon-h1", {"both": 44}),
        ("LFM2-8B-A1B", "lfm2moe", {"attention": 6, "recurrent": 18}),
        ("Gemma-3n-E2B", "gemma3n", {"attention": 6, "window": 24}),
        ("Gemma-4-26B-A4B", "gemma4", {"attention": 5, "window": 25}),
        ("Jamba-v0.1", "jamba", {"attention": 4, "recurrent": 28}),
        ("Llama-4-Maverick", "llama4", {"attention": 12, "window": 36}),
        ("EXAONE-4.0-32B", "exaone4", {"attention": 16, "window": 48}),
        ("Mamba-Codestral-7B", "mamba2", {"recurrent": 64}),
        ("DeepSeek-V3", "deepseek2", {"attention": 61}),
    ],
)
def test_layers(name: str, architecture: str, kinds: dict[str, int]) -> None:
    blueprint = of(name)
    layers = anatomy(blueprint.header()).layers
    assert blueprint.architecture == architecture
    assert {kind: layers.count(kind) for kind in set(layers)} == kinds


def test_layers_that_guess_ahead_are_kept_where_the_converter_keeps_them() -> None:
    assert anatomy(of("GLM-4.5-Air").header()).prediction_layers == 1
    assert anatomy(of("Qwen3.6-27B").header()).prediction_layers == 1
    assert "blk.46.nextn.eh_proj.weight" in of("GLM-4.5-Air").tensors
    assert anatomy(of("DeepSeek-V3").header()).prediction_layers == 0
    assert "blk.61.attn_norm.weight" not in of("DeepSeek-V3").tensors


def test_active_parameters() -> None:
    """3.3 of 30.5 billion, 12 of 106 (without the layer that guesses ahead), 37 of 671, 3.6 of 20.9."""
    for name, active in (("Qwen3-30B-A3B", 3.35e9), ("DeepSeek-V3", 37.5e9), ("gpt-oss-20b", 4.19e9)):
        assert anatomy(of(name).header()).active_parameters == pytest.approx(active, rel=0.01)


def test_the_language_part_of_a_model_that_sees() -> None:
    assert of("Mistral-Small-3.2-24B").architecture == "mistral3"
    assert of("Qwen3-VL-8B").metadata["n_deepstack_layers"] == 3
    assert of("Qwen2.5-VL-7B").metadata["rope.dimension_sections"] == [16, 24, 24, 0]


def test_what_is_tied_has_no_head_of_its_own() -> None:
    assert "output.weight" not in of("Llama-3.2-1B").tensors
    assert of("Llama-3.1-8B").tensors["output.weight"] == (4096, 128256)


def test_scaled_positions() -> None:
    assert of("Llama-3.1-8B").tensors["rope_freqs.weight"] == (64,)
    assert "rope_freqs.weight" not in of("Llama-2-7B").tensors
    assert of("Phi-4-mini").tensors["rope_factors_long.weight"] == (48,)
    assert of("DeepSeek-V3").metadata["rope.scaling.type"] == "yarn"
    assert of("GLM-4-9B-0414").metadata["rope.dimension_count"] == 64


def test_what_stays_in_full_precision() -> None:
    blueprint = of("Qwen3.5-35B-A3B")
    types = dict(zip(blueprint.tensors, blueprint.default_types(), strict=True))
    assert {types[f"blk.0.{name}"] for name in ("attn_qkv.weight", "ffn_up_exps.weight", "ssm_out.weight")} == {"F16"}
    full = ("attn_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight", "ssm_a")
    assert {types[f"blk.0.{name}"] for name in full} == {"F32"}


def test_a_header_is_read_as_it_was_drafted(tmp_path: Path) -> None:
    for name in ("Gemma-3n-E2B", "Qwen3.5-0.8B", "BGE-M3"):
        blueprint = of(name)
        metadata = blueprint.full_metadata() | Vocabulary(blueprint.vocab).metadata()
        read = read_gguf(write_gguf(tmp_path / f"{name}.gguf", metadata, blueprint.header().tensors))
        assert {tensor.name: tensor.shape for tensor in read.tensors} == blueprint.tensors
        assert anatomy(read) == anatomy(blueprint.header())
        assert model_info(read).parameters == model_info(blueprint.header()).parameters


@pytest.mark.parametrize("model", ENCODERS[:6], ids=lambda model: model.name)
def test_encoders_see_the_whole_text(model: Published) -> None:
    assert blueprint_from_config(model.config, model.name).metadata["attention.causal"] is False


def test_a_type_that_is_not_known() -> None:
    with pytest.raises(ModelFileError, match="'novel_net' are not known") as error:
        blueprint_from_config({"model_type": "novel_net", "hidden_size": 64}, "Novel")
    assert "bendi" in error.value.hint
