"""The facts of models.toml: complete, in range, in agreement with the catalogue and with what the configs describe."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from importlib import resources
from math import prod
from typing import get_args

import pytest

from bendi.formats.blueprints import blueprint_from_config
from bendi.store.known_models import COUNT_ONLY, Kind, KnownModel, Thinking, Use, known_models
from bendi.store.names import AliasName, RepoName, parse_name

MODELS = known_models()
WITHOUT_FACTS = {"qwen3.8:27b", "minicpm5:1b", "hy-mt2:1.8b", "hy-mt2:7b"}
"""Short names of the catalogue whose dimensions nobody has published where they could be read."""
SIZES = ((0, 1e9), (1e9, 5e9), (5e9, 10e9), (10e9, 20e9), (20e9, 40e9), (40e9, 150e9), (150e9, 1e13))
MONTH = re.compile(r"20\d\d-(0[1-9]|1[0-2])")


def catalogue() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = tomllib.loads(
        resources.files("bendi.store").joinpath("catalogue.toml").read_text("utf-8")
    )["models"]
    return table


def is_past(month: str) -> bool:
    return bool(MONTH.fullmatch(month)) and month <= datetime.now(UTC).strftime("%Y-%m")


def in_class(low: float, high: float) -> list[KnownModel]:
    return [model for model in MODELS.values() if low <= model.parameters < high and "chat" in model.uses]


def test_many_models_are_known() -> None:
    assert len(MODELS) >= 80


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_entry_is_complete_and_in_range(model: KnownModel) -> None:
    assert all((model.title, model.maker, model.licence, model.languages, model.uses, model.config_source))
    assert is_past(model.released)
    assert model.kind in get_args(Kind)
    assert model.thinking in get_args(Thinking)
    assert model.uses <= set(get_args(Use))
    assert all(code == "multilingual" or re.fullmatch("[a-z]{2}", code) for code in model.languages)
    assert len(set(model.languages)) == len(model.languages)
    assert 128 <= model.context_tok <= 2**24
    assert 10**7 < model.parameters < 10**13
    assert ("embedding" in model.uses) == (model.thinking == "embedding")


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_active_parameters_are_fewer_with_experts_only(model: KnownModel) -> None:
    if model.kind == "moe":
        assert model.active_parameters < model.parameters
    else:
        assert model.active_parameters == model.parameters


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_scores_are_sourced(model: KnownModel) -> None:
    for score in model.scores:
        assert score.benchmark
        assert 0 < score.value <= 100
        assert score.source.startswith("https://")
        assert not score.copy or score.copy.startswith("https://")
        assert is_past(score.date)
    keys = [(score.benchmark, score.setting) for score in model.scores]
    assert len(set(keys)) == len(keys)


def test_two_thirds_of_the_models_have_scores() -> None:
    assert sum(bool(model.scores) for model in MODELS.values()) >= len(MODELS) * 2 / 3


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_config_has_a_source(model: KnownModel) -> None:
    source = model.config_source.removeprefix(COUNT_ONLY)
    assert source.startswith("https://") or (source != model.config_source and source)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_parameters_agree_with_the_config(model: KnownModel) -> None:
    blueprint = blueprint_from_config(model.config, model.title)
    counted = sum(prod(shape) for shape in blueprint.tensors.values())
    assert counted == pytest.approx(model.parameters, rel=0.01)
    assert ("expert_count" in blueprint.metadata) == (model.kind == "moe")


def test_short_names_agree_with_the_catalogue() -> None:
    repositories = catalogue()
    assert set(repositories) - set(MODELS) == WITHOUT_FACTS
    for alias, model in MODELS.items():
        assert parse_name(alias) == AliasName(alias)
        assert alias in repositories or model.weights
        if model.weights:
            assert isinstance(parse_name(model.weights), RepoName)
    for entry in repositories.values():
        assert entry and set(entry) <= {"hf", "ms"}


@pytest.mark.parametrize(("low", "high"), SIZES)
def test_every_size_class_speaks_chinese_and_english(low: float, high: float) -> None:
    both = [model for model in in_class(low, high) if {"en", "zh"} <= set(model.languages)]
    assert len(both) >= 2


def test_every_name_in_sources_is_used() -> None:
    table = tomllib.loads(resources.files("bendi.store").joinpath("models.toml").read_text("utf-8"))
    used = {score["source"] for facts in table["models"].values() for score in facts.get("scores", ())}
    used |= {facts["config_source"].removeprefix(COUNT_ONLY) for facts in table["models"].values()}
    assert set(table["sources"]) <= used


def test_running_a_model_does_not_read_the_facts() -> None:
    code = "import sys, bendi.store; sys.exit('bendi.store.known_models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_entries_cannot_be_changed() -> None:
    model = MODELS["qwen3:8b"]
    with pytest.raises(TypeError):
        model.config["hidden_size"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        MODELS["other"] = model  # type: ignore[index]
