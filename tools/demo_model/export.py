"""Write a trained checkpoint as GGUF: architecture qwen3, Q8_0 matrices, F32 norms, tokenizer and template inside.

python -m tools.demo_model.export --model build/demo_model/model.pt --out src/bendi/assets/demo.gguf
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import gguf
import numpy as np
import torch

from . import tokenizer as tok
from .model import Demo, Shape

NAMES = {
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "q": "attn_q",
    "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


def load(path: Path) -> Demo:
    """Read a checkpoint of `train`, ready for evaluation."""
    saved = torch.load(path, weights_only=True)
    model = Demo(Shape(**{**saved["shape"], "dropout": 0.0}))
    model.load_state_dict(saved["weights"])
    return model.eval()


def gguf_name(name: str) -> str:
    """Return the GGUF tensor name of a PyTorch parameter name."""
    if name == "embedding.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, index, part, _ = name.split(".")
    return f"blk.{index}.{NAMES[part]}.weight"


def describe(writer: gguf.GGUFWriter, shape: Shape, count: int) -> None:
    """Write the header facts of the model."""
    writer.add_type("model")
    writer.add_name("bendi demo")
    writer.add_description(
        "Small demonstration model of bendi, trained from scratch on questions about running language models locally"
    )
    writer.add_license("Apache-2.0")
    writer.add_languages(["zh", "en"])
    writer.add_size_label(f"{count / 1e6:.1f}M")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def write_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Write vocabulary, merges, special tokens and the chat template."""
    tokenizer = tok.load(path)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tok.SPECIALS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tok.PRE_NAME)
    writer.add_token_list([piece for piece, _ in pieces])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if piece in special else kinds.NORMAL for piece, _ in pieces])
    writer.add_token_merges([f"{left} {right}" for left, right in tok.read(path)[1]])
    writer.add_bos_token_id(tokenizer.token_to_id("<|endoftext|>"))
    writer.add_pad_token_id(tokenizer.token_to_id("<|endoftext|>"))
    writer.add_eos_token_id(tokenizer.token_to_id("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(tok.CHAT_TEMPLATE)


def export(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write the GGUF beside its place and rename it, so that readers never see half a file."""
    model = load(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".part")
    writer = gguf.GGUFWriter(partial, "qwen3")
    describe(writer, model.shape, sum(p.numel() for p in model.parameters()))
    write_tokenizer(writer, tokenizer)
    for name, weight in model.named_parameters():
        data = weight.detach().numpy().astype(np.float32)
        if data.ndim > 1:
            packed = gguf.quants.quantize(data, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    partial.replace(out)


def main() -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser(description="Export the demo model to GGUF.")
    parser.add_argument("--model", type=Path, default=Path("build/demo_model/model.pt"))
    parser.add_argument("--tokenizer", type=Path, default=Path("build/demo_model/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("src/bendi/assets/demo.gguf"))
    options = parser.parse_args()
    export(options.model, options.tokenizer, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
