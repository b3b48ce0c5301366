"""How a model is loaded that makes vectors or scores instead of text: what becomes of the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from bendi.engines.protocol import LoadRequest
from bendi.errors import ModelFileError
from bendi.formats import GgufFile
from bendi.i18n import _
from bendi.planner import MemoryFacts

_BY_NUMBER = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""llama.cpp's `llama_pooling_type`, as headers have it."""
_SCORES_ARE_PROBABILITIES = frozenset({"qwen3", "qwen3vl"})
"""Architectures whose ranking ends in a softmax of "yes" and "no" (llama.cpp `build_pooling`)."""


def pooling(load: LoadRequest, headers: Sequence[GgufFile]) -> str:
    """`"mean"`, `"cls"`, `"last"` or `"rank"`; empty for a model that is to write text.

    Raises ModelFileError when this model cannot do what `load` wants of it.
    """
    head = headers[0]
    stated = _BY_NUMBER.get(head.integer(f"{head.architecture}.pooling_type") or 0, "")
    if load.reranking:
        _check_ranks(headers)
        return "rank"
    if not load.embeddings:
        return ""
    if stated == "rank":
        raise ModelFileError(
            _("{path} ranks documents; it makes no embeddings.").format(path=load.model_path),
            hint=_("Choose an embedding model, or use this one for reranking."),
        )
    return load.pooling or stated or "mean"


def takes_whole_inputs(pooled: str, headers: Sequence[GgufFile], facts: MemoryFacts) -> bool:
    """Whether an input must be computed at once: where tokens look ahead, or where all of them count."""
    if not pooled:
        return False
    looks_back = (
        bool(facts.cache_layers) and headers[0].metadata.get(f"{facts.architecture}.attention.causal") is not False
    )
    return not (looks_back and pooled in ("last", "rank"))


def scores_are_probabilities(headers: Sequence[GgufFile]) -> bool:
    """Whether the scores of a model that ranks are between 0 and 1 already; otherwise they are log-odds."""
    return headers[0].architecture in _SCORES_ARE_PROBABILITIES


def _check_ranks(headers: Sequence[GgufFile]) -> None:
    """Without an output for it, what the engine calls a score means nothing."""
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    output = tensors.get("cls.output.weight")
    classes = output.shape[1] if output is not None and len(output.shape) > 1 else 1
    if output is None and "cls.weight" not in tensors:
        what = _("it has no output for scores")
    elif classes > 1 and not scores_are_probabilities(headers):
        what = _("it sorts texts into {count} classes").format(count=classes)
    else:
        return
    raise ModelFileError(
        _("This model cannot rank documents: {reason}.").format(reason=what),
        hint=_("Choose a reranking model, such as bge-reranker-v2-m3 or qwen3-reranker."),
    )
