"""Models without attention: Mamba and Mamba 2."""

from __future__ import annotations

from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_draft import Dims, Draft
from bendi.formats.blueprint_parts import State, mamba1, mamba2
from bendi.formats.blueprint_reader import MAX_VOCAB, ConfigReader
from bendi.formats.gguf_check import MAX_LAYERS

_CONTEXT_TOK = 2**20
"""What the converter writes for models whose context has no limit."""


def mamba(config: ConfigReader, name: str, *, second: bool) -> Blueprint:
    """`second`: Mamba 2."""
    unit = config.whole("pad_vocab_size_multiple", 16 if second else 8, high=4096)
    vocab = unit * -(-config.whole("vocab_size", high=MAX_VOCAB) // unit)
    embd = config.whole("hidden_size")
    d = Dims(
        layers=config.whole("num_hidden_layers", high=MAX_LAYERS),
        embd=embd,
        ff=0,
        heads=0,
        kv=0,
        head=0,
        vocab=vocab,
        context=_CONTEXT_TOK,
        tied=config.flag("tie_word_embeddings"),
    )
    s = _state2(config, embd) if second else _state1(config, embd)
    draft = Draft(name, "mamba2" if second else "mamba", config, d)
    for key in ("attention.key_length", "attention.value_length", "attention.head_count_kv"):
        del draft.metadata[key]
    epsilon = config.number("layer_norm_epsilon", 1e-5) or 1e-5
    draft.metadata |= s.metadata | {"attention.layer_norm_rms_epsilon": epsilon}
    if not second:
        del draft.metadata["ssm.group_count"]
    if config.text("model_type") == "falcon_mamba":
        draft.metadata["ssm.dt_b_c_rms"] = True
    draft.add_ends()
    for layer in range(d.layers):
        draft.add_block(layer, (("attn_norm.weight", (embd,)), *(mamba2(d, s) if second else mamba1(d, s))))
    return draft.done()


def _state1(config: ConfigReader, embd: int) -> State:
    return State(
        inner=config.whole("intermediate_size", 2 * embd),
        state=config.whole("state_size", 16),
        heads=config.whole("time_step_rank", -(-embd // 16)),
        groups=0,
        kernel=config.whole("conv_kernel", 4, high=64),
    )


def _state2(config: ConfigReader, embd: int) -> State:
    inner = config.whole("expand", 2, high=64) * embd
    return State(
        inner=inner,
        state=config.whole("state_size", 128),
        heads=max(inner // config.whole("head_dim", 64), 1),
        groups=config.whole("n_groups", 1),
        kernel=config.whole("conv_kernel", 4, high=64),
    )
