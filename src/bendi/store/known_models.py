"""Facts of current open models, for choosing one before anything is downloaded: dimensions, licences, quality scores.

The facts are in `models.toml`, under the short names of the catalogue where a GGUF repository is known. They are read
only by what ranks models; a run of a model never needs them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["dense", "moe"]
Thinking = Literal["instruct", "thinking", "hybrid", "base", "embedding", "rerank"]
Use = Literal["chat", "code", "rag", "summarise", "translate", "reasoning", "tools", "vision", "embedding"]

COUNT_ONLY = "parameter count of "
"""What `config_source` begins with where only the number of parameters could be compared with a published one."""


@dataclass(frozen=True)
class Score:
    """A published quality score. `value`: 0 to 100. `source`: where it was published; `copy`: where it was read when
    that is elsewhere, else empty. `date`: month of publication, "2025-04". `setting`: such as "thinking", or empty."""

    benchmark: str
    value: float
    source: str
    date: str
    setting: str = ""
    copy: str = ""


@dataclass(frozen=True)
class KnownModel:
    """A model as its maker published it.

    `parameters`: of the language model, without parts for images and sound; `active_parameters`: used for one token.
    `context_tok`: what it was trained for. `languages`: codes, "multilingual" first where there are many more.
    `config`: what of its config.json decides the shapes. `weights`: the repository of its safetensors, as a name.
    """

    alias: str
    title: str
    maker: str
    released: str
    licence: str
    kind: Kind
    thinking: Thinking
    languages: tuple[str, ...]
    uses: frozenset[Use]
    context_tok: int
    parameters: int
    active_parameters: int
    config: Mapping[str, object]
    config_source: str
    scores: tuple[Score, ...]
    weights: str


@cache
def known_models() -> Mapping[str, KnownModel]:
    """Every known model by its short name, in the order of the file: by maker and family."""
    table = tomllib.loads(resources.files("bendi.store").joinpath("models.toml").read_text("utf-8"))
    sources: dict[str, dict[str, str]] = table["sources"]
    return MappingProxyType({alias: _model(alias, facts, sources) for alias, facts in table["models"].items()})


def _model(alias: str, facts: dict[str, Any], sources: dict[str, dict[str, str]]) -> KnownModel:
    return KnownModel(
        alias=alias,
        title=facts["title"],
        maker=facts["maker"],
        released=facts["released"],
        licence=facts["licence"],
        kind=facts["kind"],
        thinking=facts["thinking"],
        languages=tuple(facts["languages"]),
        uses=frozenset(facts["uses"]),
        context_tok=facts["context_tok"],
        parameters=facts["parameters"],
        active_parameters=facts.get("active_parameters", facts["parameters"]),
        config=MappingProxyType(facts["config"]),
        config_source=_config_source(facts["config_source"], sources),
        scores=tuple(_score(score, sources) for score in facts.get("scores", ())),
        weights=facts.get("weights", ""),
    )


def _config_source(text: str, sources: dict[str, dict[str, str]]) -> str:
    prefix = COUNT_ONLY if text.startswith(COUNT_ONLY) else ""
    name = text.removeprefix(prefix)
    return prefix + (sources[name]["url"] if name in sources else name)


def _score(score: dict[str, Any], sources: dict[str, dict[str, str]]) -> Score:
    source = sources[score["source"]]
    return Score(
        benchmark=score["benchmark"],
        value=score["value"],
        source=source["url"],
        date=source["date"],
        setting=score.get("setting", ""),
        copy=source.get("copy", ""),
    )
