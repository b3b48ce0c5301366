"""Configurations that lack something or say what cannot be: a clear refusal, soon, and nothing else."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import ModelFileError
from bendi.formats.blueprints import MODEL_TYPES, blueprint_from_config
from published_configs import ALL

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size")
_HOSTILE: list[Any] = ["8", -1, 10**30, 10**5000, math.nan, math.inf, 1.5, True, [], [1, 2], {}, {"a": 1}, [None], 0]
_SMALL = st.integers(0, 40)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The language part at the top, where every key can be reached."""
    part = config.get("text_config")
    flat = config | part if isinstance(part, dict) else dict(config)
    flat.pop("text_config", None)
    return flat


_CONFIGS = [_flat(model.config) for model in ALL]


@pytest.mark.parametrize("key", _NEEDED)
def test_what_is_missing_is_named(key: str) -> None:
    config = {name: value for name, value in _CONFIGS[0].items() if name != key}
    with pytest.raises(ModelFileError, match=key) as error:
        blueprint_from_config(config, "model")
    assert error.value.hint


@pytest.mark.parametrize("index", range(len(_HOSTILE)))
def test_a_width_that_cannot_be(index: int) -> None:
    with pytest.raises(ModelFileError, match="hidden_size"):
        blueprint_from_config(_CONFIGS[0] | {"hidden_size": _HOSTILE[index]}, "model")


def test_more_layers_than_any_engine_has() -> None:
    with pytest.raises(ModelFileError, match="num_hidden_layers"):
        blueprint_from_config(_CONFIGS[0] | {"num_hidden_layers": 2**31}, "model")


def test_a_tensor_beyond_any_machine() -> None:
    wide = {"hidden_size": 2**20, "intermediate_size": 2**20, "head_dim": 65536, "num_attention_heads": 65536}
    with pytest.raises(ModelFileError, match="shape"):
        blueprint_from_config(_CONFIGS[0] | wide, "model")


def test_fewer_kinds_than_layers() -> None:
    config = next(config for config in _CONFIGS if config["model_type"] == "olmo3")
    with pytest.raises(ModelFileError, match="kinds of 3 layers"):
        blueprint_from_config(config | {"layer_types": ["full_attention"] * 3}, "model")


def test_no_config_at_all() -> None:
    for config in ({}, {"model_type": 5}, {"model_type": None}, {"text_config": {"text_config": {}}}):
        with pytest.raises(ModelFileError):
            blueprint_from_config(config, "model")


@given(data=st.data())
def test_hostile_values_are_refused_or_ignored(data: st.DataObject) -> None:
    config = copy.copy(data.draw(st.sampled_from(_CONFIGS)))
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        if key != "model_type":
            config[key] = data.draw(st.sampled_from(_HOSTILE))
    _header_or_refusal(config)


@given(data=st.data(), family=st.sampled_from(MODEL_TYPES))
def test_small_models_of_any_family(data: st.DataObject, family: str) -> None:
    base = next((config for config in _CONFIGS if config["model_type"] in (family, family + "_text")), _CONFIGS[0])
    numbers = {key for key, value in base.items() if isinstance(value, int) and not isinstance(value, bool)}
    drawn = {key: data.draw(_SMALL, key) for key in sorted(numbers | set(_NEEDED))}
    _header_or_refusal(base | drawn | {"model_type": family})


def _header_or_refusal(config: dict[str, Any]) -> None:
    """A header with at least the embedding, or a ModelFileError with a hint."""
    try:
        header = blueprint_from_config(config, "model").header()
    except ModelFileError as error:
        assert error.message and error.hint
    else:
        assert any(tensor.name == "token_embd.weight" for tensor in header.tensors)
        assert all(0 < number < 2**50 for tensor in header.tensors for number in tensor.shape)
