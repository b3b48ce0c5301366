"""What a conversation needs in memory, and the context length that fits. CPU only: one device holds everything."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.planner.bisection import largest_that
from bendi.planner.compute_buffer import compute_bytes, compute_is_exact
from bendi.planner.memory_facts import MemoryFacts
from bendi.planner.memory_setup import CELLS, F32_BYTES, MemorySetup, for_whole_inputs, pad_cells, window_cells
from bendi.units import MIB

SYSTEM_RESERVE_BYTES = 256 * MIB
"""Kept free for the worker itself (its code, the vocabulary) and for the rest of the system."""
CHECKPOINTS_BYTES = 512 * MIB
"""Room for copies of windows and recurrent states at earlier turns, unless one copy needs more."""
_MOST_CHECKPOINTS, _LEAST_CHECKPOINTS = 32, 1
_SMALLEST_CONTEXT_TOK = 512


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by purpose. `weights_bytes` are mapped from the file and can be paged out; all others cannot.

    `exact`: the engine allocates these sizes, to within 1 % or 16 MiB. Otherwise `compute_bytes` is a bound from above
    where it was compared with the engine and a generous guess elsewhere; so is `kv_bytes` for an architecture with a
    cache of its own kind. `checkpoint_bytes`: copies of windows and states at earlier turns, which cannot be rolled
    back; they are made while it works, so it is a bound.
    """

    weights_bytes: int
    kv_bytes: int
    recurrent_state_bytes: int
    compute_bytes: int
    output_bytes: int
    exact: bool
    checkpoint_bytes: int = 0

    @property
    def beside_weights_bytes(self) -> int:
        """What must stay in memory however the weights are read."""
        buffers_bytes = self.compute_bytes + self.output_bytes + self.checkpoint_bytes
        return self.kv_bytes + self.recurrent_state_bytes + buffers_bytes

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.beside_weights_bytes


def memory_needed(model: MemoryFacts, setup: MemorySetup) -> MemoryNeed:
    """The memory that the engine takes for `model` when it is loaded as `setup` says."""
    outputs = model.vocab_size + (model.embedding_length if setup.embeddings else 0)
    return MemoryNeed(
        weights_bytes=model.weights_bytes,
        kv_bytes=kv_bytes(model, setup),
        recurrent_state_bytes=model.state_numbers * F32_BYTES * setup.parallel,
        compute_bytes=compute_bytes(model, setup),
        output_bytes=outputs * F32_BYTES * setup.parallel,
        exact=model.known_cache and compute_is_exact(model, setup),
        checkpoint_bytes=checkpoint_bytes(model, setup),
    )


def checkpoint_count(model: MemoryFacts, setup: MemorySetup) -> int:
    """How many checkpoints the engine may keep of each conversation."""
    one_bytes = _one_checkpoint_bytes(model, setup) * setup.parallel
    fitting = CHECKPOINTS_BYTES // one_bytes if one_bytes else _MOST_CHECKPOINTS
    return max(min(fitting, _MOST_CHECKPOINTS), _LEAST_CHECKPOINTS)


def checkpoint_bytes(model: MemoryFacts, setup: MemorySetup) -> int:
    """Bytes of all checkpoints of all conversations at most. Source: llama.cpp `tools/server/server-context.cpp`."""
    one_bytes = _one_checkpoint_bytes(model, setup) * setup.parallel
    return max(min(_MOST_CHECKPOINTS * one_bytes, CHECKPOINTS_BYTES), _LEAST_CHECKPOINTS * one_bytes)


def _one_checkpoint_bytes(model: MemoryFacts, setup: MemorySetup) -> int:
    windows = tuple(layer for layer in model.cache_layers if layer.window)
    one = replace(setup, parallel=1)
    return kv_bytes(replace(model, cache_layers=windows), one) + model.state_numbers * F32_BYTES


def kv_bytes(model: MemoryFacts, setup: MemorySetup) -> int:
    """Bytes of KV cache. Source of the sizes: llama.cpp `llama-kv-cache.cpp`, `llama-kv-cache-iswa.cpp`.

    Without flash attention values are kept transposed, and every layer has as many as the one with the most.
    """
    full = pad_cells(setup.context_tok) * setup.parallel
    window = window_cells(model.window_tok, setup) * setup.parallel
    most = 0 if setup.flash_attention else max((layer.value_numbers for layer in model.cache_layers), default=0)
    return sum(
        (window if layer.window else full)
        * (
            _row_bytes(layer.key_numbers, setup.type_k)
            + _row_bytes(max(layer.value_numbers, most) if layer.value_numbers else 0, setup.type_v)
        )
        for layer in model.cache_layers
    )


def context_that_fits(
    model: MemoryFacts, usable_bytes: int, weights_bytes: int, parallel: int = 1, *, whole_inputs: bool = False
) -> int:
    """The longest context, up to what the model was trained for, that fits beside the weights.

    Returns 0 when not even 512 tokens fit. `usable_bytes`: memory that a model may use now. `parallel`: conversations,
    each of which gets the context. `whole_inputs`: all tokens of a context are computed at once.
    """
    train_tok = model.context_length or _SMALLEST_CONTEXT_TOK
    room_bytes = usable_bytes - weights_bytes - SYSTEM_RESERVE_BYTES

    def fits(context_tok: int) -> bool:
        setup = MemorySetup(context_tok, parallel)
        if whole_inputs:
            setup = for_whole_inputs(setup)
        return memory_needed(model, setup).beside_weights_bytes <= room_bytes

    if fits(train_tok):
        return train_tok
    smallest_tok = min(_SMALLEST_CONTEXT_TOK, train_tok)
    longest_tok = CELLS * largest_that(lambda cells: fits(cells * CELLS), train_tok // CELLS)
    return longest_tok if longest_tok >= smallest_tok else 0


def _row_bytes(numbers: int, type_name: str) -> int:
    kind = TENSOR_TYPES_BY_NAME[type_name.upper()]
    return -(-numbers // kind.block_weights) * kind.block_bytes
