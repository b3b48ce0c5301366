"""What a model is mostly used for, by its header: chat, embeddings or reranking."""

from __future__ import annotations

from pathlib import Path

from bendi.formats import read_gguf
from bendi.server.pool_words import Kind

_NO_POOLING = 0
_RANKING = 4
"""Values of `pooling_type` as GGUF files have them."""


def usual_kind(path: Path) -> Kind:
    """Raises ModelFileError when it is no model."""
    gguf = read_gguf(path)
    architecture = gguf.text("general.architecture") or ""
    pooling = gguf.integer(f"{architecture}.pooling_type")
    if pooling is None or pooling == _NO_POOLING:
        return "text"
    return "rerank" if pooling == _RANKING else "embedding"
