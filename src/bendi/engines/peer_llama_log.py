"""What llama-server says of its settings: in its log while it loads, and at `/props`.

The lines are those of llama.cpp `src/llama-context.cpp`, `src/llama-kv-cache.cpp`, `src/llama-model.cpp` and
`common/common.cpp`; what a version does not say is not confirmed. Names in a model file are part of that log: nothing
is refused or allocated because of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NUMBERS = {
    "batch_tok": re.compile(r"llama_context: n_batch += (\d+)\s*$"),
    "ubatch_tok": re.compile(r"llama_context: n_ubatch += (\d+)\s*$"),
    "threads": re.compile(r"system_info: n_threads = (\d+)"),
    "prompt_threads": re.compile(r"system_info: .*?\(n_threads_batch = (\d+)\)"),
}
_FLASH = re.compile(r"llama_context: flash_attn += (\S+)\s*$")
_FLASH_CHOSEN = re.compile(r"Flash Attention was auto, set to (enabled|disabled)")
_KV_TYPES = re.compile(r"llama_kv_cache\w*: size = .*, K \((\w+)\): .*, V \((\w+)\): ")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_BUFFER = re.compile(r"load_tensors: +(\S+) +model buffer size")
_FLASH_WORDS = {"enabled": True, "1": True, "on": True, "disabled": False, "0": False, "off": False}


def said_of_settings(lines: Iterable[str], properties: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of SETTINGS. `properties`: from `/props`. `asked`: what `gpu_layers` is compared with."""
    said: dict[str, Any] = {
        "context_tok": (properties.get("default_generation_settings") or {}).get("n_ctx"),
        "parallel": properties.get("total_slots"),
    }
    buffers: set[str] = set()
    for line in lines:
        for name, pattern in _NUMBERS.items():
            if found := pattern.search(line):
                said[name] = int(found[1])
        if found := _FLASH_CHOSEN.search(line) or _FLASH.search(line):
            said["flash_attention"] = _FLASH_WORDS.get(found[1], said.get("flash_attention"))
        if found := _KV_TYPES.search(line):
            said["type_k"], said["type_v"] = found[1], found[2]
        if found := _OFFLOADED.search(line):
            said["gpu_layers"] = _layers(int(found[1]), int(found[2]), asked.get("gpu_layers"))
        if found := _BUFFER.search(line):
            buffers.add(found[1])
    if buffers:
        said["mmap"] = any(name.endswith("_Mapped") for name in buffers)
        said["repack"] = any("REPACK" in name for name in buffers)
    return said


def _layers(offloaded: int, all_layers: int, asked: object) -> int:
    """How many are on GPUs, in the words of who asked for all of them."""
    if isinstance(asked, int) and offloaded == all_layers and (asked < 0 or asked >= all_layers):
        return asked
    return offloaded
