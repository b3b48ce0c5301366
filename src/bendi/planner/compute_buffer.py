"""The engine's scratch memory: what is alive at the same time while a batch is computed.

The formulas were fitted to the allocator of llama.cpp's ggml for the architectures named here and agree with it to
within 1 % or 16 MiB; for others, and where a recurrent state decides, they are bounds from above.
"""

from __future__ import annotations

from bendi.planner.memory_facts import MemoryFacts
from bendi.planner.memory_setup import F32_BYTES, MemorySetup, pad_cells, window_cells
from bendi.units import KIB

_MASK_BYTES = 2
_INPUTS_BYTES = 32 * KIB
_DENSE = frozenset(
    {
        *("llama", "mistral3", "smollm3", "arcee", "minicpm", "internlm2", "seed_oss", "ernie4_5", "hunyuan-dense"),
        *("qwen2", "qwen2vl", "qwen3", "qwen3vl", "qwen35", "phi3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4"),
        *("olmo2", "cohere2", "command-r", "glm4", "starcoder2", "granite", "exaone", "exaone4", "lfm2", "falcon-h1"),
    }
)
_LEAN_EXPERTS = frozenset(
    {"llama", "olmoe", "qwen2moe", "ernie4_5-moe", "hunyuan-moe", "minimax-m2", "phimoe", "lfm2moe", "jamba"}
)
"""Architectures whose results of several experts are not alive together with their feed-forward numbers."""
_FULL_EXPERTS = frozenset(
    {
        *("qwen3moe", "qwen3vlmoe", "qwen3next", "qwen35moe", "glm4moe", "llama4", "gpt-oss", "granitemoe"),
        *("granitehybrid", "dots1", "bailingmoe2", "gemma4", "deepseek2"),
    }
)
_STREAMS = {"cohere2": 6, "gpt-oss": 1, "granitehybrid": 6, "gemma3n": 6, "qwen3vl": 16, "qwen3vlmoe": 19}
"""Copies of the hidden state that are alive at the peak, where they are not five."""
_DEEP = frozenset({"qwen3vl", "qwen3vlmoe"})
"""Architectures in which images go into several layers, for which every token has room."""
_UNGATED = frozenset({"starcoder2", "arcee"})
_STATE_COPIES = 4


def compute_bytes(model: MemoryFacts, setup: MemorySetup) -> int:
    """Bytes of the compute buffer: activations and attention masks of `n_ubatch` tokens.

    Conversations share a batch: more of them make it larger only where each has a recurrent state.
    """
    cells = pad_cells(setup.context_tok) if model.cache_layers else 0
    # Encoders have no cache: the tokens of a batch look at one another.
    scores = 0 if setup.flash_attention else (cells or setup.n_ubatch) * model.head_count
    if any(layer.window for layer in model.cache_layers):
        cells += window_cells(model.window_tok, setup)
    mask_bytes = _MASK_BYTES if setup.flash_attention else F32_BYTES
    numbers = max(_activations(model, setup), _recurrent(model, setup)) + scores
    if setup.embeddings:  # every token of a batch has an output, not only the last one
        streams = (21 if model.architecture in _DEEP else 6) * model.embedding_length
        output = model.vocab_size + streams + model.layer_input_length if _writes(model) else 0
        numbers = max(numbers, output) + model.embedding_length
    return setup.n_ubatch * (numbers * F32_BYTES + cells * mask_bytes) + _INPUTS_BYTES


def compute_is_exact(model: MemoryFacts, setup: MemorySetup) -> bool:
    """Whether `compute_bytes` was compared with the engine for such a model and setup."""
    if model.architecture == "gemma4" and model.layer_input_length:
        return False
    decides = _recurrent(model, setup) <= _activations(model, setup)
    return _modelled(model) and decides and setup.flash_attention and not setup.embeddings


def _writes(model: MemoryFacts) -> bool:
    """Whether the model has an output for each token of its vocabulary: encoders have none."""
    return bool(model.cache_layers) or model.state_layer is not None


def _modelled(model: MemoryFacts) -> bool:
    if model.architecture == "deepseek2" and not model.compressed:
        return False
    known = _LEAN_EXPERTS | _FULL_EXPERTS if model.expert_count else _DENSE
    # Without experts Granite's hybrids are a little leaner with a quantized cache than is modelled.
    return model.architecture in known or model.architecture == "granitehybrid"


def _activations(model: MemoryFacts, setup: MemorySetup) -> int:
    """F32 numbers for each token of a batch, at the peak, without what recurrent states need."""
    if not _modelled(model):
        return _guess(model)
    embd, architecture = model.embedding_length, model.architecture
    copies = _STREAMS.get(architecture, 5)
    if architecture == "command-r" and (setup.type_k, setup.type_v) != ("f16", "f16"):
        copies += 1
    streams = copies * embd
    numbers = (1 if architecture in _UNGATED else 3) * model.feed_forward_length + streams
    if architecture == "gemma3n":
        numbers = max(numbers, 21 * embd)
    if model.compressed:
        numbers = max(numbers, model.attention_length + streams)
    if model.expert_count:
        forward = model.expert_used_count * model.expert_feed_forward_length
        mixed = model.expert_used_count * embd
        lean = max(3 * forward + streams, forward + mixed + streams)
        numbers = max(numbers, lean if architecture in _LEAN_EXPERTS else 3 * forward + mixed + streams)
    if model.layer_input_length:
        numbers += 2 * model.layer_input_length + (embd if architecture == "gemma4" else 0)
    return numbers


def _recurrent(model: MemoryFacts, setup: MemorySetup) -> int:
    """A bound for the numbers for each token in a layer with a recurrent state; 0 without."""
    layer = model.state_layer
    if layer is None:
        return 0
    states = -(-_STATE_COPIES * setup.parallel * layer.kept // setup.n_ubatch)
    return layer.projected + 2 * layer.convolved + layer.inner + 6 * model.embedding_length + states


def _guess(model: MemoryFacts) -> int:
    """For architectures that nobody compared with the engine: more than any of those compared needs."""
    embd = model.embedding_length
    experts = model.expert_used_count * (3 * model.expert_feed_forward_length + 2 * embd)
    parts = (3 * model.feed_forward_length, experts, 3 * model.attention_length)
    return 8 * embd + max(parts)
