"""Models with MLA or recurrent states, as their published configurations describe them."""

from __future__ import annotations

from bendi.formats.blueprint_others import Latent, deepseek, lfm2, mamba2

OTHER_MODELS = (
    deepseek("DeepSeek-V2-Lite", Latent(27, 2048, 10944, 16, 0, 102400, (64, 6, 1408, 2), 1)),
    deepseek("DeepSeek-V3", Latent(61, 7168, 18432, 128, 1536, 129280, (256, 8, 2048, 1), 3)),
    mamba2("Mamba2-2.7B", 64, 2560),
    lfm2("LFM2-1.2B", 2048, 8192, 32),
)
