"""Models as their published configurations describe them."""

from __future__ import annotations

from bendi.formats.blueprint_transformer import Shape, transformer

QWEN3 = "norm ffn_norm gate qk_norm"
GEMMA = "norm ffn_norm gate post_norms"
QWEN2 = "norm ffn_norm gate qkv_bias"
MODELS = (
    transformer("Llama-3.2-1B", "llama", Shape(16, 2048, 8192, 32, 8, 64, 128256, 131072, tied=True)),
    transformer("Llama-3.2-3B", "llama", Shape(28, 3072, 8192, 24, 8, 128, 128256, 131072, tied=True)),
    transformer("Llama-3.1-8B", "llama", Shape(32, 4096, 14336, 32, 8, 128, 128256, 131072)),
    transformer("Llama-3.1-70B", "llama", Shape(80, 8192, 28672, 64, 8, 128, 128256, 131072)),
    transformer("Llama-2-7B", "llama", Shape(32, 4096, 11008, 32, 32, 128, 32000, 4096)),
    transformer("Mistral-7B-v0.3", "llama", Shape(32, 4096, 14336, 32, 8, 128, 32768, 32768)),
    transformer("Mistral-Nemo-12B", "llama", Shape(40, 5120, 14336, 32, 8, 128, 131072, 131072)),
    transformer("Mistral-Small-24B", "llama", Shape(40, 5120, 32768, 32, 8, 128, 131072, 32768)),
    transformer("Mixtral-8x7B", "llama", Shape(32, 4096, 14336, 32, 8, 128, 32000, 32768, experts=(8, 2, 14336))),
    transformer("Qwen2.5-0.5B", "qwen2", Shape(24, 896, 4864, 14, 2, 64, 151936, 32768, parts=QWEN2, tied=True)),
    transformer("Qwen2.5-7B", "qwen2", Shape(28, 3584, 18944, 28, 4, 128, 152064, 131072, parts=QWEN2)),
    transformer("Qwen2.5-32B", "qwen2", Shape(64, 5120, 27648, 40, 8, 128, 152064, 131072, parts=QWEN2)),
    transformer("Qwen3-0.6B", "qwen3", Shape(28, 1024, 3072, 16, 8, 128, 151936, 40960, parts=QWEN3, tied=True)),
    transformer("Qwen3-4B", "qwen3", Shape(36, 2560, 9728, 32, 8, 128, 151936, 40960, parts=QWEN3, tied=True)),
    transformer("Qwen3-8B", "qwen3", Shape(36, 4096, 12288, 32, 8, 128, 151936, 40960, parts=QWEN3)),
    transformer("Qwen3-14B", "qwen3", Shape(40, 5120, 17408, 40, 8, 128, 151936, 40960, parts=QWEN3)),
    transformer("Qwen3-32B", "qwen3", Shape(64, 5120, 25600, 64, 8, 128, 151936, 40960, parts=QWEN3)),
    transformer(
        "Qwen3-30B-A3B",
        "qwen3moe",
        Shape(48, 2048, 6144, 32, 4, 128, 151936, 40960, experts=(128, 8, 768), parts=QWEN3),
    ),
    transformer(
        "Qwen3-235B-A22B",
        "qwen3moe",
        Shape(94, 4096, 12288, 64, 4, 128, 151936, 40960, experts=(128, 8, 1536), parts=QWEN3),
    ),
    transformer(
        "OLMoE-1B-7B",
        "olmoe",
        Shape(16, 2048, 1024, 16, 16, 128, 50304, 4096, experts=(64, 8, 1024), parts="norm ffn_norm gate qk_norm_wide"),
    ),
    transformer(
        "OLMo2-7B",
        "olmo2",
        Shape(32, 4096, 11008, 32, 32, 128, 100352, 4096, parts="gate qk_norm_wide post_norms"),
    ),
    transformer(
        "Phi-3-mini-4k",
        "phi3",
        Shape(32, 3072, 8192, 32, 32, 96, 32064, 4096, parts="norm ffn_norm fused_qkv fused_up"),
    ),
    transformer(
        "Qwen3-Coder-480B",
        "qwen3moe",
        Shape(62, 6144, 8192, 96, 8, 128, 151936, 262144, experts=(160, 8, 2560), parts=QWEN3),
    ),
    transformer("Mixtral-8x22B", "llama", Shape(56, 6144, 16384, 48, 8, 128, 32768, 65536, experts=(8, 2, 16384))),
    transformer(
        "Phi-4",
        "phi3",
        Shape(40, 5120, 17920, 40, 10, 128, 100352, 16384, parts="norm ffn_norm fused_qkv fused_up"),
    ),
    transformer(
        "Gemma-2-2B",
        "gemma2",
        Shape(26, 2304, 9216, 8, 4, 256, 256000, 8192, parts=GEMMA, tied=True,
              more={"attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    ),
    transformer(
        "Gemma-2-9B",
        "gemma2",
        Shape(42, 3584, 14336, 16, 8, 256, 256000, 8192, parts=GEMMA, tied=True,
              more={"attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    ),
    transformer(
        "Gemma-3-1B",
        "gemma3",
        Shape(26, 1152, 6912, 4, 1, 256, 262144, 32768, parts=GEMMA + " qk_norm", tied=True,
              more={"attention.sliding_window": 512}),
    ),
    transformer(
        "Gemma-3-4B",
        "gemma3",
        Shape(34, 2560, 10240, 8, 4, 256, 262208, 131072, parts=GEMMA + " qk_norm", tied=True,
              more={"attention.sliding_window": 1024}),
    ),
    transformer(
        "Gemma-3-12B",
        "gemma3",
        Shape(48, 3840, 15360, 16, 8, 256, 262208, 131072, parts=GEMMA + " qk_norm", tied=True,
              more={"attention.sliding_window": 1024}),
    ),
    transformer(
        "Command-R7B",
        "cohere2",
        Shape(32, 4096, 14336, 32, 8, 128, 256000, 8192, parts="norm gate", tied=True,
              more={"attention.sliding_window": 4096, "logit_scale": 0.25}),
    ),
    transformer(
        "gpt-oss-20b",
        "gpt-oss",
        Shape(24, 2880, 2880, 64, 8, 64, 201088, 131072, experts=(32, 4, 2880),
              parts="norm post_attention_norm qkv_bias out_bias sinks expert_bias",
              more={"attention.sliding_window": 128}),
    ),
    transformer(
        "gpt-oss-120b",
        "gpt-oss",
        Shape(36, 2880, 2880, 64, 8, 64, 201088, 131072, experts=(128, 4, 2880),
              parts="norm post_attention_norm qkv_bias out_bias sinks expert_bias",
              more={"attention.sliding_window": 128}),
    ),
    transformer(
        "GLM-4-9B-0414",
        "glm4",
        Shape(40, 4096, 13696, 32, 2, 128, 151552, 32768, parts="norm ffn_norm fused_up post_norms",
              more={"rope.dimension_count": 64}),
    ),
    transformer(
        "GLM-4.5-Air",
        "glm4moe",
        Shape(46, 4096, 10944, 96, 8, 128, 151552, 131072, experts=(128, 8, 1408), shared_ff=1408, dense_lead=1,
              parts="norm post_attention_norm gate qkv_bias score_bias",
              more={"rope.dimension_count": 64, "leading_dense_block_count": 1, "expert_shared_count": 1,
                    "expert_weights_scale": 1.0, "expert_weights_norm": True, "expert_gating_func": 2}),
    ),
    transformer(
        "StarCoder2-3B",
        "starcoder2",
        Shape(30, 3072, 12288, 24, 2, 128, 49152, 16384, tied=True,
              parts="norm ffn_norm biases qkv_bias out_bias ffn_bias"),
    ),
    transformer(
        "Llama-4-Scout",
        "llama4",
        Shape(48, 5120, 16384, 40, 8, 128, 202048, 131072, experts=(16, 1, 8192), shared_ff=8192,
              more={"interleave_moe_layer_step": 1, "expert_shared_count": 1}),
    ),
)  # fmt: skip
