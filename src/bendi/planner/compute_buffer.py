"""The engine's scratch memory: what is alive at the same time while a batch is computed.

The formulas were fitted to the allocator of llama.cpp's ggml for the architectures named here and agree with it to
within 0.1 MiB; for others they are generous.
"""

from __future__ import annotations

from bendi.planner.memory_facts import MemoryFacts
from bendi.planner.memory_setup import MemorySetup, pad_cells, window_cells
from bendi.units import KIB

_F32_BYTES = 4
_MASK_BYTES = 2
_INPUTS_BYTES = 32 * KIB
_DENSE = frozenset(
    {"llama", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "olmo2", "cohere2", "glm4", "starcoder2", "lfm2"}
)
_EXPERTS = frozenset({"llama", "olmoe", "qwen3moe", "glm4moe", "llama4", "gpt-oss"})
_STREAMS = {"cohere2": 6, "gpt-oss": 1}
"""Copies of the hidden state that are alive at the peak, where they are not five."""


def compute_bytes(model: MemoryFacts, setup: MemorySetup) -> int:
    """Bytes of the compute buffer: activations and attention masks of `n_ubatch` tokens.

    Conversations share a batch: more of them do not make it larger.
    """
    cells = pad_cells(setup.context_tok) if model.cache_layers else 0
    scores = 0 if setup.flash_attention else cells * model.head_count
    if any(layer.window for layer in model.cache_layers):
        cells += window_cells(model.window_tok, setup)
    mask_bytes = _MASK_BYTES if setup.flash_attention else _F32_BYTES
    numbers = _activations(model) + scores
    if setup.embeddings:  # every token of a batch has an output, not only the last one
        numbers = max(numbers, model.vocab_size + 6 * model.embedding_length) + model.embedding_length
    return setup.n_ubatch * (numbers * _F32_BYTES + cells * mask_bytes) + _INPUTS_BYTES


def compute_is_exact(model: MemoryFacts, setup: MemorySetup) -> bool:
    """Whether `compute_bytes` was compared with the engine for such a model and setup."""
    modelled = model.architecture in (_EXPERTS if model.expert_count else _DENSE)
    return modelled and setup.flash_attention and not setup.embeddings


def _activations(model: MemoryFacts) -> int:
    """F32 numbers for each token of a batch, at the peak."""
    embd, architecture = model.embedding_length, model.architecture
    streams = _STREAMS.get(architecture, 5) * embd
    gates = 1 if architecture == "starcoder2" else 3
    dense = gates * model.feed_forward_length + streams
    if architecture not in (_EXPERTS if model.expert_count else _DENSE):
        return _guess(model)
    if not model.expert_count:
        return dense
    forward = model.expert_used_count * model.expert_feed_forward_length
    mixed = model.expert_used_count * embd
    if architecture in ("llama", "olmoe"):
        return max(dense, 3 * forward + streams, forward + mixed + streams)
    return max(dense, 3 * forward + mixed + streams)


def _guess(model: MemoryFacts) -> int:
    """For architectures that nobody compared with the engine: more than any of those compared needs."""
    embd = model.embedding_length
    experts = model.expert_used_count * (3 * model.expert_feed_forward_length + 2 * embd)
    parts = (3 * model.feed_forward_length, experts, 3 * model.attention_length, 8 * model.recurrent_length)
    return 8 * embd + (sum(parts) if model.recurrent_length else max(parts))
