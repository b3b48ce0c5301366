"""A model whose every next token is written down: one layer of zeros, so that only the last token matters.

What it says is known beforehand, which a trained model cannot promise: tests of tool calls and stop conditions need
that. One token is one byte, or one of the special tokens.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

START, END, CALL, CALL_END = "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_WIDTH = 320
_U32, _F32, _STRING, _ARRAY, _I32 = 4, 6, 8, 9, 5

TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n# Tools\n<tools>\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    '</tools>\nCall one like this: <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
NEVER_ENDS = {"a": "a"}
CALLS_A_TOOL = {"\n": CALL, CALL: "\n", "{": '"', ":": "1", "1": ",", "}": "\n", CALL_END: END}


def write(path: Path, script: Mapping[str, str], template: str) -> Path:
    """Writes the model: after token `a` comes `script[a]`, after any other token the end of the turn."""
    tokens = [*_byte_tokens(), START, END, CALL, CALL_END]
    kinds = [_NORMAL] * 256 + [_CONTROL, _CONTROL, _USER_DEFINED, _USER_DEFINED]
    number = {token: i for i, token in enumerate(tokens)}
    number |= {bytes([byte]).decode("latin-1"): byte for byte in range(128)}
    keys = [
        _text("general.architecture") + _string("llama"),
        _text("tokenizer.ggml.model") + _string("gpt2"),
        _text("tokenizer.ggml.pre") + _string("gpt-2"),
        _text("tokenizer.chat_template") + _string(template),
        _text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", _ARRAY, _STRING, len(tokens))
        + b"".join(map(_text, tokens)),
        _text("tokenizer.ggml.token_type") + struct.pack(f"<IIQ{len(kinds)}i", _ARRAY, _I32, len(kinds), *kinds),
        _text("tokenizer.ggml.merges") + struct.pack("<IIQ", _ARRAY, _STRING, 0),
        _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", _F32, 1e-5),
    ]
    numbers = {
        "llama.block_count": 1,
        "llama.context_length": 131072,
        "llama.embedding_length": _WIDTH,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 10,
        "llama.attention.head_count_kv": 1,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.eos_token_id": number[END],
        "tokenizer.ggml.bos_token_id": number[START],
    }
    keys += [_text(name) + struct.pack("<II", _U32, value) for name, value in numbers.items()]
    path.write_bytes(_file(keys, _tensors(len(tokens), {number[a]: number[b] for a, b in script.items()}, number[END])))
    return path


def _tensors(vocabulary: int, then: Mapping[int, int], end: int) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Name to (shape, F32 data): one-hot embeddings, and an output matrix that is the table of what comes next."""
    one_hot = b"".join(_row({token: 1.0}) for token in range(vocabulary))
    leads_to: dict[int, dict[int, float]] = {token: {} for token in range(vocabulary)}
    for token in range(vocabulary):
        leads_to[then.get(token, end)][token] = 1.0
    table = b"".join(_row(leads_to[token]) for token in range(vocabulary))
    zeros = {
        "attn_q": (_WIDTH, _WIDTH),
        "attn_k": (_WIDTH, 32),
        "attn_v": (_WIDTH, 32),
        "attn_output": (_WIDTH, _WIDTH),
    }
    zeros |= {"ffn_gate": (_WIDTH, 32), "ffn_up": (_WIDTH, 32), "ffn_down": (32, _WIDTH)}
    ones = struct.pack(f"<{_WIDTH}f", *[1.0] * _WIDTH)
    return {
        "token_embd.weight": ((_WIDTH, vocabulary), one_hot),
        "output.weight": ((_WIDTH, vocabulary), table),
        "output_norm.weight": ((_WIDTH,), ones),
        "blk.0.attn_norm.weight": ((_WIDTH,), ones),
        "blk.0.ffn_norm.weight": ((_WIDTH,), ones),
        **{f"blk.0.{name}.weight": (shape, bytes(4 * shape[0] * shape[1])) for name, shape in zeros.items()},
    }


def _row(values: Mapping[int, float]) -> bytes:
    return struct.pack(f"<{_WIDTH}f", *[values.get(column, 0.0) for column in range(_WIDTH)])


def _file(keys: list[bytes], tensors: Mapping[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    data = b""
    for name, (shape, content) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += content.ljust(-(-len(content) // 32) * 32, b"\0")
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + data


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _string(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(value)


def _byte_tokens() -> list[str]:
    """The 256 bytes as GPT-2 writes them: printable ones as themselves, the others moved up to U+0100 and on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]
