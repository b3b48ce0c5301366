"""Which layers have attention, a window, a state, experts: what the file says, else what its architecture does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U32, Arr, Gguf, Tensor, Value, strings
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.errors import ModelFileError
from bendi.formats import Anatomy, GgufFile, MemorySource, RopeScaling, anatomy, read_gguf_from

Read = Callable[[bytes], GgufFile]
LETTERS = {"attention": "A", "window": "W", "recurrent": "R", "both": "B", "none": "-"}


def made(architecture: str, layers: int, **keys: object) -> Gguf:
    """A model without a vocabulary; `attention_head_count=8` means `<architecture>.attention.head_count`."""
    file = Gguf(keys=[("general.architecture", (STRING, architecture))])
    values: dict[str, object] = {"block_count": layers, "embedding_length": 64, "attention.head_count": 8}
    for name, value in (values | {key.replace("__", "."): value for key, value in keys.items()}).items():
        file = file.add(f"{architecture}.{name}", *_typed(value))
    return file


def _typed(value: object) -> Value:
    match value:
        case bool():
            return BOOL, value
        case int():
            return U32, value
        case float():
            return F32, value
        case str():
            return STRING, value
        case [bool(), *_]:
            return ARRAY, Arr(BOOL, value)
        case list():
            return ARRAY, Arr(I32, value)
    raise AssertionError(value)


@pytest.fixture
def look(read: Read) -> Callable[[Gguf], Anatomy]:
    return lambda file: anatomy(read(file.build()))


Look = Callable[[Gguf], Anatomy]
WINDOW = {"attention__sliding_window": 512}


@pytest.mark.parametrize(
    ("file", "kinds", "window"),
    [
        (made("llama", 4), "AAAA", None),
        (made("llama", 4, **WINDOW), "AAAA", None),
        (made("gemma2", 4), "WAWA", 4096),
        (made("gemma2", 4, **WINDOW), "WAWA", 512),
        (made("gemma3", 8, **WINDOW), "WWWWWAWW", 512),
        (made("gemma3", 8), "AAAAAAAA", None),
        (made("gemma3n", 5, **WINDOW), "WWWWA", 512),
        (made("gpt-oss", 4, **WINDOW), "WAWA", 512),
        (made("cohere2", 8, **WINDOW), "WWWAWWWA", 512),
        (made("llama4", 8), "WWWAWWWA", 8192),
        (made("llama4", 4, attention__sliding_window=0), "AAAA", None),
        (made("smallthinker", 8, **WINDOW), "AWWWAWWW", 512),
        (made("modern-bert", 6, **WINDOW), "AWWAWW", 512),
        (made("phi3", 3, **WINDOW), "AAA", None),
        (made("gemma3", 4, **WINDOW, attention__sliding_window_pattern=2), "WAWA", 512),
        (made("smallthinker", 4, **WINDOW, attention__sliding_window_pattern=2), "AWAW", 512),
        (made("gemma3", 3, **WINDOW, attention__sliding_window_pattern=0), "WWW", 512),
        (made("gemma3", 3, **WINDOW, attention__sliding_window_pattern=1), "AAA", None),
        (made("gemma4", 4, **WINDOW, attention__sliding_window_pattern=[True, True, False, True]), "WWAW", 512),
        (made("new", 4, **WINDOW, attention__sliding_window_pattern=[True, False, True, False]), "WAWA", 512),
        (made("new", 4, **WINDOW, attention__sliding_window_pattern=[True]), "AAAA", None),
        (made("new", 4, **WINDOW, attention__sliding_window_pattern=4), "WWWA", 512),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_windows(look: Look, file: Gguf, kinds: str, window: int | None) -> None:
    found = look(file)
    assert ("".join(LETTERS[kind] for kind in found.layers), found.window_tok) == (kinds, window)


HEADS = {"attention__head_count_kv": [0, 0, 2, 0]}


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        (made("mamba", 3, attention__head_count=0, ssm__state_size=16), "RRR"),
        (made("rwkv7", 2, attention__head_count=0, wkv__head_size=64), "RR"),
        (made("qwen3next", 8), "RRRARRRA"),
        (made("qwen35", 6, full_attention_interval=3), "RRARRA"),
        (made("qwen35moe", 4, attention__recurrent_layers=[True, False, True, False]), "RARA"),
        (made("minimax-01", 8), "RRRRRRRA"),
        (made("falcon-h1", 2, ssm__state_size=16), "BB"),
        (made("jamba", 4, **HEADS, ssm__state_size=16), "RRAR"),
        (made("lfm2", 4, **HEADS, shortconv__l_cache=3), "RRAR"),
        (made("lfm2", 4, **HEADS, shortconv__l_cache=3, **WINDOW), "RRWR"),
        (made("kimi-linear", 4, **HEADS, kda__head_dim=64), "RRAR"),
        (made("nemotron_h", 4, **HEADS, ssm__state_size=16, feed_forward_length=[0, 128, 0, 0]), "R-AR"),
        (made("deci", 4, **HEADS), "--A-"),
        (made("llama", 4, attention__head_count=[8, 0, 8, 0]), "A-A-"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_states(look: Look, file: Gguf, kinds: str) -> None:
    assert "".join(LETTERS[kind] for kind in look(file).layers) == kinds


def test_counting(look: Look) -> None:
    found = look(made("qwen3next", 8))
    assert (found.count("recurrent"), found.count("attention"), found.count("attention", "recurrent")) == (6, 2, 8)


def test_compressed_attention(look: Look) -> None:
    sizes = {"attention__kv_lora_rank": 512, "rope__dimension_count": 64, "attention__key_length": 576}
    assert look(made("deepseek2", 2, **sizes, attention__key_length_mla=192)).latent_length == 576
    assert look(made("deepseek2", 2, **sizes)).latent_length == 0, "old files cannot be run compressed"


def test_layers_that_guess_ahead(look: Look) -> None:
    file = made("glm4moe", 5, nextn_predict_layers=1).with_tensors(
        Tensor("blk.0.attn_q.weight", (32,)), Tensor("blk.4.attn_q.weight", (32,))
    )
    found = look(file)
    assert (len(found.layers), found.prediction_layers, found.active_parameters) == (4, 1, 32)


def test_layers_that_share_their_cache(look: Look) -> None:
    assert look(made("gemma3n", 35, **WINDOW)).shared_kv_layers == 15
    assert look(made("gemma4", 6, **WINDOW, attention__shared_kv_layers=2)).shared_kv_layers == 2
    assert look(made("gemma4", 6, **WINDOW, attention__shared_kv_layers=99)).shared_kv_layers == 6


def test_heads_of_layers_with_a_window(look: Look) -> None:
    sizes = {"attention__key_length_swa": 256, "attention__value_length_swa": 128}
    found = look(made("gemma4", 2, **WINDOW, **sizes, attention__sliding_window_pattern=[True, False]))
    assert (found.window_key_length, found.window_value_length) == (256, 128)
    assert look(made("llama", 2, **sizes)).window_key_length == 0


EXPERTS = {"expert_count": 8, "expert_used_count": 2, "expert_shared_count": 1}


def test_experts(look: Look) -> None:
    file = made("qwen3moe", 2, **EXPERTS).with_tensors(
        Tensor("token_embd.weight", (32, 10)),
        Tensor("blk.0.ffn_up.weight", (32, 2)),
        Tensor("blk.1.ffn_gate_inp.weight", (32, 8)),
        Tensor("blk.1.ffn_up_exps.weight", (32, 4, 8)),
        Tensor("blk.1.ffn_gate_up_exps.weight", (32, 4, 8)),
        Tensor("blk.1.ffn_up_shexp.weight", (32, 4)),
    )
    found = look(file)
    assert found.active_parameters == 320 + 64 + 256 + 2 * (32 * 4 * 2) + 128
    assert (found.experts_shared, found.expert_layers, found.tied_embeddings) == (1, 1, True)


def test_experts_of_old_files(look: Look) -> None:
    """Each expert was a tensor of its own."""
    tensors = [Tensor(f"blk.0.ffn_up.{number}.weight", (32, 4)) for number in range(8)]
    assert look(made("llama", 1, **EXPERTS).with_tensors(*tensors)).active_parameters == 2 * 128


def test_experts_used_per_layer(look: Look) -> None:
    tensors = [Tensor(f"blk.{layer}.ffn_up_exps.weight", (32, 1, 8)) for layer in range(2)]
    file = made("nemotron_h_moe", 2, expert_count=8, expert_used_count=[2, 4]).with_tensors(*tensors)
    assert look(file).active_parameters == 2 * 32 + 4 * 32


def test_a_head_of_its_own(look: Look) -> None:
    file = made("llama", 1).with_tensors(Tensor("token_embd.weight", (32, 4)), Tensor("output.weight", (32, 4)))
    assert look(file).tied_embeddings is False
    assert look(made("llama", 1).with_tensors(Tensor("blk.0.x", (32,)))).tied_embeddings is None


def test_parts_of_a_split_model_count_together(read: Read) -> None:
    first = read(made("llama", 1).with_tensors(Tensor("token_embd.weight", (32, 4))).build())
    second = read(Gguf().add("split.no", 2, 1).with_tensors(Tensor("output.weight", (32, 4))).build())
    assert anatomy(first, second).active_parameters == 256
    assert anatomy(first, second).tied_embeddings is False


def test_stretched_positions(look: Look) -> None:
    stretched = made("qwen3", 1, rope__scaling__type="yarn", rope__scaling__factor=4.0).add(
        "qwen3.rope.scaling.original_context_length", U32, 32768
    )
    assert look(stretched).rope_scaling == RopeScaling("yarn", 4.0, 32768)
    assert look(made("qwen3", 1, rope__scaling__type="longrope")).rope_scaling == RopeScaling("longrope", None, None)
    assert look(made("qwen3", 1, rope__scaling__type="none")).rope_scaling is None
    assert look(made("qwen3", 1)).rope_scaling is None


def test_a_file_that_says_nothing(look: Look) -> None:
    found = look(Gguf(keys=[("general.architecture", (STRING, "new"))]))
    assert found == Anatomy()


_NAMES = (
    "block_count", "nextn_predict_layers", "expert_count", "expert_used_count", "expert_shared_count",
    "full_attention_interval", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.recurrent_layers",
    "attention.shared_kv_layers", "attention.kv_lora_rank", "attention.key_length_mla", "attention.key_length_swa",
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "ssm.state_size",
)  # fmt: skip
_ARCHITECTURES = ("llama", "gemma3", "gemma3n", "llama4", "smallthinker", "qwen3next", "nemotron_h", "falcon-h1")
_SMALL = st.integers(-2, 9)
_ANY: st.SearchStrategy[Value] = st.one_of(
    st.tuples(st.just(I32), _SMALL),
    st.tuples(st.just(U32), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(F32), st.floats(width=32)),
    st.tuples(st.just(BOOL), st.booleans()),
    st.tuples(st.just(STRING), st.sampled_from(["yarn", "linear", ""])),
    st.tuples(st.just(ARRAY), st.lists(_SMALL, max_size=5).map(lambda values: Arr(I32, values))),
    st.tuples(st.just(ARRAY), st.lists(st.booleans(), max_size=5).map(lambda values: Arr(BOOL, values))),
    st.tuples(st.just(ARRAY), st.lists(st.text(max_size=3), max_size=5).map(strings)),
)


@settings(database=None, derandomize=True, deadline=None, max_examples=600)
@given(st.sampled_from(_ARCHITECTURES), st.integers(1, 5), st.dictionaries(st.sampled_from(_NAMES), _ANY, max_size=6))
def test_whatever_the_keys_are(architecture: str, layers: int, keys: dict[str, Value]) -> None:
    file = made(architecture, layers).with_tensors(Tensor("blk.0.ffn_up_exps.weight", (32, 2, 2)))
    for name, (kind, value) in keys.items():
        file = file.set(f"{architecture}.{name}", kind, value)
    try:
        gguf = read_gguf_from(MemorySource(file.build()), "x.gguf")
    except ModelFileError:
        return
    found = anatomy(gguf)
    count = gguf.integer(f"{architecture}.block_count") or 0
    assert len(found.layers) == count - found.prediction_layers
    assert 0 <= found.active_parameters <= 128
    assert 0 <= found.shared_kv_layers <= len(found.layers)
    assert min(found.window_tok or 1, found.latent_length + 1, found.experts_shared + 1) > 0
    assert min(found.window_key_length, found.window_value_length, found.prediction_layers) >= 0
    assert (found.window_tok is not None) == ("window" in found.layers)
