"""Models and short names as JSON values: what the terminal prints and the server sends. Keys stay what they are."""

from __future__ import annotations

from typing import Any

from bendi.store.catalogue import DEMO, Catalogue
from bendi.store.discover import LocalModel
from bendi.store.names import AliasName, format_name


def model_record(model: LocalModel) -> dict[str, object]:
    """One line of `bendi list --json`."""
    return {
        "name": model.name,
        "path": str(model.path),
        "parts": [str(path) for path in model.parts],
        "size_bytes": model.size_bytes,
        "quantization": model.label,
        "origin": model.origin,
        "owned": model.owned,
        "complete": model.complete,
    }


def catalogue_records(catalogue: Catalogue, text: str = "") -> list[dict[str, Any]]:
    """The short names that have `text` in them, with what they stand for, best source first."""
    return [
        {"name": alias, "sources": [format_name(target) for target in catalogue.targets(AliasName(alias))]}
        for alias in catalogue.names()
        if text.casefold() in alias and alias != DEMO
    ]
