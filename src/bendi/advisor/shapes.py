"""Models in every quantization, worked out from a header or from the dimensions in a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bendi.errors import UsageError
from bendi.formats import GgufFile
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.mixture_rules import ALIASES, FILE_TYPES
from bendi.planner.subject import Subject, offered, subjects_of
from bendi.store.known_models import KnownModel

_OTHER_NAMES = {"FP16": "F16", "FP32": "F32", "MXFP4": "MXFP4_MOE"}
"""How file names spell file types of llama.cpp."""


def worked_out(model: KnownModel) -> list[Subject]:
    """A known model in the quantizations that are offered. Raises ModelFileError for dimensions that are not known."""
    parts = parts_of_config(model.config, model.title)
    return subjects_of(model.alias, parts, offered(parts))


def parts_of_config(config: Mapping[str, object], name: str) -> tuple[GgufFile, ...]:
    """The header that a converter would write. Raises ModelFileError for a model that it does not know."""
    return (blueprint_from_config(dict(config), name).header(),)


def file_type_of(label: str) -> str | None:
    """The file type that a quantization's name in a file name means; None for mixtures of a maker's own."""
    name = label.upper()
    name = _OTHER_NAMES.get(name, name)
    name = ALIASES.get(name, name)
    return name if name in FILE_TYPES else None


def subjects_for(name: str, parts: Sequence[GgufFile], file_types: Sequence[str]) -> list[Subject]:
    """The model in those of `file_types` that llama.cpp can make of it."""
    found: list[Subject] = []
    for file_type in file_types:
        try:
            found += subjects_of(name, parts, (file_type,))
        except UsageError:
            continue  # its rows are no whole number of blocks
    return found
