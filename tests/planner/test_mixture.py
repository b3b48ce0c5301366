"""Which tensor gets which type: llama.cpp's recorded answers, known sizes, and what must hold for any model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import ModelFileError, UsageError
from bendi.formats import TENSOR_TYPES_BY_NAME, GgufArray, GgufFile, read_gguf
from bendi.planner.mixture import (
    MixtureFacts,
    TensorShape,
    facts_of,
    needs_imatrix,
    quantized_bytes,
    quantized_types,
    shapes_of,
    tensor_bytes,
)
from bendi.planner.mixture_rules import ALIASES, FILE_TYPES, NEVER_QUANTIZED_PARTS, RECIPES

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("mixtures.json").read_text())
LADDERS = (
    "F32 F16 Q8_0 Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S Q3_K_L Q3_K_M Q3_K_S Q2_K Q2_K_S",
    "F32 BF16 Q8_0 Q5_1 Q5_0 Q4_1 Q4_0 Q2_0 Q1_0",
    "Q8_0 IQ4_NL IQ4_XS IQ3_M IQ3_S IQ3_XS IQ3_XXS IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S",
    "Q8_0 MXFP4_MOE",
    "Q4_0 TQ2_0 TQ1_0",
)
LLAMA = MixtureFacts("llama", 1, 8, 2)
SMALL = (
    TensorShape("token_embd.weight", (256, 10)),
    TensorShape("output.weight", (256, 10)),
    TensorShape("output_norm.weight", (256,)),
    TensorShape("blk.0.attn_q.weight", (96, 256)),
    TensorShape("blk.0.attn_v.weight", (256, 64)),
    TensorShape("blk.0.ffn_up.weight", (256, 512)),
    TensorShape("blk.0.ffn_down.weight", (512, 256)),
    TensorShape("blk.0.ffn_gate_inp.weight", (256, 4)),
)


@st.composite
def models(draw: st.DrawFn) -> tuple[list[TensorShape], MixtureFacts]:
    """Models as they are built: rows of whole 256-blocks, feed-forward wider than attention."""
    heads_kv = draw(st.integers(1, 8))
    heads = heads_kv * draw(st.sampled_from([1, 2, 4, 5, 8]))
    layers = draw(st.integers(1, 90))
    experts = draw(st.sampled_from([0, 0, 4, 8, 64]))
    embd, kv = heads * 256, heads_kv * 256
    ff = embd * draw(st.integers(1, 4))
    stack, tail = ((experts,), "_exps") if experts else ((), "")
    tensors = [TensorShape("token_embd.weight", (embd, 32000)), TensorShape("output_norm.weight", (embd,))]
    if draw(st.booleans()):
        tensors.append(TensorShape("output.weight", (embd, 32000)))
    for layer in range(layers):
        shapes = {"attn_q": (embd, embd), "attn_k": (embd, kv), "attn_v": (embd, kv), "attn_output": (embd, embd)}
        feeds = {"ffn_up": (embd, ff, *stack), "ffn_gate": (embd, ff, *stack), "ffn_down": (ff, embd, *stack)}
        tensors += [TensorShape(f"blk.{layer}.{name}.weight", shape) for name, shape in shapes.items()]
        tensors += [TensorShape(f"blk.{layer}.{name}{tail}.weight", shape) for name, shape in feeds.items()]
    return tensors, MixtureFacts("llama", layers, heads, heads_kv, experts)


NAMES = st.builds(
    "blk.{}.{}.{}".format,
    st.integers(0, 15),
    st.sampled_from(["attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_norm", "ssm_in"])
    | st.sampled_from(["ffn_up", "ffn_gate", "ffn_down_exps"]),
    st.sampled_from(["weight", "weight", "bias"]),
) | st.sampled_from(["token_embd.weight", "output.weight", "per_layer_token_embd.weight", "position_embd.weight"])
SHAPES = st.lists(st.sampled_from([1, 4, 32, 96, 100, 128, 256, 2880]), min_size=1, max_size=4).map(tuple)
ANY_TENSORS = st.dictionaries(NAMES, SHAPES, min_size=1, max_size=30).map(
    lambda shapes: [TensorShape(name, shape, "BF16") for name, shape in shapes.items()]
)
ANY_FACTS = st.builds(
    MixtureFacts,
    st.sampled_from(["llama", "falcon", "glm5-next", "bailingmoe3", "never-heard-of"]),
    st.just(16),
    st.integers(0, 64),
    st.integers(0, 8),
    st.sampled_from([0, 1, 4, 8, 512]),
)


def unpacked(model: dict[str, Any]) -> tuple[list[TensorShape], MixtureFacts]:
    def shape(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split()))

    facts = MixtureFacts(**model["facts"])
    tensors = [TensorShape(name, shape(text), "I8") for name, text in model["tensors"].items()]
    for name, text in model["layer_tensors"].items():
        tensors += [TensorShape(f"blk.{at}.{name}", shape(text), "I8") for at in range(facts.block_count)]
    return tensors, facts


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_of_llama_cpp(name: str) -> None:
    """Recorded by tools/mixture_oracle.py: architectures with own rules, odd rows, importance matrices, new types."""
    recorded = RECORDED[name]
    tensors, facts = unpacked(recorded)
    answers = recorded["types"]
    for file_type in FILE_TYPES:
        for imatrix in (False, True):
            wanted = answers.get(f"{file_type} imatrix") if imatrix else None
            wanted = wanted or answers[file_type]
            if wanted == "error":
                with pytest.raises(UsageError):
                    quantized_types(tensors, facts, file_type, imatrix=imatrix)
                continue
            types = quantized_types(tensors, facts, file_type, imatrix=imatrix)
            assert " ".join(f"{kind}*{len(list(same))}" for kind, same in groupby(types)) == wanted, file_type
    possible = [file_type for file_type in FILE_TYPES if answers[file_type] != "error"]
    needing = [file_type for file_type in possible if needs_imatrix(tensors, facts, file_type)]
    assert needing == recorded["needs_imatrix"].split()


def test_small_model_by_hand() -> None:
    types = ["Q4_K", "Q6_K", "F32", "Q5_0", "Q6_K", "Q4_K", "Q6_K", "F32"]
    assert quantized_types(SMALL, LLAMA, "Q4_K_M") == types
    # Rows times bytes per row; the output matrix is 2100 bytes, padded to 2112.
    sizes_bytes = [10 * 144, 2112, 256 * 4, 256 * 3 * 22, 64 * 210, 512 * 144, 256 * 2 * 210, 256 * 4 * 4]
    assert quantized_bytes(SMALL, LLAMA, "Q4_K_M") == sum(sizes_bytes) == 220_256


def test_published_sizes() -> None:
    """Llama 3.1 70B: tensors of the files that are on the hub, whose headers take 8 MB more (made with an imatrix)."""
    embd, ff, vocab, layers = 8192, 28672, 128256, 80
    block = {"attn_q": (embd, embd), "attn_k": (embd, 1024), "attn_v": (embd, 1024), "attn_output": (embd, embd)}
    block |= {"ffn_gate": (embd, ff), "ffn_up": (embd, ff), "ffn_down": (ff, embd)}
    tensors = [TensorShape(f"{name}.weight", (embd, vocab)) for name in ("token_embd", "output")]
    tensors += [TensorShape(f"blk.{at}.{name}.weight", s) for at in range(layers) for name, s in block.items()]
    tensors += [
        TensorShape(f"blk.{at}.{name}.weight", (embd,)) for at in range(layers) for name in ("attn_norm", "ffn_norm")
    ]
    facts = MixtureFacts("llama", layers, 64, 8)
    published_gb = {"Q8_0": 74.98, "Q6_K": 57.89, "Q5_K_M": 49.95, "Q5_K_S": 48.66, "Q4_K_M": 42.52, "Q4_K_S": 40.35}
    published_gb |= {"Q4_0": 40.12, "IQ4_XS": 37.90, "Q3_K_L": 37.14, "Q3_K_M": 34.27, "IQ3_M": 31.94, "Q3_K_S": 30.91}
    for file_type, size_gb in published_gb.items():
        ours_gb = quantized_bytes(tensors, facts, file_type, imatrix=True) / 1e9
        assert size_gb - 0.015 < ours_gb < size_gb, file_type


@given(models(), st.booleans(), st.sampled_from(LADDERS))
def test_fewer_bits_never_more_bytes(model: tuple[list[TensorShape], MixtureFacts], imatrix: bool, ladder: str) -> None:
    sizes_bytes = {name: quantized_bytes(*model, name, imatrix=imatrix) for name in ladder.split()}
    for (more, more_bytes), (fewer, fewer_bytes) in pairwise(sizes_bytes.items()):
        assert fewer_bytes <= more_bytes, f"{fewer} is larger than {more}"


@given(ANY_TENSORS, ANY_FACTS, st.sampled_from(sorted(FILE_TYPES)), st.booleans())
def test_types_fit_their_tensors(
    tensors: list[TensorShape], facts: MixtureFacts, file_type: str, imatrix: bool
) -> None:
    try:
        types = quantized_types(tensors, facts, file_type, imatrix=imatrix)
    except UsageError:
        assert file_type == "Q1_0"  # the only one with large blocks and nothing to use instead
        return
    padded_bytes = 0
    for tensor, type_name in zip(tensors, types, strict=True):
        assert tensor.shape[0] % TENSOR_TYPES_BY_NAME[type_name].block_weights == 0
        if tensor.dimensions == 1 or tensor.name.endswith(("bias", "norm.weight")):
            assert type_name == tensor.type_name
        padded_bytes += tensor_bytes(tensor.shape, type_name)
    assert quantized_bytes(tensors, facts, file_type, imatrix=imatrix) == padded_bytes
    assert padded_bytes % 32 == 0


@given(models(), st.sampled_from(sorted(FILE_TYPES)), st.randoms())
def test_order_of_tensors_does_not_matter(
    model: tuple[list[TensorShape], MixtureFacts], file_type: str, random: Any
) -> None:
    tensors, facts = model
    shuffled = random.sample(tensors, len(tensors))
    expected = dict(zip(tensors, quantized_types(tensors, facts, file_type), strict=True))
    assert quantized_types(shuffled, facts, file_type) == [expected[tensor] for tensor in shuffled]


@given(models(), st.sampled_from(sorted(FILE_TYPES)))
def test_importance_matrix_is_needed_only_where_bits_are_few(
    model: tuple[list[TensorShape], MixtureFacts], file_type: str
) -> None:
    needed = needs_imatrix(*model, file_type)
    if needed:
        assert TENSOR_TYPES_BY_NAME[FILE_TYPES[file_type]].bits_per_weight < 3.5
    assert needed or not file_type.startswith(("IQ1", "IQ2", "IQ3_XXS"))


def test_every_base_type_is_known() -> None:
    """All that llama-quantize offers: 35 types of file."""
    assert len(FILE_TYPES) == 35
    named = {
        name for recipe in RECIPES.values() for name in (recipe.base, recipe.output, recipe.embedding, recipe.dense)
    }
    assert named - {None} <= set(TENSOR_TYPES_BY_NAME)


def test_names_may_be_aliases_in_any_case() -> None:
    for alias, name in ALIASES.items():
        assert quantized_types(SMALL, LLAMA, alias.lower()) == quantized_types(SMALL, LLAMA, name)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="UD-Q4_K_XL") as caught:
        quantized_types(SMALL, LLAMA, "UD-Q4_K_XL")
    assert "Q4_K_M" in caught.value.hint


@pytest.mark.parametrize("part", NEVER_QUANTIZED_PARTS)
def test_small_and_sensitive_tensors_are_kept(part: str) -> None:
    name = part if part.endswith("weight") else f"x{part}x.weight"
    assert quantized_types([TensorShape(name, (256, 256), "F16")], LLAMA, "Q4_0") == ["F16"]


def test_tied_embeddings_get_the_type_of_the_output() -> None:
    embedding = TensorShape("token_embd.weight", (256, 10))
    assert quantized_types([embedding], LLAMA, "Q4_K_M") == ["Q6_K"]
    assert quantized_types([embedding, TensorShape("output.weight", (256, 10))], LLAMA, "Q4_K_M") == ["Q4_K", "Q6_K"]


def test_seventy_b() -> None:
    assert MixtureFacts("llama", 80, 64, 8).is_70b
    assert not MixtureFacts("llama", 80, 64, 64).is_70b
    assert not MixtureFacts("llama", 32, 32, 8).is_70b
    assert MixtureFacts("jais2", 68, 56, 56).is_70b
    assert MixtureFacts("qwen2", 81, 64, 8, nextn_count=1).is_70b
    assert not MixtureFacts("qwen3", 80, 64, 8).is_70b


def test_experts_outside_the_layers_are_refused() -> None:
    facts = replace(LLAMA, expert_count=8)
    for name in (
        "blk.1.ffn_down_exps.weight",
        "encoder.ffn_down_exps.weight",
        f"blk.{'9' * 5000}.ffn_down_exps.weight",
    ):
        with pytest.raises(ModelFileError, match="ffn_down_exps"):
            quantized_types([TensorShape(name, (256, 256, 8))], facts, "Q4_K_M")


def header(**metadata: Any) -> GgufFile:
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    return GgufFile(3, "little", 32, named, (), 0, 0)


def test_facts_from_a_header() -> None:
    plain = header(general__architecture="llama", llama__block_count=32, llama__attention__head_count=32)
    assert facts_of(plain) == MixtureFacts("llama", 32, 32, 32)
    heads_kv = GgufArray("i32", 3, 0, 12, (0, 2, 0))
    hybrid = header(
        general__architecture="mixed",
        mixed__block_count=3,
        mixed__attention__head_count=8,
        mixed__attention__head_count_kv=heads_kv,
        mixed__expert_count=16,
        mixed__nextn_predict_layers=1,
    )
    assert facts_of(hybrid) == MixtureFacts("mixed", 3, 8, 0, 16, 1)
    assert facts_of(hybrid).queries_per_value == 0
    looped = header(general__architecture="nanbeige", nanbeige__block_count=16, nanbeige__num_loops=2)
    assert facts_of(looped).block_count == 32


def test_a_real_file_that_stays_as_it_is(stories_model: Path) -> None:
    """A file that is all F32 already: its tensor bytes are the file without its header."""
    gguf = read_gguf(stories_model)
    facts = facts_of(gguf)
    assert facts.architecture == "llama"
    size_bytes = quantized_bytes(shapes_of(gguf), facts, "F32")
    assert size_bytes == gguf.file_size_bytes - gguf.data_offset
    assert quantized_bytes(shapes_of(gguf), facts, "Q8_0") < size_bytes / 3
