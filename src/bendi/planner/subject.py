"""What is planned: one model in one quantization, and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bendi.formats import GgufFile, file_type_name
from bendi.planner.layers import Header, LayeredWeights, layered, read_header
from bendi.planner.memory_facts import MemoryFacts
from bendi.planner.mixture import TensorShape, facts_of, quantized_types
from bendi.planner.mixture_rules import IMATRIX_TYPES, IMATRIX_TYPES_OF, ROLE_BY_NAME
from bendi.planner.plan import WORKLOADS, Workload
from bendi.planner.work import ModelWork

OFFERED = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
"""Quantizations that are shown unasked, the largest first."""
OFFERED_FOR_EXPERTS = "MXFP4_MOE"
"""Offered beside them for models of experts."""
_KEYS_BYTES = 4096
_TOKEN_BYTES = 40
"""What a header takes for each token of its vocabulary (text, kind, merges): 41 to 65 in those of Qwen 2, Command-R,
Gemma 4 and Llama 3."""
_TENSOR_BYTES = 64


@dataclass(frozen=True)
class Subject:
    """One model in one quantization. `layers`: the same work, layer by layer. `file_bytes`: of its files, headers
    included. `imatrix_needed`: this quantization cannot be made without an importance matrix."""

    model: str
    quantization: str
    work: ModelWork
    facts: MemoryFacts
    file_bytes: int
    imatrix_needed: bool
    layers: LayeredWeights


@dataclass(frozen=True)
class Conditions:
    """What is asked. `context_tok`: None: chosen, at least `min_context_tok` and what the workload needs if that is
    possible. `type_k`, `type_v`: of the KV cache, None: chosen. `no_spill`: weights must not come from the disk again
    and again. `threads`: None: chosen. `build`: the engine build that the plan is for."""

    workload: Workload = WORKLOADS["chat"]
    context_tok: int | None = None
    min_context_tok: int = 0
    type_k: str | None = None
    type_v: str | None = None
    parallel: int = 1
    no_spill: bool = False
    threads: int | None = None
    build: str = ""


def offered(parts: Sequence[GgufFile]) -> list[str]:
    """The quantizations that are shown unasked for this model."""
    experts = facts_of(parts[0]).expert_count > 0
    return [*OFFERED, OFFERED_FOR_EXPERTS] if experts else [*OFFERED]


def subjects_of(name: str, parts: Sequence[GgufFile], file_types: Sequence[str] | None = None) -> list[Subject]:
    """The model `name`, whose header `parts` are, in each of `file_types`; None: only as it is.

    For quantizing, the header gives the shapes; the types it has now do not matter. Raises UsageError for an unknown
    file type and for one that llama.cpp cannot apply to this model.
    """
    header = read_header(parts)
    if file_types is None:
        number = parts[0].integer("general.file_type")
        stated = file_type_name(number) if number is not None else None
        work, facts, layers = layered(header)
        own_bytes = sum(part.file_size_bytes for part in parts)
        file_bytes = own_bytes if parts[0].data_offset else work.total_bytes + _header_bytes(header)
        return [Subject(name, stated or _dominant(work), work, facts, file_bytes, False, layers)]
    shapes = [TensorShape(tensor.name, tensor.shape, _unquantized(tensor.type.name)) for tensor in header.tensors]
    header_bytes = sum(part.data_offset for part in parts) or _header_bytes(header)
    return [_quantized(name, file_type, header, shapes, parts[0], header_bytes) for file_type in file_types]


def _quantized(
    name: str, file_type: str, header: Header, shapes: Sequence[TensorShape], first: GgufFile, header_bytes: int
) -> Subject:
    types = quantized_types(shapes, facts_of(first), file_type)
    work, facts, layers = layered(header, types)
    needing = IMATRIX_TYPES | IMATRIX_TYPES_OF.get(file_type.upper(), frozenset())
    imatrix = any(
        chosen in needing and shape.name not in ROLE_BY_NAME for shape, chosen in zip(shapes, types, strict=True)
    )
    return Subject(name, file_type.upper(), work, facts, work.total_bytes + header_bytes, imatrix, layers)


def _unquantized(type_name: str) -> str:
    """What a tensor was before quantization, for those that no quantization touches: converters write these as F32."""
    return type_name if type_name in ("F32", "F16", "BF16") else "F32"


def _header_bytes(header: Header) -> int:
    return _KEYS_BYTES + _TOKEN_BYTES * header.facts.vocab_size + _TENSOR_BYTES * len(header.tensors)


def _dominant(work: ModelWork) -> str:
    return max(work.weights, key=lambda group: group.total_bytes).type_name if work.weights else ""
