"""Model files whose header matters: GGUF with a real-sized vocabulary, safetensors, repositories of both kinds."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Mapping

from servers import LoopbackServer

_U32, _STRING, _ARRAY = 4, 8, 9


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _key(name: str, value: int | str) -> bytes:
    if isinstance(value, str):
        return _text(name) + struct.pack("<I", _STRING) + _text(value)
    return _text(name) + struct.pack("<II", _U32, value)


def _strings(name: str, items: Iterable[str]) -> bytes:
    texts = [_text(item) for item in items]
    return _text(name) + struct.pack("<IIQ", _ARRAY, _STRING, len(texts)) + b"".join(texts)


def _numbers(name: str, kind: int, code: str, items: list[float]) -> bytes:
    return _text(name) + struct.pack(f"<IIQ{len(items)}{code}", _ARRAY, kind, len(items), *items)


def gguf_with_vocabulary(tokens: int, payload_bytes: int = 4096) -> bytes:
    """A model of two layers with experts, scores and merges; `payload_bytes` of weights that nobody should read."""
    keys = [
        _key("general.architecture", "qwen3moe"),
        _key("general.name", "Vocabulary"),
        _key("qwen3moe.block_count", 2),
        _key("qwen3moe.context_length", 32768),
        _key("qwen3moe.embedding_length", 64),
        _key("qwen3moe.attention.head_count", 8),
        _key("qwen3moe.attention.head_count_kv", 2),
        _key("qwen3moe.attention.key_length", 16),
        _key("qwen3moe.attention.value_length", 16),
        _key("qwen3moe.expert_count", 8),
        _key("qwen3moe.expert_used_count", 2),
        _key("tokenizer.ggml.model", "gpt2"),
        _strings("tokenizer.ggml.tokens", (f"{index:x}" for index in range(tokens))),
        _numbers("tokenizer.ggml.token_type", 5, "i", [1] * tokens),
        _strings("tokenizer.ggml.merges", (f"a {index:x}" for index in range(tokens))),
        _key("tokenizer.ggml.bos_token_id", 1),
        _key("tokenizer.ggml.eos_token_id", 2),
        _key("tokenizer.chat_template", "{{ messages[0].content }}"),
    ]
    tensors = [("token_embd.weight", payload_bytes // 4), ("blk.0.ffn_up_exps.weight", 64), ("output.weight", 32)]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    for name, count in tensors:
        head += _text(name) + struct.pack("<IQIQ", 1, count, 0, offset)
        offset += -(-4 * count // 32) * 32
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(offset)


def safetensors(tensors: Mapping[str, tuple[str, list[int], int]]) -> bytes:
    """A file with tensors of (type, shape, bytes of one element)."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, element_bytes) in tensors.items():
        size = element_bytes
        for part in shape:
            size *= part
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(at)


CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 40960,
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "vocab_size": 300,
}


def repository(*, shards: int = 1, layer_bytes: int = 0) -> dict[str, bytes]:
    """The files of a repository in safetensors format, without GGUF files."""
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "Qwen2Tokenizer", "chat_template": "{{ x }}", "model_max_length": 10**30}
        ).encode(),
        "README.md": b"---\nlicense: apache-2.0\n---\n# A model\n",
    }
    layer = {
        f"model.layers.{number}.{name}": ("BF16", [64, 64 + layer_bytes // 128], 2)
        for number in range(2)
        for name in ("self_attn.q_proj.weight", *(f"mlp.experts.{index}.up_proj.weight" for index in range(4)))
    }
    tensors = {"model.embed_tokens.weight": ("BF16", [300, 64], 2), **layer, "lm_head.weight": ("BF16", [300, 64], 2)}
    if shards == 1:
        files["model.safetensors"] = safetensors(tensors)
        return files
    names = [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]
    places = {tensor: names[index % shards] for index, tensor in enumerate(tensors)}
    for name in names:
        files[name] = safetensors({tensor: tensors[tensor] for tensor, place in places.items() if place == name})
    files["model.safetensors.index.json"] = json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()
    return files


def sent_bytes(server: LoopbackServer, expected: int) -> int:
    """What a server has counted. It counts after it has sent, so the client may be a moment ahead of it."""
    deadline = time.monotonic() + 10
    while server.body_bytes < expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return server.body_bytes
