"""Models that turn a text into numbers instead of continuing it: BERT and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_draft import Dims, Draft, Tensor, read_dims
from bendi.formats.blueprint_reader import ConfigReader
from bendi.formats.gguf_check import MAX_EXPERTS

_MAX_CONTEXT_TOK = 2**24
_MEAN, _CLS = 1, 2


def bert(config: ConfigReader, name: str, *, offset: bool) -> Blueprint:
    """`offset`: positions are counted from the padding token on (RoBERTa and its likes)."""
    d = read_dims(config)
    if offset:
        first = config.whole("pad_token_id", 1, low=0, high=1024) + 1
        d = replace(d, context=max(d.context - first, 1))
    ranks = any("SequenceClassification" in str(kind) for kind in _architectures(config))
    draft = _encoder(config, name, "bert", d)
    draft.add(("position_embd.weight", (d.embd, d.context)))
    if ranks:
        draft.metadata["classifier.output_labels"] = ["LABEL_0"]
        draft.add(("cls.weight", (d.embd, d.embd)), ("cls.bias", (d.embd,)))
        draft.add(("cls.output.weight", (d.embd, 1)), ("cls.output.bias", (1,)))
    for layer in range(d.layers):
        draft.add_block(layer, _layer(d))
    return draft.done()


def nomic_bert(config: ConfigReader, name: str) -> Blueprint:
    every = config.whole("moe_every_n_layers", 0, low=0, high=64)
    positions = config.whole("max_position_embeddings", 2048, high=_MAX_CONTEXT_TOK)
    d = read_dims(config)
    # Positions that the class can have, not those of the training; the converter knows the two models that there are.
    d = replace(d, ff=config.whole("n_inner", 4 * d.embd), context={8192: 2048, 2048: 512}.get(positions, positions))
    d = replace(d, experts=config.whole("num_experts", 0, low=0, high=MAX_EXPERTS) if every else 0)
    draft = _encoder(config, name, "nomic-bert-moe" if every else "nomic-bert", d)
    if every:
        draft.metadata |= {
            "moe_every_n_layers": every,
            "expert_count": d.experts,
            "expert_used_count": config.whole("moe_top_k", 1, high=max(d.experts, 1)),
        }
    for layer in range(d.layers):
        draft.add_block(layer, _nomic_layer(d, mixed=bool(every) and layer % every == 1, biases=bool(every)))
    return draft.done()


def modern_bert(config: ConfigReader, name: str) -> Blueprint:
    d = read_dims(config)
    draft = Draft(name, "modern-bert", config, d)
    draft.metadata |= {
        "attention.causal": False,
        "attention.sliding_window": config.whole("local_attention", 128, high=_MAX_CONTEXT_TOK),
        "attention.sliding_window_pattern": config.whole("global_attn_every_n_layers", 3, high=d.layers),
        "pooling_type": _MEAN if config.text("classifier_pooling") == "mean" else _CLS,
    }
    draft.add(("token_embd.weight", (d.embd, d.vocab)), ("token_embd_norm.weight", (d.embd,)))
    draft.add(("output_norm.weight", (d.embd,)))
    for layer in range(d.layers):
        if layer:
            draft.add_block(layer, (("attn_norm.weight", (d.embd,)),))
        draft.add_block(
            layer,
            (
                ("attn_qkv.weight", (d.embd, 3 * d.embd)),
                ("attn_output.weight", (d.embd, d.embd)),
                ("ffn_norm.weight", (d.embd,)),
                ("ffn_up.weight", (d.embd, 2 * d.ff)),
                ("ffn_down.weight", (d.ff, d.embd)),
            ),
        )
    return draft.done()


def _encoder(config: ConfigReader, name: str, architecture: str, d: Dims) -> Draft:
    types = config.whole("type_vocab_size", 2, low=1, high=1024)
    draft = Draft(name, architecture, config, d)
    draft.metadata |= {
        "attention.causal": False,
        "pooling_type": _MEAN if architecture != "bert" else _CLS,
        "tokenizer.ggml.token_type_count": types,
    }
    draft.add(("token_embd.weight", (d.embd, d.vocab)), ("token_types.weight", (d.embd, types)))
    draft.add(("token_embd_norm.weight", (d.embd,)), ("token_embd_norm.bias", (d.embd,)))
    return draft


def _layer(d: Dims) -> Iterator[Tensor]:
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield from ((f"{part}.weight", (d.embd, d.embd)), (f"{part}.bias", (d.embd,)))
    yield from (("ffn_up.weight", (d.embd, d.ff)), ("ffn_up.bias", (d.ff,)))
    yield from (("ffn_down.weight", (d.ff, d.embd)), ("ffn_down.bias", (d.embd,)))
    yield from _norms(d)


def _nomic_layer(d: Dims, *, mixed: bool, biases: bool) -> Iterator[Tensor]:
    yield from (("attn_qkv.weight", (d.embd, 3 * d.embd)), ("attn_output.weight", (d.embd, d.embd)))
    if biases:
        yield from (("attn_qkv.bias", (3 * d.embd,)), ("attn_output.bias", (d.embd,)))
    if mixed:
        yield "ffn_gate_inp.weight", (d.embd, d.experts)
        yield "ffn_up_exps.weight", (d.embd, d.ff, d.experts)
        yield "ffn_down_exps.weight", (d.ff, d.embd, d.experts)
    else:
        yield from (("ffn_up.weight", (d.embd, d.ff)), ("ffn_down.weight", (d.ff, d.embd)))
        if biases:
            yield from (("ffn_up.bias", (d.ff,)), ("ffn_down.bias", (d.embd,)))
        else:
            yield "ffn_gate.weight", (d.embd, d.ff)
    yield from _norms(d)


def _norms(d: Dims) -> Iterator[Tensor]:
    for part in ("attn_output_norm", "layer_output_norm"):
        yield from ((f"{part}.weight", (d.embd,)), (f"{part}.bias", (d.embd,)))


def _architectures(config: ConfigReader) -> list[object]:
    value = config.get("architectures")
    return value if isinstance(value, list) else []
