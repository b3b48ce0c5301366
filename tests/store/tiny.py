"""Sound little GGUF files with a payload of any size, and their hashes."""

from __future__ import annotations

import hashlib
import random
import struct

_U16, _U32, _STRING = 2, 4, 8


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _key(name: str, kind: int, value: int | str) -> bytes:
    packed = _text(value) if isinstance(value, str) else struct.pack("<H" if kind == _U16 else "<I", value)
    return _text(name) + struct.pack("<I", kind) + packed


def gguf(payload_bytes: int = 128, seed: int = 0, split: tuple[int, int, int] | None = None) -> bytes:
    """A llama of one layer with one tensor of random numbers. `split`: (number from 0, count, tensors in all)."""
    elements = max(1, payload_bytes // 4)
    keys = [
        _key("general.architecture", _STRING, "llama"),
        _key("general.name", _STRING, f"tiny {seed}"),
        _key("llama.block_count", _U32, 1),
        _key("llama.context_length", _U32, 64),
        _key("llama.embedding_length", _U32, 8),
        _key("llama.attention.head_count", _U32, 2),
    ]
    name = "token_embd.weight"
    if split:
        number, count, tensors = split
        keys += [
            _key("split.no", _U16, number), _key("split.count", _U16, count), _key("split.tensors.count", 5, tensors),
        ]  # fmt: skip
        name = f"blk.{number}.attn_q.weight"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys)
    head += _text(name) + struct.pack("<IQIQ", 1, elements, 0, 0)
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + random.Random(seed).randbytes(4 * elements)


def split_gguf(count: int, payload_bytes: int = 128, seed: int = 0) -> list[bytes]:
    """All parts of a split model."""
    return [gguf(payload_bytes, seed * 1000 + number, (number, count, count)) for number in range(count)]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
