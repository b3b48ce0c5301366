"""What makes a well-formed GGUF file impossible as a model: numbers that engines divide by, use as an index, or
allocate by without asking. Each check stands for a crash or an overflow that some engine had.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections.abc import Iterator, Mapping

from bendi.errors import ModelFileError
from bendi.formats.gguf_cursor import MAX_TEXT_BYTES, Cursor, first_duplicate, hostile_hint, quoted
from bendi.formats.gguf_types import ByteOrder, GgufArray, GgufFile
from bendi.formats.source import ByteSource
from bendi.i18n import _

MAX_LAYERS = 512
MAX_EXPERTS = 1024
"""More make llama.cpp stop the whole program (`LLAMA_MAX_LAYERS`, `LLAMA_MAX_EXPERTS` in `src/llama-hparams.h`)."""
_MAX_WIDTH = 2**24
_MAX_CONTEXT_TOK = 2**31 - 1
_RANGES: Mapping[str, tuple[int, int]] = {
    "block_count": (1, MAX_LAYERS),
    "context_length": (1, _MAX_CONTEXT_TOK),
    "embedding_length": (1, _MAX_WIDTH),
    "embedding_length_out": (0, _MAX_WIDTH),
    "feed_forward_length": (0, _MAX_WIDTH),
    "vocab_size": (0, _MAX_WIDTH),
    "expert_count": (0, MAX_EXPERTS),
    "expert_used_count": (0, MAX_EXPERTS),
    "expert_group_count": (0, MAX_EXPERTS),
    "expert_group_used_count": (0, MAX_EXPERTS),
    "experts_per_group": (1, MAX_EXPERTS),
    "nextn_predict_layers": (0, MAX_LAYERS),
    "full_attention_interval": (1, MAX_LAYERS),
    "attention.head_count": (0, 65536),
    "attention.head_count_kv": (0, 65536),
    "attention.key_length": (1, 65536),
    "attention.value_length": (0, 65536),
    "rope.dimension_count": (0, 65536),
    "ssm.conv_kernel": (1, _MAX_WIDTH),
    "ssm.inner_size": (1, _MAX_WIDTH),
    "ssm.state_size": (1, _MAX_WIDTH),
    "ssm.time_step_rank": (1, _MAX_WIDTH),
    "wkv.head_size": (1, _MAX_WIDTH),
    "kda.head_dim": (1, _MAX_WIDTH),
    "shortconv.l_cache": (1, _MAX_WIDTH),
}
"""Smallest and largest value of `{architecture}.{key}`, wherever a file has it."""
_WHOLE_HEAD = frozenset({
    "apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "cohere2moe", "dbrx", "deci",
    "deepseek", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "exaone", "exaone-moe", "exaone4", "falcon",
    "granite", "granite_swa", "granitemoe", "graniteswitch", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe",
    "hunyuan_vl", "hy_v3", "internlm2", "jais2", "llada", "llada-moe", "llama", "llama-embed", "llama4",
    "maincoder", "mellum", "minicpm", "mistral3", "olmo", "olmo2", "olmoe", "orion", "paddleocr",
    "pangu-embedded", "plamo", "pockettts", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3tts",
    "qwen3vl", "qwen3vlmoe", "rnd1", "seed_oss", "smallthinker", "smollm3", "starcoder2", "talkie", "xverse",
})  # fmt: skip
"""Architectures whose every graph in llama.cpp begins with the assertion that keys, values and the rotated part of a
head have one length (`src/models/*.cpp`, version 0.3.36 of llama-cpp-python); it stops the whole program."""
_PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
_NEVER_ARRAYS = ("block_count", "context_length", "embedding_length")
_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")

_TOKENS = "tokenizer.ggml.tokens"
_NO_TOKEN = 2**32 - 1
_SPECIAL = (
    *("bos", "eos", "eot", "eom", "unknown", "seperator", "mask", "prefix", "suffix", "middle"),
    *("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"),
)
# Not padding: many files name a token that training had and the vocabulary has not, and engines leave it unused.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "mask": 103},
    "gpt2": {"bos": 11, "eos": 11},
    "t5": {"eos": 1, "unknown": 2},
    "plamo2": {"bos": 1, "eos": 2, "unknown": 0},
}
"""The ids that llama.cpp takes where the file names none, by tokenizer (`src/llama-vocab.cpp`, `load`)."""
_MAX_COMPARED = 2**19
"""Vocabularies beyond this size are not searched for duplicates, which takes memory; the largest has 2**18 tokens."""
_BYTE_TYPE = 6
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_CHUNK = 65536


def check_model(gguf: GgufFile, source: ByteSource) -> None:
    """Raises ModelFileError when `gguf`, read from `source`, cannot be a model. Its message is the reason alone."""
    if (gguf.integer("split.no") or 0) == 0:
        _check_architecture(gguf)
    _check_tokenizer(gguf, source)


def _impossible(reason: str) -> ModelFileError:
    return ModelFileError(reason, hint=hostile_hint())


def _check_architecture(gguf: GgufFile) -> None:
    architecture = gguf.architecture
    if not architecture:
        kind = gguf.text("general.type")
        if kind and kind != "model":
            raise ModelFileError(
                _("it is not a model: its type is {kind}").format(kind=quoted(kind)),
                hint=_("`bendi list` shows the models on this machine."),
            )
        raise _impossible(_("it does not say which architecture it has (general.architecture)"))
    if len(architecture) > 64 or not architecture.isprintable():
        raise _impossible(_("its architecture is {name}").format(name=quoted(architecture)))
    values = {name: _numbers(gguf, f"{architecture}.{name}", name) for name in _RANGES}
    layers = next(iter(values["block_count"]), None)
    for name in _PER_LAYER:
        if isinstance(gguf.metadata.get(f"{architecture}.{name}"), GgufArray) and len(values[name]) != layers:
            raise _impossible(
                _("{key} has {count} elements for {layers} layers").format(
                    key=f"{architecture}.{name}", count=len(values[name]), layers=layers
                )
            )
    for name in _EPSILONS:
        epsilon = gguf.metadata.get(f"{architecture}.attention.{name}", 0.0)
        if not isinstance(epsilon, float) or not 0 <= epsilon < math.inf:
            raise _impossible(
                _("{key} is {value}").format(key=f"{architecture}.attention.{name}", value=quoted(str(epsilon)))
            )
    _check_heads(gguf, architecture, values)
    _check_rotation(gguf, architecture, values)
    _check_experts(architecture, values)
    if layers is not None and max(values["nextn_predict_layers"], default=0) > layers:
        raise _impossible(_("it has more layers for prediction ahead than layers"))


def _numbers(gguf: GgufFile, key: str, name: str) -> tuple[int, ...]:
    """The integers under `key`, all in their range; empty where the key is absent."""
    value = gguf.metadata.get(key)
    if value is None:
        return ()
    low, high = _RANGES[name]
    numbers: tuple[object, ...] | None = (value,)
    if isinstance(value, GgufArray):
        # A layer without attention has 0 heads, so in arrays zeros are normal.
        low, numbers = 0, None if name in _NEVER_ARRAYS else value.values
    if numbers is None or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise _impossible(_("{key} is not a whole number").format(key=key))
    integers = tuple(number for number in numbers if isinstance(number, int))
    for number in integers:
        if not low <= number <= high:
            raise _impossible(
                _("{key} is {value}; {low} to {high} is possible").format(key=key, value=number, low=low, high=high)
            )
    return integers


def _check_heads(gguf: GgufFile, architecture: str, values: Mapping[str, tuple[int, ...]]) -> None:
    heads, kv_heads = values["attention.head_count"], values["attention.head_count_kv"]
    recurrent = any(key.startswith((f"{architecture}.ssm.", f"{architecture}.wkv.")) for key in gguf.metadata)
    if heads and not any(heads) and not recurrent:
        raise _impossible(
            _("it has no attention heads ({key} is 0)").format(key=f"{architecture}.attention.head_count")
        )
    if kv_heads and heads:
        layers = max(len(heads), len(kv_heads))
        all_heads = heads if len(heads) == layers else heads * layers
        all_kv = kv_heads if len(kv_heads) == layers else kv_heads * layers
        for count, kv_count in zip(all_heads, all_kv, strict=False):
            if count and kv_count and count % kv_count:
                raise _impossible(
                    _("its {heads} attention heads cannot share {kv_heads} KV heads evenly").format(
                        heads=count, kv_heads=kv_count
                    )
                )
    embedding = values["embedding_length"]
    if len(heads) == 1 and heads[0] and embedding and not values["attention.key_length"] and embedding[0] % heads[0]:
        raise _impossible(
            _("its embedding length {length} cannot be divided among {heads} attention heads").format(
                length=embedding[0], heads=heads[0]
            )
        )


def _check_rotation(gguf: GgufFile, architecture: str, values: Mapping[str, tuple[int, ...]]) -> None:
    """The three lengths of a head, as `load_hparams` of llama.cpp finds them, where its graph wants them equal."""
    heads, embedding = values["attention.head_count"], values["embedding_length"]
    if architecture not in _WHOLE_HEAD or not heads or not heads[0] or not embedding:
        return
    if any(key.endswith("_swa") for key in gguf.metadata):
        return  # layers with a window have lengths of their own, and the first layer may be one of them
    usual = embedding[0] // heads[0]
    keys = next(iter(values["attention.key_length"]), usual)
    of_values = next(iter(values["attention.value_length"]), usual)
    rotated = next(iter(values["rope.dimension_count"]), keys)
    if not keys == of_values == rotated:
        raise _impossible(
            _("its attention heads have keys of {keys} numbers, values of {values} and a rotated part of {rotated}, "
              "which must be equal in the architecture {name}").format(
                keys=keys, values=of_values, rotated=rotated, name=architecture
            )
        )  # fmt: skip


def _check_experts(architecture: str, values: Mapping[str, tuple[int, ...]]) -> None:
    """The conditions under which `llama_model_base::load_hparams` of llama.cpp stops the whole program."""
    count, used, groups, groups_used = (
        max(values[name], default=0)
        for name in ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count")
    )
    if architecture.startswith("hunyuan") and count <= 1:
        return  # these count the one feed-forward network of a dense model as an expert
    if used > count or (count and not used):
        raise _impossible(_("it uses {used} of {count} experts").format(used=used, count=count))
    if (groups and groups >= count) or (groups > 1 and count % groups):
        raise _impossible(_("its {count} experts cannot be in {groups} groups").format(count=count, groups=groups))
    if groups > 1 and not 0 < groups_used < groups:
        raise _impossible(_("it uses {used} of {count} groups of experts").format(used=groups_used, count=groups))


def _check_tokenizer(gguf: GgufFile, source: ByteSource) -> None:
    for key, value in gguf.metadata.items():
        if key.startswith("tokenizer.chat_template") and isinstance(value, GgufArray) and value.values is None:
            raise _impossible(
                _("its chat template has {size} bytes; {limit} are allowed").format(
                    size=value.size_bytes, limit=MAX_TEXT_BYTES
                )
            )
    tokens = _array(gguf, _TOKENS, ("str",))
    scores = _array(gguf, "tokenizer.ggml.scores", ("f32", "i32"))
    types = _array(gguf, "tokenizer.ggml.token_type", ("i32", "u32"))
    _array(gguf, "tokenizer.ggml.merges", ("str",))
    count = tokens.count if tokens else 0
    if tokens and not count:
        raise _impossible(_("its vocabulary is empty"))
    for name, other in (("tokenizer.ggml.scores", scores), ("tokenizer.ggml.token_type", types)):
        if other and other.count != count:
            raise _impossible(
                _("{key} has {count} elements for a vocabulary of {tokens}").format(
                    key=name, count=other.count, tokens=count
                )
            )
    if tokens:
        _check_special_ids(gguf, count)
        twice = first_duplicate(source, gguf.byte_order, tokens) if count <= _MAX_COMPARED else None
        if twice is not None:
            text = quoted(twice[:80].decode(errors="replace"))
            raise _impossible(_("its vocabulary has the token {text} twice").format(text=text))
        if types:
            _check_byte_tokens(gguf, source, tokens, types)
    _check_charsmap(gguf, source)


def _array(gguf: GgufFile, key: str, allowed: tuple[str, ...]) -> GgufArray | None:
    """The array under `key`: an array of the wrong type would be read past its end by engines that cast it."""
    value = gguf.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, GgufArray) or value.element_type not in allowed:
        raise _impossible(_("{key} is not an array of {types}").format(key=key, types=" / ".join(allowed)))
    return value


def _check_special_ids(gguf: GgufFile, count: int) -> None:
    defaults = _DEFAULT_IDS.get(gguf.text("tokenizer.ggml.model"), {})
    for name in _SPECIAL:
        key = f"tokenizer.ggml.{name}_token_id"
        given = gguf.metadata.get(key, _NO_TOKEN)
        if not isinstance(given, int) or isinstance(given, bool):
            raise _impossible(_("{key} is not a whole number").format(key=key))
        token = defaults.get(name, -1) if given in (_NO_TOKEN, -1) else given
        if token < -1 or token >= count:
            raise _impossible(
                _("{key} is {id}, outside a vocabulary of {count}").format(key=key, id=token, count=count)
            )


def _check_byte_tokens(gguf: GgufFile, source: ByteSource, tokens: GgufArray, types: GgufArray) -> None:
    """Tokens of the type BYTE must be `<0x00>` to `<0xFF>`: engines use the digits as an index."""
    cursor = Cursor(source, gguf.byte_order, tokens.offset)
    at = 0
    for found, index in enumerate(_byte_token_indices(source, gguf.byte_order, types)):
        if gguf.text("tokenizer.ggml.model") == "bert":
            raise _impossible(_("it has tokens that stand for a byte, which a WordPiece tokenizer has not"))
        if found >= 256:
            raise _impossible(_("it has more than 256 tokens that stand for a byte"))
        cursor.skip_strings(index - at)
        text = cursor.take(cursor.integer("Q"))
        at = index + 1
        if not _BYTE_TOKEN.fullmatch(text):
            raise _impossible(
                _("its token {index}, {text}, should stand for a byte and does not").format(
                    index=index, text=quoted(text[:80].decode(errors="replace"))
                )
            )


def _byte_token_indices(source: ByteSource, order: ByteOrder, types: GgufArray) -> Iterator[int]:
    for first in range(0, types.count, _CHUNK):
        size_bytes = min(_CHUNK, types.count - first) * 4
        raw = source.read_at(types.offset + first * 4, size_bytes)
        if len(raw) != size_bytes:
            raise ModelFileError(
                _("it changed while it was read"), hint=_("Wait until whatever writes the file is done.")
            )
        chunk = array("i", raw)
        if order != sys.byteorder:
            chunk.byteswap()
        if chunk.count(_BYTE_TYPE):
            yield from (first + index for index, kind in enumerate(chunk) if kind == _BYTE_TYPE)


def _check_charsmap(gguf: GgufFile, source: ByteSource) -> None:
    """The normalization table of Unigram tokenizers: its length, a trie of that length, texts that end in zeros."""
    table = _array(gguf, "tokenizer.ggml.precompiled_charsmap", ("u8", "i8"))
    if table is None or table.count == 0:
        return
    # The table is a copy of a SentencePiece blob, little-endian in every file.
    trie_bytes = int.from_bytes(source.read_at(table.offset, 4), "little") if table.count > 4 else table.count
    ends_in_zero = source.read_at(table.offset + table.count - 1, 1) == b"\0"
    if trie_bytes % 4 or trie_bytes + 4 >= table.count or not ends_in_zero:
        raise _impossible(_("its normalization table (precompiled_charsmap) is damaged"))
