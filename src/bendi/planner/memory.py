"""What a conversation needs in memory, and the context length that fits."""

from __future__ import annotations

from bendi.formats import ModelInfo
from bendi.units import MIB

COMPUTE_RESERVE_BYTES = 512 * MIB
"""Kept free for compute and output buffers and for the rest of the system."""
_F16_BYTES = 2
_CELLS = 256  # llama.cpp allocates the KV cache in multiples of 256 tokens (llama-kv-cache.cpp)
_SMALLEST_CONTEXT_TOK = 512


def kv_bytes_per_token(info: ModelInfo) -> int:
    """Bytes of F16 KV cache for one token, over all layers with attention.

    Keys and values of each layer are `head_count_kv x (key_length + value_length)` numbers. Sliding windows and
    compressed (MLA) caches need less: this is an upper bound there. Source: llama.cpp `llama-kv-cache.cpp`.
    """
    heads = info.head_count_kv
    per_layer = heads if isinstance(heads, tuple) else (heads,) * info.block_count
    return sum(count * (info.key_length + info.value_length) for count in per_layer) * _F16_BYTES


def context_that_fits(info: ModelInfo, usable_bytes: int, weights_bytes: int) -> int:
    """The longest context, up to what the model was trained for, whose KV cache fits beside the weights.

    Returns 0 when not even 512 tokens fit. `usable_bytes`: memory that a model may use now.
    """
    train_tok = info.context_length or _SMALLEST_CONTEXT_TOK
    per_token_bytes = kv_bytes_per_token(info)
    if per_token_bytes == 0:
        return train_tok
    room_bytes = usable_bytes - weights_bytes - COMPUTE_RESERVE_BYTES
    fits_tok = max(room_bytes // per_token_bytes, 0)
    if fits_tok >= train_tok:
        return train_tok
    fits_tok = fits_tok // _CELLS * _CELLS
    return fits_tok if fits_tok >= min(_SMALLEST_CONTEXT_TOK, train_tok) else 0
