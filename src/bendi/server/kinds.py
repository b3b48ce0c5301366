"""What a model is mostly used for, by its header: chat, embeddings or reranking."""

from __future__ import annotations

from pathlib import Path

from bendi.formats import read_gguf
from bendi.planner import memory_facts
from bendi.server.pool_words import Kind

_RANKING = 4
"""Value of `pooling_type` as GGUF files have it; 0 or none: they do not say."""


def usual_kind(path: Path) -> Kind:
    """Raises ModelFileError when it is no model."""
    gguf = read_gguf(path)
    architecture = gguf.text("general.architecture") or ""
    pooling = gguf.integer(f"{architecture}.pooling_type")
    if pooling == _RANKING or any(tensor.name == "cls.output.weight" for tensor in gguf.tensors):
        return "rerank"
    facts = memory_facts(gguf)
    writes = bool(facts.cache_layers) or facts.state_numbers > 0
    return "text" if writes and not pooling else "embedding"
