"""How a model is to be loaded, as far as memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

CELLS = 256
"""llama.cpp allocates the KV cache in multiples of so many tokens (llama-context.cpp)."""
F32_BYTES = 4


@dataclass(frozen=True)
class MemorySetup:
    """`context_tok`: for each of `parallel` conversations. `type_k`, `type_v`: how keys and values are kept (`"f16"`,
    `"q8_0"`, `"q4_0"`); values other than F16 need `flash_attention`. `n_ubatch`: tokens computed at once."""

    context_tok: int
    parallel: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    n_batch: int = 512
    n_ubatch: int = 512
    flash_attention: bool = True
    embeddings: bool = False

    @property
    def types(self) -> tuple[str, str]:
        """Of keys and values."""
        return self.type_k, self.type_v


def for_whole_inputs(setup: MemorySetup) -> MemorySetup:
    """The same for a model that makes vectors or scores, and must see an input at once: as encoders do."""
    batch_tok = max(setup.n_ubatch, pad_cells(setup.context_tok))
    return replace(setup, n_batch=batch_tok, n_ubatch=batch_tok, embeddings=True)


def pad_cells(context_tok: int) -> int:
    """Tokens for which the engine makes room when `context_tok` are asked for."""
    return -(-context_tok // CELLS) * CELLS


def window_cells(window_tok: int, setup: MemorySetup) -> int:
    """Tokens for which layers that see `window_tok` tokens make room. Source: llama.cpp `llama-kv-cache-iswa.cpp`."""
    return pad_cells(min(pad_cells(setup.context_tok), window_tok + setup.n_ubatch))
