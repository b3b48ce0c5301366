"""The manifest of an Ollama model: a list of layers, each a blob named after its hash. Here and far away the same."""

from __future__ import annotations

import re
from typing import Any

_LAYER = "application/vnd.ollama.image."
_MAX_LAYERS = 1000
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def manifest_layers(manifest: Any) -> list[tuple[str, str, object]] | None:
    """(kind, SHA-256, size) of the layers of a manifest; None when it is not a manifest that can be trusted."""
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        return None
    result = []
    for layer in layers:
        if not isinstance(layer, dict):
            return None
        media_type = str(layer.get("mediaType")).partition(";")[0].strip()
        digest = _DIGEST.fullmatch(str(layer.get("digest")))
        if not digest:
            return None
        result.append((media_type.removeprefix(_LAYER), digest[1], layer.get("size")))
    return result
