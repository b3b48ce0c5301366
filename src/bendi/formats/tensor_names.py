"""What the names of tensors in GGUF files say (llama.cpp `src/llama-arch.cpp`)."""

from __future__ import annotations

import re

_LAYER = re.compile(r"blk\.(\d{1,5})\.(.*)")
_EXPERTS = re.compile(r"ffn_(?:\w+_(?:ch)?exps\b|(?:gate|up|down)\.\d+\.)")


def layer_and_part(name: str) -> tuple[int, str]:
    """The number of the layer that a tensor belongs to and its name there; -1 and the whole name outside of layers."""
    found = _LAYER.match(name)
    return (int(found[1]), found[2]) if found else (-1, name)


def is_expert_stack(part: str) -> bool:
    """Whether a tensor with this name in its layer holds experts to choose from (old files: one of them)."""
    return _EXPERTS.match(part) is not None
