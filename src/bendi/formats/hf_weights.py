"""How many weights the tensors of a safetensors model stand for, and which of them one token uses.

Quantized weights lie packed in integers, several in each, with scales beside them that are not weights. Layouts: GPTQ
and AWQ (`qweight`), compressed-tensors (`weight_packed`), MXFP4 of gpt-oss (`_blocks`), bitsandbytes (`weight` of
bytes), MLX (`weight` of 32-bit words).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bendi.formats.hf_config import ConfigFacts
from bendi.formats.tensor_table import DTYPE_BITS, SafetensorsTensor

_BESIDE = re.compile(
    r"[._](?:scales?|scale_inv|scale_2|weight_scale\w*|input_scale|input_global_scale|[kv]_scale|zero_point|qzeros|"
    r"g_idx|weight_shape|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|inv_freq|position_ids|"
    r"e_score_correction_bias)$"
)
"""Tensors that are not weights: scales and zero points, indices, tables."""
_LONGEST_BESIDE = 40
"""Characters at the end of a name in which those endings are looked for."""
_NEVER_WEIGHTS = frozenset({"BOOL", "I64", "U64", "C64", "F8_E8M0"})
_PACKED = (".qweight", ".weight_packed", ".weight", "_blocks", "_packed")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d{1,5})\.")
_BESIDE_TEXT = frozenset({
    "mtp", "visual", "vision_tower", "vision_model", "vision_encoder", "audio_tower", "audio_model", "embed_vision",
    "embed_audio", "multi_modal_projector", "mm_projector", "merger", "talker", "token2wav", "code2wav",
})  # fmt: skip
_HEAD = re.compile(
    r"(?:(?:language_model|model|transformer)\.)*(?:lm_head|embed_out|output|output_layer)\."
    r"(?:weight|qweight|weight_packed)"
)


@dataclass(frozen=True)
class WeightCount:
    """Weights in all tensors; those that one token of text uses; layers with experts; whether an output head is there.

    `vocabulary`: rows of the embedding, 0 where it is not found.
    """

    parameters: int
    active: int
    expert_layers: int
    has_head: bool
    vocabulary: int


def count_weights(tensors: Iterable[SafetensorsTensor], facts: ConfigFacts) -> WeightCount:
    """What `tensors` stand for in a model of these facts. Parts for images and sound count as parameters that a token
    of text does not use."""
    parameters = active = vocabulary = 0
    has_head = False
    expert_layers: set[str] = set()
    chosen, experts = facts.expert_used_count, facts.expert_count
    for tensor in tensors:
        weights = _weights(tensor, facts.bits)
        parameters += weights
        match = _LAYER.search(tensor.name)
        beyond = match is not None and int(match[1]) >= len(facts.layers)
        if beyond or not _BESIDE_TEXT.isdisjoint(tensor.name.split(".")[:-1]):
            continue
        if match is None and not has_head:
            has_head = _HEAD.fullmatch(tensor.name) is not None
        if tensor.name.endswith(("embed_tokens.weight", "word_embeddings.weight", "wte.weight")) and tensor.shape:
            vocabulary = tensor.shape[0]
        if experts and ".experts." in tensor.name:
            active += weights * chosen // experts
            if match:
                expert_layers.add(match[1])
        else:
            active += weights
    return WeightCount(parameters, active, len(expert_layers), has_head, vocabulary)


def _weights(tensor: SafetensorsTensor, bits: int) -> int:
    if tensor.dtype in _NEVER_WEIGHTS:
        return 0
    whole = tensor.dtype.startswith(("U", "I")) and tensor.dtype != "I8"
    if whole and not tensor.name.endswith(_PACKED):
        return 0
    if _BESIDE.search(tensor.name, max(len(tensor.name) - _LONGEST_BESIDE, 0)):
        return 0
    if not whole:
        return tensor.elements
    if tensor.dtype == "U8":
        return tensor.elements * 2 if bits in (0, 4) else tensor.elements
    return tensor.elements * DTYPE_BITS[tensor.dtype] // bits if bits else tensor.elements
